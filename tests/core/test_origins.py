"""The run that another goes on from is named in its genesis, and is a contributor beside the members."""

from dataclasses import replace
from typing import Any

import pytest

from core.canonical import from_json, to_json
from core.errors import FormatError
from core.genesis import Genesis
from core.origins import FormerRun
from tests import federation as f

ORIGIN = FormerRun("before", f.other("genesis"), f.other("record"), f.other("state"), 5)


def test_a_genesis_names_the_run_that_it_goes_on_from() -> None:
    genesis = replace(f.genesis(), origin=ORIGIN)
    assert Genesis.from_dict(from_json(to_json(genesis.to_dict()))) == genesis
    assert genesis.digest != f.genesis().digest
    assert (genesis.shared_seed, f.genesis().shared_seed) == (5, f.genesis().seed)


def test_the_former_run_is_a_contributor_that_no_member_can_be_taken_for() -> None:
    genesis = replace(f.genesis(), origin=ORIGIN)
    assert genesis.contributors == genesis.names | {ORIGIN.address: "run:before"}
    assert f.genesis().contributors == f.genesis().names
    assert int(ORIGIN.address, 16) == int(ORIGIN.genesis, 16) % 2**160


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "../elsewhere"},
        {"run": ".."},
        {"run": ""},
        {"genesis": "0x1"},
        {"record": 5},
        {"state": ""},
        {"seed": -1},
    ],
)
def test_a_malformed_origin_is_refused(changes: dict[str, Any]) -> None:
    plain = replace(f.genesis(), origin=ORIGIN).to_dict()
    with pytest.raises(FormatError):
        Genesis.from_dict(plain | {"origin": plain["origin"] | changes})


@pytest.mark.parametrize(
    "changes", [{"wire": "bf16"}, {"rule": "fedavg"}, {"lanes": tuple((o.address,) for o in f.members())}]
)
def test_only_a_sum_of_one_lane_goes_on(changes: dict[str, Any]) -> None:
    plain = replace(f.genesis(), origin=ORIGIN, **changes).to_dict()
    with pytest.raises(FormatError, match=r"origin: expected (frozen-a in one lane|wire fp32)"):
        Genesis.from_dict(from_json(to_json(plain)))
