"""The in-toto statement that binds an export to its base, its run and the commitments on the chain.

Its predicate is SLSA's provenance (https://slsa.dev/spec/v1.0/provenance): the federation is the build, base and
updates are what it was made of, and its served rounds are by-products, each with what opens its commitment.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from console.papers.origin import Origin, ServedHead
from core.canonical import Digest
from core.model_signature import STATEMENT
from core.rounds import Admitted, RoundRecord
from llm.bases import published

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:foedus:federated-training:v1"
FILE = "provenance.intoto.jsonl"
"""One DSSE envelope a line, as attestations are bundled."""

Json = dict[str, Any]


def statement(origin: Origin, files: Mapping[str, str]) -> Json:
    """The statement about an export's `files`: SHA-256 in hex by path."""
    genesis = origin.run.genesis
    base = {
        "name": published(genesis.base.name),
        "digest": digest_set("base", genesis.base.digest),
        "annotations": {"role": "base model", "quantisation": genesis.base.quantisation},
    }
    updates = [_update(record, admitted) for line in origin.lines for record in line for admitted in record.admitted]
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "run": genesis.run,
            "genesis": genesis.digest,
            "rule": genesis.rule,
            "composition": genesis.composition,
            "rank": genesis.rank,
            "alpha": genesis.alpha,
            "seed": genesis.seed,
            "aggregate": origin.aggregate,
        },
        "resolvedDependencies": [base, *_former(origin), *updates],
    }
    # The coordinator, as accounts of Ethereum's chains are named: did:pkh, CAIP-10.
    builder = {
        "id": f"did:pkh:eip155:{genesis.chain.chain_id}:{genesis.coordinator}",
        "version": {"foedus": version("foedus")},
    }
    details = {
        "builder": builder,
        "metadata": {"invocationId": genesis.run},
        "byproducts": [_round(head) for head in origin.heads],
    }
    return {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in files.items()],
        "predicateType": PREDICATE,
        "predicate": {"buildDefinition": definition, "runDetails": details},
    }


def digest_set(noun: str, value: Digest) -> dict[str, str]:
    """A digest of ours as in-toto writes it: it is SHA-256 under a tag of the noun, so it is no `sha256` of a file."""
    return {f"foedus-{noun}-v1": value.removeprefix("0x")}


def _former(origin: Origin) -> Iterator[Json]:
    """The adapter that the run began with, where it continues another."""
    if former := origin.run.genesis.origin:
        yield {
            "name": former.run,
            "digest": digest_set("adapter", former.state),
            "annotations": {"role": "adapter of the continued run", "genesis": former.genesis, "record": former.record},
        }


def _update(record: RoundRecord, admitted: Admitted) -> Json:
    place = {"lane": record.lane, "generation": record.generation, "round": record.round}
    return {
        "name": "update",
        "digest": digest_set("manifest", admitted.signed.value.digest),
        "annotations": {"organisation": admitted.organisation, "weight": admitted.weight, **place},
    }


def _round(head: ServedHead) -> Json:
    """A served round: with salt, record and aggregate anybody computes the commitment that stands on the chain."""
    record, salts, anchor = head
    opening = {"salt": salts.aggregate, "commitment": salts.aggregate_commitment(record)} if salts else {}
    place = {"lane": record.lane, "generation": record.generation, "round": record.round}
    return {
        "name": "served round",
        "digest": digest_set("round", record.digest),
        "annotations": {
            **place,
            "aggregate": record.aggregate,
            **opening,
            "anchor": asdict(anchor) if anchor else None,
        },
    }
