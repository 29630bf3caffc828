"""Keys and signatures: made by one key, for one chain and contract, spelt in one way."""

import os
import pwd
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_keys.constants import SECPK1_N

from core import keys
from core.canonical import Address, parse_json
from core.eip712 import Fields
from core.errors import ForgeryError, UsageError
from core.keys import Domain, Signature, signer
from tests.child import in_child

CHAIN = Domain(31337, Address("0x5FbDB2315678afecb367f032d93F642f64180aa3"))
FIELDS = (("what", "string"), ("count", "uint32"))
MESSAGE = {"what": "a thing", "count": 3}
KEY = keys.derive(1, "someone")
SIGNATURE = KEY.sign(CHAIN, "Thing", FIELDS, MESSAGE)


def high_s_twin(signature: Signature) -> Signature:
    data = bytes.fromhex(signature[2:])
    s = SECPK1_N - int.from_bytes(data[32:64], "big")
    return Signature("0x" + (data[:32] + s.to_bytes(32, "big") + bytes([55 - data[64]])).hex())


def test_a_signature_names_its_signer() -> None:
    assert signer(SIGNATURE, CHAIN, "Thing", FIELDS, MESSAGE) == KEY.address


def test_signing_is_deterministic() -> None:
    assert KEY.sign(CHAIN, "Thing", FIELDS, MESSAGE) == SIGNATURE


def test_the_domain_is_the_one_written_down() -> None:
    assert CHAIN.to_dict() == {
        "name": "Foedus",
        "version": "1",
        "chainId": 31337,
        "verifyingContract": "0x5FbDB2315678afecb367f032d93F642f64180aa3",
    }


@pytest.mark.parametrize(
    "domain",
    [replace(CHAIN, chain_id=1), replace(CHAIN, contract=Address("0x" + "11" * 20))],
    ids=["another chain", "another contract"],
)
def test_a_signature_is_worthless_on(domain: Domain) -> None:
    assert signer(SIGNATURE, domain, "Thing", FIELDS, MESSAGE) != KEY.address


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("Other", FIELDS, MESSAGE),
        ("Thing", (("what", "string"), ("count", "uint64")), MESSAGE),
        ("Thing", FIELDS, MESSAGE | {"count": 4}),
        ("Thing", FIELDS, MESSAGE | {"what": ""}),
    ],
    ids=["struct name", "field type", "number", "text"],
)
def test_a_signature_covers_the(name: str, fields: Fields, message: dict[str, object]) -> None:
    assert signer(SIGNATURE, CHAIN, name, fields, message) != KEY.address


def test_the_high_s_twin_recovers_the_same_address_and_is_refused() -> None:
    twin = high_s_twin(SIGNATURE)
    types = {"Thing": [{"name": name, "type": kind} for name, kind in FIELDS]}
    signable = encode_typed_data(CHAIN.to_dict(), types, MESSAGE)
    assert Account.recover_message(signable, signature=bytes.fromhex(twin[2:])) == KEY.address
    with pytest.raises(ForgeryError, match="upper half of the group order"):
        signer(twin, CHAIN, "Thing", FIELDS, MESSAGE)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "0x",
        SIGNATURE[2:],
        SIGNATURE.upper().replace("0X", "0x"),
        SIGNATURE + "00",
        SIGNATURE[:-2],
        SIGNATURE[:-2] + "00",
        SIGNATURE[:-2] + "25",
        SIGNATURE + "\n",
        SIGNATURE[:10] + " " + SIGNATURE[11:],
        "0x" + "zz" * 65,
        None,
        7,
    ],
)
def test_a_signature_has_one_spelling(signature: Signature) -> None:
    with pytest.raises(ForgeryError):
        signer(signature, CHAIN, "Thing", FIELDS, MESSAGE)


@pytest.mark.parametrize("r", ["00" * 32, "ff" * 32], ids=["r of zero", "r beyond the group"])
def test_a_signature_that_recovers_nothing_is_a_forgery(r: str) -> None:
    with pytest.raises(ForgeryError, match="recovers no address"):
        signer(Signature("0x" + r + SIGNATURE[66:]), CHAIN, "Thing", FIELDS, MESSAGE)


@pytest.mark.parametrize("message", [{"what": "\ud800", "count": 3}, {"what": "x", "count": -1}, {"what": "x"}])
def test_a_message_that_cannot_be_encoded_is_a_forgery_not_a_crash(message: dict[str, object]) -> None:
    with pytest.raises(ForgeryError):
        signer(SIGNATURE, CHAIN, "Thing", FIELDS, message)


def test_derived_keys_are_the_same_for_everyone_and_marked() -> None:
    assert keys.derive(1, "someone") == KEY
    assert KEY.derived
    assert len({keys.derive(seed, name).address for seed in (1, 2) for name in ("a", "b")}) == 4


def test_a_derived_key_cannot_be_had_by_moving_digits_between_seed_and_name() -> None:
    assert keys.derive(1, "1") != keys.derive(11, "")


def test_a_key_does_not_print_itself() -> None:
    assert KEY.secret.hex() not in repr(KEY)
    assert str(KEY.secret) not in repr(KEY)


# --- files ---------------------------------------------------------------------------------------------------------


def test_a_new_key_file_is_read_back_and_only_by_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "own.key"
    made = keys.create(path)
    assert keys.read(path) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert not made.derived


def test_a_key_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.create(tmp_path / "own.key")
    finally:
        os.umask(before)
    assert (tmp_path / "own.key").stat().st_mode & 0o777 == 0o600


