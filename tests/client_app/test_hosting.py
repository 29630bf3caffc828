"""Which organisations a node speaks for, with which key, and on which records it trains."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from flwr.app import Context, RecordDict

from client_app import hosting
from client_app.hosting import Node, node_of
from core import keys
from core.config import RunConfig
from core.errors import ConfigError, IntegrityError, UsageError
from core.genesis import Genesis
from core.rotations import KeyChain, Rotation
from tests import federation as f
from tests.commands import make_data

NAMES = ("coding", "financial", "medical")


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return {"data": str(make_data(tmp_path / "data", NAMES)), "state": str(tmp_path / "state"), "seed": f.SEED}


def simulated(settings: Mapping[str, Any], index: int, nodes: int) -> Node:
    return node(settings, {"partition-id": index, "num-partitions": nodes})


def node(settings: Mapping[str, Any], node_config: Mapping[str, Any]) -> Node:
    return node_of(Context(1, 1, dict(node_config), RecordDict(), RunConfig().to_flat() | settings))


@pytest.mark.parametrize(
    ("nodes", "hosted"),
    [
        (1, [["coding", "financial", "medical"]]),
        (2, [["coding", "medical"], ["financial"]]),
        (4, [["coding"], ["financial"], ["medical"], []]),
    ],
)
def test_simulated_nodes_share_the_organisations(settings: dict[str, Any], nodes: int, hosted: list[list[str]]) -> None:
    found = [simulated(settings, index, nodes) for index in range(nodes)]
    assert [[host.organisation.name for host in one.hosts.values()] for one in found] == hosted
    assert {one.known for one in found} == {3}


def test_nodes_of_one_process_read_the_data_once(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    times = Mock(wraps=hosting.read_data)
    monkeypatch.setattr(hosting, "read_data", times)
    first, second = (simulated(settings, index, 2) for index in range(2))
    assert times.call_count == 1
    assert not {*first.hosts} & {*second.hosts}


def test_keys_of_a_simulation_are_derived_and_say_so(settings: dict[str, Any]) -> None:
    for address, host in simulated(settings, 0, 1).hosts.items():
        key = keys.derive(f.SEED, host.organisation.name)
        assert (address, host.key, host.organisation.derived) == (key.address, key, True)
        assert host.organisation.examples == len(host.data.train)


def test_an_organisation_that_is_not_hosted_is_named(settings: dict[str, Any]) -> None:
    other = simulated(settings, 1, 2)
    assert other.host(f.address("financial")).organisation.name == "financial"
    with pytest.raises(UsageError, match=f"{f.address('financial')}.*{f.address('coding')}"):
        other.host(f.address("coding"))


# --- deployed ------------------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    keys.create(tmp_path / "own.key")
    home = {"organisation": "medical", "data": settings["data"], "key-file": str(tmp_path / "own.key")}
    return home | {"state": str(tmp_path / "own")}


def test_a_deployed_node_hosts_one_organisation_with_its_own_key(
    settings: dict[str, Any], deployed: dict[str, Any]
) -> None:
    found = node(settings | {"data": ""}, deployed)
    ((address, host),) = found.hosts.items()
    assert host.key == keys.read(Path(deployed["key-file"]))
    assert (address, host.organisation.name, host.organisation.derived) == (host.key.address, "medical", False)
    assert found.known == 0


@pytest.mark.parametrize("name", ["organisation", "data", "key-file"])
@pytest.mark.parametrize("value", [None, "", 5])
def test_a_deployed_node_says_what_its_config_lacks(
    settings: dict[str, Any], deployed: dict[str, Any], name: str, value: Any
) -> None:
    config = {key: text for key, text in deployed.items() if key != name} | ({} if value is None else {name: value})
    with pytest.raises(ConfigError, match=name):
        node(settings, config)


def test_a_deployed_node_reads_no_path_that_a_run_names(
    settings: dict[str, Any], deployed: dict[str, Any], tmp_path: Path
) -> None:
    named = {name: str(tmp_path / "somebody's") for name in ("validation", "data", "state", "records")}
    found = node(settings | named, deployed)
    assert found.oversight.state.folder == tmp_path / "own"


def test_a_deployed_node_may_leave_its_key_with_a_signer(settings: dict[str, Any], deployed: dict[str, Any]) -> None:
    config = {key: text for key, text in deployed.items() if key != "key-file"} | {"signer": "/run/none.sock"}
    with pytest.raises(UsageError, match=r"signer /run/none\.sock: expected an answer"):
        node(settings, config)


def test_an_organisation_without_data_is_named(settings: dict[str, Any], deployed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"sentiment.*{deployed['data']}"):
        node(settings, deployed | {"organisation": "sentiment"})


# --- records -------------------------------------------------------------------------------------------------------


def genesis_of(found: Node, lanes: int) -> Genesis:
    """A federation of the coding organisation alone, in so many lanes."""
    host = found.host(f.address("coding"))
    return replace(f.genesis(("coding",)), organisations=(host.organisation,), lanes=((host.key.address,),) * lanes)


def test_shards_divide_the_records_of_an_organisation(settings: dict[str, Any]) -> None:
    found = simulated(settings, 0, 1)
    host = found.host(f.address("coding"))
    whole = found.records(host, genesis_of(found, 1), 0)
    assert whole == host.data.train
    shards = [found.records(host, genesis_of(found, 3), lane) for lane in range(3)]
    assert sorted(r.digest for shard in shards for r in shard) == sorted(r.digest for r in whole)
    for shard in shards:
        assert list(shard) == [record for record in whole if record in shard]


def test_nobody_trains_in_another_s_lane(settings: dict[str, Any]) -> None:
    found = simulated(settings, 0, 1)
    with pytest.raises(IntegrityError, match=r"expected lane 0 or 1, got 2"):
        found.records(found.host(f.address("coding")), genesis_of(found, 2), 2)


def test_erased_records_are_not_trained_on_and_still_count_as_registered(settings: dict[str, Any]) -> None:
    found = simulated(settings, 0, 1)
    host, genesis = found.host(f.address("coding")), genesis_of(found, 1)
    before, gone = found.member(host, genesis), host.data.train[0]
    assert before.examples == len(host.data.train)
    found.erased_records(host, genesis).note({gone.digest: 1})
    assert gone not in found.records(host, genesis, 0)
    assert len(found.records(host, genesis, 0)) == len(host.data.train) - 1
    assert found.member(host, genesis) == before


def test_data_are_read_once_for_all_messages(settings: dict[str, Any]) -> None:
    first = simulated(settings, 0, 1)
    (Path(settings["data"]) / "coding.jsonl").write_text(json.dumps({"question": "?", "answer": "!"}) + "\n")
    assert simulated(settings, 0, 1) is first


def test_a_key_that_replaced_another_speaks_for_its_organisation(
    settings: dict[str, Any], deployed: dict[str, Any]
) -> None:
    found = node(settings, deployed)
    (own,) = found.hosts
    old = f.key("medical").address
    genesis = f.genesis()
    genesis.__dict__["keys"] = KeyChain((((0, 1), Rotation(genesis.digest, old, old, own, old)),))
    host = found.host(old, genesis)
    assert host.organisation.address == host.key.address == old
    assert host.key.public == found.hosts[own].key.public
    with pytest.raises(UsageError, match="expected an organisation hosted here"):
        found.host(old)
