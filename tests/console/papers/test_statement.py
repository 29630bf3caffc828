"""The statement: in-toto's and SLSA's own types read it, and it names base, updates and served rounds."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.statement import Statement

from console.papers.origin import Origin
from console.papers.statement import PREDICATE, digest_set, statement
from tests.behaviours.runs import Federation, build
from tests.console.papers.test_origin import continuing, origin_of

FILES = {"README.md": "ab" * 32, "adapter_model.safetensors": "cd" * 32}


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return build(tmp_path / "state" / "runs" / "run", rounds=2)


@pytest.fixture
def origin(federation: Federation) -> Origin:
    return origin_of(federation)


def test_in_totos_own_types_read_it(origin: Origin) -> None:
    told = statement(origin, FILES)
    read = Statement.copy_from_pb(json_format.ParseDict(told, Statement([], "", {}).pb.__class__()))
    read.validate()
    assert {subject.name: subject.digest["sha256"] for subject in read.pb.subject} == FILES
    assert told["predicateType"] == PREDICATE
    # Unknown fields are an error there.
    json_format.ParseDict(told["predicate"], provenance_pb2.Provenance())


def test_it_names_base_updates_and_served_round(origin: Origin, federation: Federation) -> None:
    definition = statement(origin, FILES)["predicate"]["buildDefinition"]
    base, *updates = definition["resolvedDependencies"]
    assert base["digest"] == digest_set("base", federation.genesis.base.digest)
    manifests = [a.signed.value.digest for s in federation.run.records() for a in s.value.admitted]
    assert [update["digest"] for update in updates] == [digest_set("manifest", one) for one in manifests]
    assert definition["externalParameters"]["genesis"] == federation.genesis.digest


def test_salts_of_other_rounds_stay_where_they_are(origin: Origin, federation: Federation) -> None:
    text = json.dumps(statement(origin, FILES))
    first, last = (federation.run.salts(signed.value) for signed in federation.run.records())
    assert last.aggregate in text
    assert not [salt for salt in (first.aggregate, *first.updates.values(), *last.updates.values()) if salt in text]


def test_it_names_the_adapter_that_its_run_began_with(origin: Origin) -> None:
    former = continuing(origin)
    told = statement(origin, FILES)["predicate"]
    json_format.ParseDict(told, provenance_pb2.Provenance())
    adapter = told["buildDefinition"]["resolvedDependencies"][1]
    assert adapter["name"] == "before"
    assert adapter["digest"] == digest_set("adapter", former.state)
    assert adapter["annotations"]["record"] == former.record