def test_no_two_key_files_are_alike(tmp_path: Path) -> None:
    assert keys.create(tmp_path / "a") != keys.create(tmp_path / "b")


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    made = keys.create(tmp_path / "own.key")
    with pytest.raises(UsageError, match="exists already"):
        keys.create(tmp_path / "own.key")
    assert keys.read(tmp_path / "own.key") == made


@pytest.mark.parametrize("git", ["folder", "file"])
def test_a_key_is_not_made_in_a_checkout(tmp_path: Path, git: str) -> None:
    dot_git = tmp_path / ".git"
    dot_git.mkdir() if git == "folder" else dot_git.write_text("gitdir: elsewhere")
    with pytest.raises(UsageError, match="choose a folder outside it"):
        keys.create(tmp_path / "deep" / "down" / "own.key")
    assert not (tmp_path / "deep").exists()


def test_a_link_does_not_lead_a_key_into_a_checkout(tmp_path: Path) -> None:
    (tmp_path / "checkout" / ".git").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "checkout")
    with pytest.raises(UsageError, match="lies in the checkout"):
        keys.create(tmp_path / "link" / "own.key")


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"own\.key"):
        keys.create(tmp_path / "file" / "sub" / "own.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    keys.create(tmp_path / "own.key")
    (tmp_path / "own.key").chmod(mode)
    with pytest.raises(UsageError, match=f"expected mode 0600, got {mode:04o}"):
        keys.read(tmp_path / "own.key")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ab" * 31,
        b"AB" * 32,
        b"zz" * 32,
        b"0x" + b"ab" * 32,
        b"\xff\xfe\x00",
        b"ab" * 32 + b"\n\n",
        b"00" * 32,
        b"ff" * 32,
    ],
)
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="expected 64 lower-case hex digits"):
        keys.read(path)


def test_a_missing_key_file_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.key: expected .*, got No such file"):
        keys.read(tmp_path / "none.key")


def test_the_content_of_a_bad_key_file_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "own.key"
    path.write_text("5ec12e7" * 9)
    path.chmod(0o600)
    with pytest.raises(UsageError) as caught:
        keys.read(path)
    assert "5ec12e7" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which hands a file to a user by its group")
@pytest.mark.parametrize(
    ("mode", "group", "read"),
    [
        (0o440, 54321, True),  # as Kubernetes mounts a secret of mode 0400 with fsGroup
        (0o640, 54321, True),
        (0o460, 54321, False),
        (0o444, 54321, False),
        (0o440, pwd.getpwnam("daemon").pw_gid, False),  # another user's group
    ],
)
def test_a_key_of_roots_is_read_where_its_group_is_this_processes_alone(mode: int, group: int, read: bool) -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's own is root's alone
    folder.chmod(0o755)
    path = folder / "own.key"
    path.write_text("1" * 64)
    path.chmod(mode)
    os.chown(path, 0, group)

    def as_user() -> str:
        os.setgroups([group])
        os.setgid(54321)
        os.setuid(54321)
        try:
            return keys.read(path).address
        except UsageError as error:
            return str(error)

    expected = keys.Key(bytes.fromhex("1" * 64)).address if read else f"got {mode:04o}"
    assert expected in in_child(as_user)()
    path.unlink()
    folder.rmdir()


# --- keystores -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keystore(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, keys.Key]:
    """A keystore, the file of its passphrase, and its key: encrypting takes a second, on purpose."""
    folder = tmp_path_factory.mktemp("keystore")
    passphrase = folder / "passphrase"
    passphrase.write_text("correct horse\n")
    passphrase.chmod(0o600)
    return folder / "own.json", passphrase, keys.create(folder / "own.json", "correct horse")


def test_a_key_is_encrypted_as_ethereums_wallets_do(keystore: tuple[Path, Path, keys.Key]) -> None:
    path, passphrase, key = keystore
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.secret.hex() not in path.read_text()
    assert parse_json(path.read_bytes())["version"] == 3
    assert keys.read(path, passphrase) == key


def test_commands_find_the_passphrase_by_an_environment_variable(
    keystore: tuple[Path, Path, keys.Key], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, passphrase, key = keystore
    with pytest.raises(UsageError, match="expected its passphrase, got none: name its file in"):
        keys.read(path)
    monkeypatch.setenv(keys.KEYSTORE_VARIABLE, str(passphrase))
    assert keys.read(path) == key


def test_another_passphrase_or_a_damaged_keystore_is_refused(
    keystore: tuple[Path, Path, keys.Key], tmp_path: Path
) -> None:
    path, passphrase, _ = keystore
    damaged = tmp_path / "damaged"
    damaged.write_text('{"version": 3, "crypto": {}}')
    other = tmp_path / "other"
    other.write_text("another\n")
    for file in (damaged, other):
        file.chmod(0o600)
    with pytest.raises(UsageError, match="expected its own passphrase"):
        keys.read(path, other)
    with pytest.raises(UsageError, match="expected its own passphrase, got another, or a damaged file"):
        keys.read(damaged, passphrase)


def test_a_passphrase_that_others_can_read_or_that_is_empty_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("secret\n")
    file.chmod(0o644)
    with pytest.raises(UsageError, match="expected mode 0600, got 0644"):
        keys.read_passphrase(file)
    file.chmod(0o440)  # a credential of systemd
    assert keys.read_passphrase(file) == "secret"
    file.chmod(0o600)
    file.write_text("\n")
    with pytest.raises(UsageError, match="got an empty one"):
        keys.read_passphrase(file)
    with pytest.raises(UsageError, match="expected a line of text"):
        keys.read_passphrase(tmp_path / "none")
