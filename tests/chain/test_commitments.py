from dataclasses import asdict, replace
from pathlib import Path

import pytest

from chain.commitments import PrivateCommitment, parse, private_commitment, tag
from core.canonical import from_json, to_json
from core.errors import FormatError
from core.rounds import RoundRecord, Salts
from tests.behaviours.ledger import a_round, some_digest
from tests.behaviours.runs import build


@pytest.fixture
def record(tmp_path: Path) -> RoundRecord:
    return next(build(tmp_path / "run", rounds=1, organisations=3).run.records()).value


def test_both_kinds_come_back_from_a_queue_s_file(record: RoundRecord) -> None:
    for commitment in (a_round(some_digest()), private_commitment(record, Salts.draw(record))):
        assert parse(from_json(to_json({tag(commitment): asdict(commitment)}))) == commitment


def test_private_commitments_hide_everything_behind_the_salts(record: RoundRecord) -> None:
    salts = Salts.draw(record)
    found = private_commitment(record, salts)
    everything = {*found.manifests, *found.bids, *found.allocations}
    assert len(everything) == 9
    assert everything.isdisjoint(a.signed.value.digest for a in record.admitted)
    assert found == private_commitment(record, salts)
    again = private_commitment(record, Salts.draw(record))
    assert everything.isdisjoint({*again.manifests, *again.bids, *again.allocations})


def test_each_list_changes_with_what_it_is_about_only(record: RoundRecord) -> None:
    salts, (first, *others) = Salts.draw(record), record.admitted
    changed = replace(record, admitted=(replace(first, weight=0.25), *others))
    before, after = private_commitment(record, salts), private_commitment(changed, salts)
    assert (before.manifests, before.bids) == (after.manifests, after.bids)
    assert before.allocations[0] != after.allocations[0]
    assert before.allocations[1:] == after.allocations[1:]


def test_a_missing_salt_is_named(record: RoundRecord) -> None:
    with pytest.raises(FormatError, match=f"salt for the update of {record.admitted[0].organisation}"):
        private_commitment(record, Salts("00" * 32))


def test_a_round_that_admitted_nothing_has_empty_lists(record: RoundRecord) -> None:
    empty = replace(record, admitted=())
    assert private_commitment(empty, Salts("00" * 32)) == PrivateCommitment(record.key, (), (), ())
