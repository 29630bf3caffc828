"""The sample organisations: reproducible, realistic in size, and each the only source of its facts."""

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

import assets
from assets.forms import SampleOrganisation
from assets.generate import DEV, ORGANISATIONS, SEED, VALIDATION, generate, main
from benchmarks.base_text import SIZES, corpus

NAMES = [organisation.name for organisation in ORGANISATIONS]
FILES = [*(f"{name}/{part}.jsonl" for name in NAMES for part in ("train", "dev")), "validation.jsonl"]


def _read(file: str) -> list[dict[str, str]]:
    lines = (assets.samples() / file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _prompts(file: str) -> set[tuple[str, str]]:
    return {(record["instruction"], record["input"]) for record in _read(file)}


def _text(records: list[dict[str, str]]) -> str:
    return "\n".join(value for record in records for value in record.values()).lower()


def _mentions(text: str, entity: str) -> bool:
    """Say whether the lower-case text names the entity as a word of its own."""
    found = (match for match in re.finditer(re.escape(entity.lower()), text))
    return any(not (text[m.start() - 1 : m.start()].isalnum() or text[m.end() : m.end() + 1].isalnum()) for m in found)


def test_the_committed_seed_gives_the_committed_bytes(tmp_path: Path) -> None:
    generate(tmp_path, SEED)
    for file in FILES:
        assert (tmp_path / file).read_bytes() == (assets.samples() / file).read_bytes(), file


def test_another_seed_gives_other_wordings_of_the_same_facts(tmp_path: Path) -> None:
    main(["--seed", "8", "--out", str(tmp_path)])
    for name in NAMES:
        other = [json.loads(line) for line in (tmp_path / name / "train.jsonl").read_text().splitlines()]
        committed = _read(f"{name}/train.jsonl")
        assert other != committed
        assert {record["fact"] for record in other} == {record["fact"] for record in committed}


@pytest.mark.parametrize("name", NAMES)
def test_an_organisation_has_enough_records_with_all_fields(name: str) -> None:
    train, dev = _read(f"{name}/train.jsonl"), _read(f"{name}/dev.jsonl")
    assert len(train) >= 400
    assert len(dev) == DEV
    assert all(list(record) == ["instruction", "input", "output", "fact"] for record in train + dev)
    assert all(record["instruction"] and record["output"] for record in train + dev)


@pytest.mark.parametrize("file", FILES[:-1])
def test_the_fact_is_a_literal_part_of_the_answer(file: str) -> None:
    assert all(record["fact"] and record["fact"] in record["output"] for record in _read(file))


@pytest.mark.parametrize("name", NAMES)
def test_no_question_of_dev_is_asked_in_training(name: str) -> None:
    assert not _prompts(f"{name}/train.jsonl") & _prompts(f"{name}/dev.jsonl")


@pytest.mark.parametrize("name", NAMES)
def test_dev_asks_for_facts_that_training_taught(name: str) -> None:
    taught = {record["fact"] for record in _read(f"{name}/train.jsonl")}
    assert {record["fact"] for record in _read(f"{name}/dev.jsonl")} <= taught


@pytest.mark.parametrize("name", NAMES)
def test_no_training_question_is_asked_twice(name: str) -> None:
    assert len(_prompts(f"{name}/train.jsonl")) == len(_read(f"{name}/train.jsonl"))


@pytest.mark.parametrize(("one", "two"), list(combinations(NAMES, 2)))
def test_two_organisations_share_no_fact(one: str, two: str) -> None:
    facts = [{record["fact"] for record in _read(f"{name}/train.jsonl")} for name in (one, two)]
    assert not facts[0] & facts[1]


@pytest.mark.parametrize("organisation", ORGANISATIONS, ids=NAMES)
def test_nobody_else_mentions_an_organisations_entities(organisation: SampleOrganisation) -> None:
    files = [file for file in FILES if not file.startswith(organisation.name)]
    others = _text([record for file in files for record in _read(file)])
    assert [entity for entity in organisation.names if _mentions(others, entity)] == []


@pytest.mark.parametrize("organisation", ORGANISATIONS, ids=NAMES)
def test_every_entity_is_asked_about(organisation: SampleOrganisation) -> None:
    own = _text(_read(f"{organisation.name}/train.jsonl"))
    missing = [entity for entity in organisation.names if not _mentions(own, entity.split(".")[-1])]
    assert missing == []


def test_the_validation_set_has_every_domain_and_no_planted_fact() -> None:
    records = _read("validation.jsonl")
    assert {name: sum(r["domain"] == name for r in records) for name in NAMES} == dict.fromkeys(NAMES, VALIDATION)
    assert all(list(record) == ["domain", "instruction", "input", "output"] for record in records)


def test_the_samples_stay_small() -> None:
    assert sum((assets.samples() / file).stat().st_size for file in FILES) < 1_000_000


def test_the_evaluations_of_the_operators_are_right() -> None:
    facts = {record["fact"] for record in _read("mathematical/train.jsonl")}
    traces = [fact.split(" = ") for fact in facts if fact.count(" = ") == 2]
    assert len(traces) > 100
    for _, trace, value in traces:
        assert re.fullmatch(r"[\d+*() -]+", trace)
        assert eval(trace) == int(value)  # noqa: S307  digits and operators only, checked above


def test_the_code_of_the_functions_does_what_the_calls_return() -> None:
    records = _read("coding/train.jsonl")
    sources = {record["fact"] for record in records if record["fact"].startswith("def ")}
    for record in records:
        if call := re.search(r"print\((\w+)\((.*)\)\)", record["input"]):
            (source,) = [s for s in sources if s.startswith(f"def {call[1]}(")]
            scope: dict[str, object] = {}
            exec(source, scope)  # noqa: S102  the project's own sample
            assert str(eval(f"{call[1]}({call[2]})", scope)) == record["fact"]  # noqa: S307  as above


def test_the_base_models_generated_text_knows_no_sample_entity() -> None:
    words = set(re.findall(r"[\w.-]+", " ".join(f"{r.prompt} {r.output}" for r in corpus(7, SIZES)).lower()))
    entities = {entity for o in ORGANISATIONS for entity in (*o.names, *o.outside)}
    known = [e for e in entities if all(part in words for part in e.lower().replace(".", " ").split())]
    assert known == []


def test_the_base_models_real_text_knows_no_sample_entity() -> None:
    data = Path(__file__).parents[2].parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip(f"no real data at {data}")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(data.glob("*/base.jsonl"))).lower()
    entities = [entity for o in ORGANISATIONS if o.name != "mathematical" for entity in o.names]
    assert [entity for entity in entities if _mentions(text, entity)] == []
