"""A bill of materials of an export: model, base and software.

It is a CycloneDX ML-BOM (https://cyclonedx.org/docs/1.6/json/). Its figures are those of the model card, for programs.
"""

import time
import uuid
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

from console.papers.card import LIMITS, USES
from console.papers.origin import Origin
from llm.bases import licence_of, published

FILE = "bom.cdx.json"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:foedus:export")
_WEIGHTS = ".safetensors"
_MACHINE = {"python", "instruction-set", "device", "threads"}
"""What is no package of a genesis's environment."""

Json = dict[str, Any]


def bill(origin: Origin, files: Mapping[str, str], family: str) -> Json:
    """The bill of an export's `files` (SHA-256 in hex by path) on a base of an architecture `family`, as "llama"."""
    genesis = origin.run.genesis
    # A local version, as 2.13.0+cpu, has a plus, which a package URL escapes.
    urls = {name: f"pkg:pypi/{name}@{quote(number)}" for name, number in genesis.environment.items()}
    software = [
        {"type": "library", "bom-ref": urls[name], "name": name, "version": number, "purl": urls[name]}
        for name, number in sorted(genesis.environment.items()) if name not in _MACHINE
    ]  # fmt: skip
    base = {
        "type": "machine-learning-model",
        "bom-ref": "base",
        "name": published(genesis.base.name),
        **_licences(licence_of(genesis.base.name)),
        "properties": _properties({"base-digest": genesis.base.digest, "quantisation": genesis.base.quantisation}),
    }
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, ''.join(files.values()))}",
        "version": 1,
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "tools": {"components": [{"type": "application", "name": "foedus", "version": version("foedus")}]},
            "component": _model(origin, files, family),
        },
        "components": [base, *software],
        "dependencies": [{"ref": "model", "dependsOn": ["base", *(one["bom-ref"] for one in software)]}],
    }


def _model(origin: Origin, files: Mapping[str, str], family: str) -> Json:
    """What is exported, as a component with a model card."""
    genesis = origin.run.genesis
    datasets = [
        {"type": "dataset", "name": f"training records of {teacher.called}",
         "description": f"{teacher.organisation.examples} examples registered, {teacher.updates} updates; "
                        "the records stay with the organisation"}
        for teacher in origin.teachers
    ]  # fmt: skip
    metrics = [
        {"type": kind, "value": f"{loss:.6g}", "slice": f"held-out records of {called}"}
        for called, before, after in origin.losses
        for kind, loss in (("loss of the base, nats per answer token", before), ("loss, nats per answer token", after))
    ]
    facts = {"run": genesis.run, "genesis": genesis.digest, "aggregate": origin.aggregate}
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": genesis.run,
        "version": origin.aggregate,
        "hashes": [{"alg": "SHA-256", "content": sha} for name, sha in files.items() if name.endswith(_WEIGHTS)],
        **_licences(origin.licence),
        "pedigree": {"ancestors": [{"type": "machine-learning-model", **ancestor} for ancestor in _ancestors(origin)]},
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "text-generation",
                "architectureFamily": "transformer",
                "modelArchitecture": family,
                "datasets": datasets,
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
            "considerations": {"useCases": [USES], "technicalLimitations": [*LIMITS]},
        },
        "properties": _properties(facts),
    }


def _ancestors(origin: Origin) -> Iterator[Json]:
    """What it derives from: the base, and the adapter of the run that this one continues."""
    yield {"name": published(origin.run.genesis.base.name)}
    if former := origin.run.genesis.origin:
        yield {"name": former.run, "version": former.state}


def _licences(licence: str) -> Json:
    return {"licenses": [{"license": {"name": licence}}]} if licence else {}


def _properties(facts: Mapping[str, str]) -> list[Json]:
    return [{"name": f"foedus:{name}", "value": value} for name, value in facts.items()]
