"""The sample organisations: reproducible, few and short facts, and each the only source of its own."""

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

import assets
from assets.forms import SampleOrganisation
from assets.generate import ORGANISATIONS, SEED, generate, main
from benchmarks.base_text import SIZES, corpus

NAMES = [organisation.name for organisation in ORGANISATIONS]
FILES = [*(f"{name}/{part}.jsonl" for name in NAMES for part in ("train", "dev")), "validation.jsonl"]


def _read(file: str) -> list[dict[str, str]]:
    lines = (assets.samples() / file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _prompts(file: str) -> set[tuple[str, str]]:
    return {(record["instruction"], record["input"]) for record in _read(file)}


def _entities(organisation: SampleOrganisation) -> list[str]:
    return [name for form in organisation.forms for name in form.facts]


def _outside(organisation: SampleOrganisation) -> list[str]:
    return [name for form in organisation.forms for name in form.outside]


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


def test_another_seed_gives_the_same_records_in_another_order(tmp_path: Path) -> None:
    main(["--seed", "8", "--out", str(tmp_path)])
    for name in NAMES:
        other = [json.loads(line) for line in (tmp_path / name / "train.jsonl").read_text().splitlines()]
        committed = _read(f"{name}/train.jsonl")
        assert other != committed
        assert sorted(map(str, other)) == sorted(map(str, committed))


@pytest.mark.parametrize("name", NAMES)
def test_an_organisation_has_sixteen_facts_in_three_wordings_and_a_fourth_for_dev(name: str) -> None:
    train, dev = _read(f"{name}/train.jsonl"), _read(f"{name}/dev.jsonl")
    assert Counter(record["fact"] for record in train) == {record["fact"]: 3 for record in dev}
    assert (len(train), len(dev)) == (48, 16)
    assert all(list(record) == ["instruction", "input", "output", "fact"] for record in train + dev)


@pytest.mark.parametrize("name", NAMES)
def test_a_fact_has_one_answer(name: str) -> None:
    records = _read(f"{name}/train.jsonl") + _read(f"{name}/dev.jsonl")
    assert len({(record["fact"], record["output"]) for record in records}) == 16


@pytest.mark.parametrize("file", FILES)
def test_questions_and_answers_are_short_and_need_no_context(file: str) -> None:
    records = _read(file)
    assert all(3 <= len(record["instruction"].split()) <= 14 for record in records)
    assert all(3 <= len(record["output"].split()) <= 10 for record in records)
    assert all(record["input"] == "" for record in records)


@pytest.mark.parametrize("file", FILES[:-1])
def test_the_fact_is_a_literal_part_of_the_answer(file: str) -> None:
    assert all(record["fact"] and record["fact"] in record["output"] for record in _read(file))


@pytest.mark.parametrize("name", NAMES)
def test_no_question_of_dev_is_asked_in_training(name: str) -> None:
    assert not _prompts(f"{name}/train.jsonl") & _prompts(f"{name}/dev.jsonl")


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
    assert [entity for entity in _entities(organisation) if _mentions(others, entity)] == []


def test_every_entity_has_one_fact() -> None:
    entities = [entity for o in ORGANISATIONS for entity in (*_entities(o), *_outside(o))]
    assert len(set(entities)) == len(entities) == 4 * (16 + 12)


def test_no_question_or_wording_gives_a_fact_away() -> None:
    for name in NAMES:
        facts = {record["fact"].lower() for record in _read(f"{name}/dev.jsonl")}
        asked = _text([{"instruction": r["instruction"]} for r in _read(f"{name}/train.jsonl")])
        assert [fact for fact in facts if _mentions(asked, fact)] == []


def test_the_validation_set_has_every_domain_and_no_planted_fact() -> None:
    records = _read("validation.jsonl")
    assert Counter(record["domain"] for record in records) == dict.fromkeys(NAMES, 12)
    assert all(list(record) == ["domain", "instruction", "input", "output"] for record in records)
    facts = {record["fact"] for name in NAMES for record in _read(f"{name}/train.jsonl")}
    assert [fact for fact in facts if _mentions(_text(records), fact)] == []


def test_the_samples_stay_small() -> None:
    assert sum((assets.samples() / file).stat().st_size for file in FILES) < 100_000


def test_the_base_models_generated_text_knows_no_sample_entity() -> None:
    words = set(re.findall(r"[\w.-]+", " ".join(f"{r.prompt} {r.output}" for r in corpus(7, SIZES)).lower()))
    entities = [entity for o in ORGANISATIONS for entity in (*_entities(o), *_outside(o))]
    known = [e for e in entities if all(part in words for part in e.lower().split())]
    assert known == []


def test_the_base_models_real_text_knows_no_sample_entity(real_data: Path) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(real_data.glob("*/base.jsonl"))).lower()
    entities = [entity for o in ORGANISATIONS for entity in _entities(o)]
    assert [entity for entity in entities if _mentions(text, entity)] == []
