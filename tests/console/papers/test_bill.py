"""The bill of materials: the CycloneDX schema takes it, and its figures are those of the card."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from console.papers.bill import bill
from console.papers.origin import Origin
from tests.behaviours.runs import build
from tests.console.papers.test_origin import continuing, origin_of

FILES = {"README.md": "ab" * 32, "adapter_model.safetensors": "cd" * 32}


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    origin = origin_of(build(tmp_path / "state" / "runs" / "run", rounds=2))
    genesis = origin.run.genesis
    origin.run.__dict__["genesis"] = replace(
        genesis, environment={"torch": "2.13.0+cpu", "numpy": "2.4.6", "python": "3.11.7", "threads": "1"}
    )
    return replace(origin, licence="Apache-2.0")


def test_the_schema_takes_it(origin: Origin) -> None:
    names = list(origin.run.genesis.names.values())
    told = origin.report | {"base_loss": dict.fromkeys(names, 3.5), "final_loss": dict.fromkeys(names, 2.25)}
    origin.__dict__["report"] = told
    text = json.dumps(bill(origin, FILES, "llama"))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text.count('"2.25"') == len(names)
    broken = text.replace('"machine-learning-model"', '"model"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken)


def test_it_lists_packages_alone_and_escapes_their_versions(origin: Origin) -> None:
    base, *software = bill(origin, FILES, "llama")["components"]
    assert base["type"] == "machine-learning-model"
    assert [one["purl"] for one in software] == ["pkg:pypi/numpy@2.4.6", "pkg:pypi/torch@2.13.0%2Bcpu"]


def test_it_hashes_the_weights_and_says_where_the_records_are(origin: Origin) -> None:
    model = bill(origin, FILES, "llama")["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": "cd" * 32}]
    assert model["licenses"] == [{"license": {"name": "Apache-2.0"}}]
    datasets = model["modelCard"]["modelParameters"]["datasets"]
    assert len(datasets) == len(origin.teachers)
    assert all("the records stay with the organisation" in one["description"] for one in datasets)


def test_the_adapter_that_a_run_began_with_is_among_its_ancestors(origin: Origin) -> None:
    former = continuing(origin)
    told = bill(origin, FILES, "llama")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(told)) is None
    base, adapter = told["metadata"]["component"]["pedigree"]["ancestors"]
    assert (base["name"], adapter["name"], adapter["version"]) == ("none", "before", former.state)
