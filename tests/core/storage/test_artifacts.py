"""The sealed store: found under a digest, read by those who may, and by nobody once a key is destroyed."""

import errno
import os
import secrets
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from core import keys
from core.adapter import AdapterState
from core.canonical import Address, from_json, to_json
from core.errors import DestroyedError, IntegrityError, RunError, UsageError
from core.rotations import KeyChain, Rotation
from core.storage import artifacts
from core.storage.artifacts import Artifacts
from core.storage.blobs import Folder, open_blobs
from core.storage.readers import Readers
from tests import federation as f

STATE = AdapterState({"m.lora_B": np.arange(6, dtype=np.float32).reshape(3, 2)})
OTHER = AdapterState({"m.lora_B": np.ones((3, 2), np.float32)})
GENESIS = f.genesis()
AUDITOR = keys.derive(1, "auditor")
READERS = replace(f.readers(GENESIS), auditors=(AUDITOR.public,))
MEDICAL, CODING = f.address("medical"), f.address("coding")


@pytest.fixture
def store(tmp_path: Path) -> Artifacts:
    return Artifacts(Folder(tmp_path), GENESIS.salt, READERS, f.COORDINATOR)


def path(store: Artifacts, suffix: str, state: AdapterState = STATE) -> Path:
    assert isinstance(store.blobs, Folder)
    return store.blobs.folder / (store.place(state.digest) + suffix)


def test_a_state_is_found_under_its_digest(store: Artifacts) -> None:
    assert store.put(STATE) == STATE.digest
    assert store.open(STATE.digest) == STATE


def test_a_state_is_found_behind_a_url() -> None:
    store = Artifacts(open_blobs(f"memory://{secrets.token_hex(8)}"), GENESIS.salt, READERS, f.COORDINATOR)
    store.put(STATE)
    assert store.open(STATE.digest) == STATE
    store.destroy(STATE.digest)
    with pytest.raises(DestroyedError):
        store.open(STATE.digest)


def test_nothing_in_the_store_tells_which_state_it_is(store: Artifacts) -> None:
    store.put(STATE)
    names = " ".join(store.blobs.names())
    data = b"".join(bytes(store.blobs.read(name)) for name in store.blobs.names())
    assert STATE.digest[2:] not in names
    assert STATE.digest[2:].encode() not in data
    assert bytes.fromhex(STATE.digest[2:]) not in data
    assert STATE["m.lora_B"].tobytes() not in data
    assert replace(store, salt="a5" * 32).place(STATE.digest) != store.place(STATE.digest)


def test_storing_again_changes_nothing(store: Artifacts) -> None:
    store.put(STATE)
    before = {suffix: path(store, suffix).stat() for suffix in (".sealed", ".keys")}
    store.put(STATE)
    assert {suffix: path(store, suffix).stat() for suffix in before} == before


def test_every_state_has_a_key_of_its_own(store: Artifacts, tmp_path: Path) -> None:
    again = replace(store, blobs=Folder(tmp_path / "again"))
    store.put(STATE)
    again.put(STATE)
    assert path(store, ".sealed").read_bytes() != path(again, ".sealed").read_bytes()


# --- who may read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [f.COORDINATOR, AUDITOR, f.key("medical")])
def test_the_lane_the_coordinator_and_the_auditors_read(store: Artifacts, reader: keys.Key) -> None:
    store.put(STATE, [MEDICAL])
    assert replace(store, key=reader).open(STATE.digest) == STATE


@pytest.mark.parametrize("reader", [f.key("coding"), keys.derive(1, "stranger")])
def test_another_lane_and_strangers_do_not(store: Artifacts, reader: keys.Key) -> None:
    store.put(STATE, [MEDICAL])
    with pytest.raises(IntegrityError, match=f"got that of {reader.address}"):
        replace(store, key=reader).open(STATE.digest)


def test_a_state_that_two_lanes_share_is_opened_to_both(store: Artifacts) -> None:
    store.put(STATE, [MEDICAL])
    sealed = path(store, ".sealed").read_bytes()
    store.put(STATE, [CODING])
    assert path(store, ".sealed").read_bytes() == sealed
    for name in ("medical", "coding"):
        assert replace(store, key=f.key(name)).open(STATE.digest) == STATE
    with pytest.raises(IntegrityError, match="expected the key of a reader"):
        replace(store, key=f.key("financial")).open(STATE.digest)


