"""The trust map: every fact of a run, and the rung it stands on. Never one score.

recomputed       anybody who has the files computes it again and gets the same
attested         several parties have signed it
anchored         it was committed to a chain, which shows when, and that nothing was put in its place since
self-reported    one party says so
not defended     nothing shows it
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from chain.audit.report import AuditReport, What
from core.storage.run_folder import RunFolder

Json = dict[str, Any]

RUNGS = ("recomputed", "attested", "anchored", "self-reported", "not defended")


class Fact(NamedTuple):
    """A fact: its rung, why, and the kinds of the audit's failures and counts that are about it."""

    id: str
    what: str
    rung: str
    why: str
    kinds: frozenset[str] = frozenset()
    counts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What checking a fact came to: expected and got, in words."""

    ok: bool
    expected: str
    got: str
    more: int = 0
    """Failures beyond the one that is shown."""


def _kinds(*kinds: What) -> frozenset[str]:
    return frozenset(kind.value for kind in kinds)


ALWAYS = (
    Fact(
        "updates", "Every update is its organisation's, for this round", "recomputed",
        "signature, parent and bytes of each are checked again",
        _kinds(What.MANIFEST_SIGNATURE, What.MANIFEST_GENESIS, What.MANIFEST_PLACE, What.MANIFEST_PARENT,
               What.NONCE, What.UPDATE, What.SHAPE, What.NORM, What.FINITE), ("manifests", "updates"),
    ),
    Fact(
        "aggregates", "Each round's adapter is the weighted sum of its updates", "recomputed",
        "the sum is computed again, bit for bit; rounds whose updates were erased are attested by an earlier audit",
        _kinds(What.AGGREGATE, What.WEIGHT, What.FACTOR, What.ORDER, What.RULE, What.RESIDUAL, What.SHARED_A),
        ("aggregates",),
    ),
    Fact(
        "records", "The rounds are one line, from the genesis to what is served", "recomputed",
        "each record is signed and names the one before",
        _kinds(What.RECORD, What.SIGNATURE, What.GAP, What.FORK, What.PARENT, What.PREVIOUS, What.GENERATION,
               What.ROUNDS, What.ATTEMPT, What.ASKED, What.QUORUM), ("records",),
    ),
    Fact(
        "erasures", "What was erased is gone from what is served", "attested",
        "coordinator and organisation have signed; destroyed states must be unreadable",
        _kinds(What.ATTESTATION, What.CERTIFICATE, What.DESTROYED, What.REAGGREGATED, What.ARTIFACT),
        ("attestations", "certificates", "destroyed states"),
    ),
    Fact("base", "The base model's bytes", "attested", "the genesis has their digest; every use compares it"),
    Fact("losses", "Losses that organisations measured on their own data", "self-reported",
         "nobody else has the data"),
    Fact("examples", "How many examples an organisation has", "self-reported",
         "weights follow from these counts, which the genesis caps"),
    Fact("honesty", "An admitted update means well", "not defended",
         "admission looks at signatures, shapes and norms, and poison can be well-formed"),
)  # fmt: skip
"""The facts that stand on one rung in every run."""


def facts(run: RunFolder, chain: str) -> list[Fact]:
    """The facts of a run whose public chain is `chain`: embedded, anvil or a URL."""
    genesis, derived = run.genesis, all(o.derived for o in run.genesis.organisations)
    own = chain in ("embedded", "anvil")
    keeper = "this machine's own development chain: its owner can rebuild it" if own else "a chain that others may run"
    found = [
        *ALWAYS,
        Fact(
            "members", "The members agreed to this genesis", "attested" if not derived else "self-reported",
            "keys are derived from the seed: in a simulation anybody can sign for anybody" if derived
            else "each has signed with its own key",
            _kinds(What.FOUNDING, What.MEMBERS, What.MEMBER, What.GENESIS, What.READERS),
            ("members who agreed", "members"),
        ),
        Fact(
            "anchors", "Rounds were committed when they closed", "anchored",
            f"chain {genesis.chain.chain_id}, contract {genesis.chain.contract}: {keeper}",
            _kinds(What.NOT_ON_LEDGER, What.NOT_RECORDED, What.COMMITMENT, What.UPDATES_ROOT, What.ANCHOR, What.COUNT,
                   What.COMMITTED_PARENT, What.CHAIN_ID, What.CONTRACT, What.COORDINATOR, What.LEDGER, What.QUEUE,
                   What.CHAIN_UNREACHABLE), ("commitments",),
        ),
        Fact("records-private", "Nobody can infer a training record from updates",
             "self-reported" if genesis.privacy else "not defended",
             "noise was added at home, within the budget that each organisation counts" if genesis.privacy
             else "no noise was added: dp-epsilon is off"),
    ]  # fmt: skip
    # Whatever else an audit finds must show somewhere: no failure may hide between two facts.
    rest = frozenset(kind.value for kind in What) - {kind for fact in found for kind in fact.kinds}
    why = "files, sealed copies, salts, credit, losses, bids and the members' own chain are looked at"
    return [
        *found,
        Fact("rest", "Nothing else of the record is damaged or missing", "recomputed", why, rest, ("files",)),
    ]


def found_by(fact: Fact, report: AuditReport) -> Found:
    """What an audit found about a fact."""
    failures = [failure for failure in report.failures if failure.what in fact.kinds]
    if failures:
        first = failures[0]
        return Found(False, f"{first.what} at {first.where}: {first.want}", first.got, len(failures) - 1)
    counted = [f"{report.checked.get(name, 0)} {name}" for name in fact.counts]
    return Found(True, f"{', '.join(fact.counts)} that hold", f"{', '.join(counted)} checked, none that does not")
