"""An organisation is registered by its own request, approved by the coordinator, and ended by the administrator."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from chain.nodes import embedded_service
from core import keys
from tests.commands import Done, foedus

pytestmark = pytest.mark.chain


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    state = tmp_path_factory.mktemp("members")
    foedus("chain", "start", "--state", state, "--json")
    foedus("chain", "deploy", "--state", state, "--json")
    yield state
    embedded_service(state).stop()


def members(state: Path, *arguments: object) -> Done:
    return foedus("members", *arguments, "--state", state, "--json")


def test_an_organisation_s_way_in_and_out(state: Path, tmp_path: Path) -> None:
    key = keys.create(tmp_path / "own.key")
    node_key = tmp_path / "node.pub"
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    node_key.write_bytes(public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
    file = tmp_path / "request.json"
    assert members(state, "show", key.address).json["registered"] is False
    wanted = ("request", "--key", tmp_path / "own.key", "--node-key", node_key, "--out", file)
    assert members(state, *wanted).json["organisation"] == key.address
    approved = members(state, "approve", file).json
    assert approved["registered"]
    assert approved["node_key"].startswith("0x")
    assert members(state, "approve", file).json == approved == members(state, "show", key.address).json
    revoked = members(state, "revoke", key.address).json
    assert (revoked["registered"], revoked["revoked_at"] > revoked["registered_at"]) == (False, True)
    again = members(state, *wanted[:3], "--out", file)
    assert again.code == 0
    refused = members(state, "approve", file)
    assert refused.code == 1
    assert "OrganisationAlreadyRevoked" in refused.err


def test_what_is_no_request_is_refused(state: Path, tmp_path: Path) -> None:
    for data in (b"{}", b"[]", b"x", b'{"domain":{"chain_id":1,"contract":"0x"}}'):
        (tmp_path / "request.json").write_bytes(data)
        assert members(state, "approve", tmp_path / "request.json").code == 1
    assert members(state, "approve", tmp_path / "absent").code == 2
    (tmp_path / "node.pub").write_text("no key")
    keys.create(tmp_path / "own.key")
    bad = members(
        state, "request", "--key", tmp_path / "own.key", "--node-key", tmp_path / "node.pub", "--out", tmp_path / "out"
    )
    assert bad.code == 2
    assert "OpenSSH public key" in bad.err


def test_a_request_is_not_written_over_the_key_that_signs_it(state: Path, tmp_path: Path) -> None:
    keys.create(key := tmp_path / "own.key")
    before = key.read_bytes()
    done = members(state, "request", "--key", key, "--out", key)
    assert (done.code, key.read_bytes()) == (2, before)
    assert "expected a file of its own to write" in done.error
    assert members(state, "request", "--key", key, "--days", 10**80, "--out", tmp_path / "out").code == 2


def test_an_address_and_behind_a_url_a_key_are_wanted(state: Path, tmp_path: Path) -> None:
    assert members(state, "show", "hospital").code == 2
    url = foedus("chain", "status", "--state", state, "--json").json["url"]
    refused = members(state, "revoke", keys.derive(1, "somebody").address, "--chain", url)
    assert refused.code == 2
    assert "the key file of the administrator" in refused.err