def test_without_a_key_one_writes_and_does_not_read(store: Artifacts) -> None:
    blind = replace(store, key=None)
    blind.put(STATE)
    with pytest.raises(UsageError, match="expected the key file of one of its readers, got none"):
        blind.open(STATE.digest)


def test_the_readers_are_those_of_the_genesis() -> None:
    genesis = replace(GENESIS, auditors=(AUDITOR.address,))
    READERS.check(genesis)
    assert Readers.from_dict(from_json(to_json(READERS.to_dict()))) == READERS
    with pytest.raises(IntegrityError, match=f"the key of a stranger, {AUDITOR.address}"):
        READERS.check(GENESIS)
    with pytest.raises(IntegrityError, match="no key of"):
        replace(READERS, organisations=READERS.organisations[1:]).check(genesis)
    with pytest.raises(IntegrityError, match="in another order"):
        replace(READERS, organisations=READERS.organisations[::-1]).check(genesis)


@pytest.fixture
def crowd(store: Artifacts, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    """The same store, in which three readers are many."""
    monkeypatch.setattr(artifacts, "MOST_WRAPS", 2)
    return store


def groups_of(store: Artifacts) -> list[str]:
    return [name for name in store.blobs.names() if name.startswith("groups/")]


def test_for_many_a_key_is_wrapped_once_and_all_of_them_read(crowd: Artifacts) -> None:
    crowd.put(STATE, [MEDICAL, CODING])
    crowd.put(OTHER, [MEDICAL, CODING])
    (group,) = groups_of(crowd)
    for state in (STATE, OTHER):
        assert list(from_json(path(crowd, ".keys", state).read_bytes())["wraps"]) == [group[7:-5]]
    for reader in (f.COORDINATOR, AUDITOR, f.key("medical"), f.key("coding")):
        reading = replace(crowd, key=reader)
        assert reading.open(STATE.digest) == STATE
        reading.check_wraps(reading.unlock(crowd.place(STATE.digest)), [MEDICAL, CODING])
        reading.check_group(Address(group[7:-5]))
    other_lane = replace(crowd, key=f.key("financial"))
    with pytest.raises(IntegrityError, match="expected the key of a reader"):
        other_lane.open(STATE.digest)
    with pytest.raises(IntegrityError, match="one of other readers"):
        other_lane.check_group(Address(group[7:-5]))
    with pytest.raises(IntegrityError, match="is not sealed for"):
        crowd.check_wraps(crowd.unlock(crowd.place(STATE.digest)))


def test_a_state_that_two_crowds_share_is_opened_to_both(crowd: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd.put(STATE, [MEDICAL, CODING])
    crowd.put(STATE)
    assert len(groups_of(crowd)) == 2
    monkeypatch.setattr(artifacts, "MOST_WRAPS", 9)
    crowd.put(STATE, [f.address("financial")])
    assert len(from_json(path(crowd, ".keys").read_bytes())["wraps"]) == 2 + 3
    for name in f.EXAMPLES:
        assert replace(crowd, key=f.key(name)).open(STATE.digest) == STATE
    crowd.check_wraps(crowd.unlock(crowd.place(STATE.digest)))


def test_what_was_wrapped_for_a_crowd_is_destroyed_alone(crowd: Artifacts) -> None:
    crowd.put(STATE)
    crowd.put(OTHER)
    crowd.destroy(STATE.digest)
    for reader in (f.COORDINATOR, f.key("medical")):
        with pytest.raises(DestroyedError):
            replace(crowd, key=reader).open(STATE.digest)
        assert replace(crowd, key=reader).open(OTHER.digest) == OTHER


def test_only_the_coordinator_writes_for_a_crowd(crowd: Artifacts) -> None:
    for key in (None, AUDITOR):
        with pytest.raises(UsageError, match="expected the coordinator's key to write for"):
            replace(crowd, key=key).put(STATE)


def test_a_crowd_whose_key_is_gone_does_not_read(crowd: Artifacts) -> None:
    crowd.put(STATE)
    crowd.blobs.remove(groups_of(crowd)[0])
    with pytest.raises(IntegrityError, match="expected the key of a reader"):
        replace(crowd, key=AUDITOR).open(STATE.digest)


# --- what was tampered with ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_flipped_bit_is_found(store: Artifacts, position: int) -> None:
    store.put(STATE)
    data = bytearray(path(store, ".sealed").read_bytes())
    data[position] ^= 1
    path(store, ".sealed").write_bytes(data)
    with pytest.raises(IntegrityError, match="the sealed bytes were changed"):
        store.open(STATE.digest)


@pytest.mark.parametrize("suffix", [".sealed", ".keys"])
def test_another_artifact_in_its_place_is_found(store: Artifacts, suffix: str) -> None:
    store.put(STATE)
    store.put(OTHER)
    path(store, suffix).write_bytes(path(store, suffix, OTHER).read_bytes())
    with pytest.raises(IntegrityError, match="cannot be read"):
        store.open(STATE.digest)


def test_another_state_that_the_coordinator_sealed_in_its_place_is_found(store: Artifacts) -> None:
    store._put(store.place(STATE.digest), OTHER.parts(), None)
    with pytest.raises(IntegrityError, match=f"expected digest {STATE.digest}, got {OTHER.digest}"):
        store.open(STATE.digest)
    with pytest.raises(IntegrityError, match="holds another state"):
        store.check_block(store.place(STATE.digest))


def test_a_wrap_that_its_reader_cannot_open_is_found_by_every_other_reader(store: Artifacts) -> None:
    store.put(STATE)
    store.put(OTHER)
    place, file = store.place(STATE.digest), path(store, ".keys")
    store.check_wraps(store.unlock(place))
    wraps = from_json(file.read_bytes())
    wraps["wraps"][MEDICAL] = from_json(path(store, ".keys", OTHER).read_bytes())["wraps"][MEDICAL]
    file.write_bytes(to_json(wraps))
    auditor = replace(store, key=AUDITOR)
    assert auditor.open(STATE.digest) == STATE
    with pytest.raises(IntegrityError, match=f"has a wrap for {MEDICAL} that does not open"):
        auditor.check_wraps(auditor.unlock(place))


def test_an_artifact_that_somebody_was_left_out_of_is_found(store: Artifacts) -> None:
    store.put(STATE, [MEDICAL])
    store.check_wraps(store.unlock(store.place(STATE.digest)), [MEDICAL])
    with pytest.raises(IntegrityError, match=f"is not sealed for {CODING}"):
        store.check_wraps(store.unlock(store.place(STATE.digest)), [MEDICAL, CODING])


@pytest.mark.parametrize("suffix", [".sealed", ".keys"])
def test_an_empty_file_is_found(store: Artifacts, suffix: str) -> None:
    store.put(STATE)
    path(store, suffix).write_bytes(b"")
    with pytest.raises(IntegrityError):
        store.open(STATE.digest)


def test_an_artifact_that_was_never_there_is_missing_and_not_destroyed(store: Artifacts) -> None:
    with pytest.raises(IntegrityError, match="there is none") as caught:
        store.open(STATE.digest)
    assert not isinstance(caught.value, DestroyedError)
    store.put(STATE)
    path(store, ".sealed").unlink()
    with pytest.raises(IntegrityError, match="cannot be read") as caught:
        store.open(STATE.digest)
    assert not isinstance(caught.value, DestroyedError)


# --- destroying ----------------------------------------------------------------------------------------------------


def test_a_destroyed_key_makes_a_state_unreadable_to_everyone(store: Artifacts) -> None:
    store.put(STATE)
    sealed = path(store, ".sealed").read_bytes()
    store.destroy(STATE.digest)
    store.destroy(STATE.digest)
    for reader in (f.COORDINATOR, AUDITOR, f.key("medical")):
        with pytest.raises(DestroyedError, match="nobody has its key"):
            replace(store, key=reader).open(STATE.digest)
    assert path(store, ".sealed").read_bytes() == sealed
    assert not path(store, ".keys").exists()


def test_a_copy_of_the_ciphertext_is_worth_nothing_with_the_keys_of_a_later_one(store: Artifacts) -> None:
    store.put(STATE)
    old = path(store, ".sealed").read_bytes()
    store.destroy(STATE.digest)
    store.put(STATE)
    assert store.open(STATE.digest) == STATE
    path(store, ".sealed").write_bytes(old)
    with pytest.raises(IntegrityError, match="the sealed bytes were changed"):
        store.open(STATE.digest)


def test_destroying_one_state_leaves_every_other(store: Artifacts) -> None:
    store.put(STATE)
    store.put(OTHER)
    store.put_document("salts/x.json", b"{}")
    store.destroy(STATE.digest)
    assert store.open(OTHER.digest) == OTHER
    assert store.open_document("salts/x.json") == b"{}"
    store.destroy_document("salts/x.json")
    with pytest.raises(DestroyedError):
        store.open_document("salts/x.json")


# --- a full disk ---------------------------------------------------------------------------------------------------


def test_a_state_whose_keys_could_not_be_written_is_stored_anew(
    store: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, list[int]()

    def failing_later(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "full")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", failing_later)
    with pytest.raises(RunError, match="No space left on device"):
        store.put(STATE)
    monkeypatch.undo()
    with pytest.raises(DestroyedError):
        store.open(STATE.digest)
    store.put(STATE)
    assert store.open(STATE.digest) == STATE


def test_what_is_sealed_again_is_for_the_key_that_replaced_another_and_for_the_old_one_no_more(
    store: Artifacts,
) -> None:
    new = keys.derive(7, "medical, again")
    rotation = Rotation(GENESIS.digest, MEDICAL, MEDICAL, new.address, MEDICAL)
    publics = tuple(new.public if keys.address_of(k) == MEDICAL else k for k in READERS.organisations)
    chain = KeyChain((((0, 1), rotation),))
    after = replace(store, readers=replace(READERS, organisations=publics, chain=chain))
    store.put(STATE, [MEDICAL])
    store.put(OTHER, [CODING])
    before = path(store, ".keys", OTHER).read_bytes()
    after.reseal()
    assert path(store, ".keys", OTHER).read_bytes() == before, "nobody's key of it was replaced"
    assert replace(after, key=new).open(STATE.digest) == STATE
    for shut, state in ((f.key("medical"), STATE), (new, OTHER)):
        with pytest.raises(IntegrityError, match="for whom it is not sealed"):
            replace(after, key=shut).open(state.digest)
    after.check_wraps(after.unlock(after.place(STATE.digest)), [MEDICAL])
    after.put(OTHER, [CODING, MEDICAL])
    assert replace(after, key=new).open(OTHER.digest) == OTHER


def test_a_coordinator_s_new_key_opens_what_many_and_few_share_after_it_is_sealed_again(
    crowd: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = keys.derive(7, "coordinator, again")
    crowd.put(STATE, [MEDICAL, CODING])
    crowd.put_document("records/shared.json", b"both", [MEDICAL, CODING])
    monkeypatch.setattr(artifacts, "MOST_WRAPS", 9)
    for change in (partial(crowd.put, STATE), partial(crowd.put_document, "records/shared.json", b"both")):
        change([f.address("financial")])
    monkeypatch.setattr(artifacts, "MOST_WRAPS", 2)
    owner = f.COORDINATOR.address
    chain = KeyChain((((0, 1), Rotation(GENESIS.digest, owner, owner, new.address, owner)),))
    readers = replace(READERS, coordinator=new.public, chain=chain)
    after = replace(crowd, readers=readers, key=new, former=f.COORDINATOR)
    after.reseal()
    after.put(OTHER)
    for reader in (new, AUDITOR, *map(f.key, ("medical", "coding", "financial"))):
        reading = replace(after, key=reader, former=None)
        assert (reading.open(STATE.digest), reading.open(OTHER.digest)) == (STATE, OTHER)
        assert reading.open_document("records/shared.json") == b"both"
    with pytest.raises(IntegrityError, match="expected the key of a reader"):
        replace(after, key=f.COORDINATOR, former=None).open(STATE.digest)
