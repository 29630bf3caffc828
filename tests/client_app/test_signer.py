"""A signer signs this system's statements for one coordinator, chain and contract, and only one history."""

import errno
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from client_app.agreement import Agreement, RemoteAgreement, keep, kept
from client_app.remote_key import RemoteKey
from client_app.signer import STATEMENTS, Signer, SignerServer
from core.canonical import from_json, to_json
from core.deployment import SignerSettings
from core.erasures import OpenedRequest, Receipt, hidden
from core.errors import ConfigError, ForgeryError, HeldError, IntegrityError, PolicyError, UsageError
from core.founding import Consent, Founding, commitment_to
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.keys import Domain, Key
from core.membership import Admission, Leave, MembershipRecord, Proposal
from core.rotations import Rotation
from core.rounds import Salts, ShownRecord
from core.seeds import from_nonces
from core.signed import Signed
from core.storage import jsonl
from core.storage.state_folder import State
from core.update import Bid, Offer, Organisation, Registration, UpdateManifest, verified_registration
from tests import erasures as e
from tests import federation as f
from tests.behaviours.runs import COORDINATOR, NAMES, Federation, Lies, build
from tests.child import in_child
from tests.server_app.agreeing import own_key

OWN = NAMES[0]


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return build(tmp_path_factory.mktemp("run") / "run", rounds=3, organisations=3)


@pytest.fixture(scope="module")
def forked(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The records that another face of the same coordinator shows: the same genesis, other aggregates."""
    lies = Lies(
        genesis=lambda _: federation.genesis,
        record=lambda _, record: replace(record, aggregate=f.other(f"another {record.round}")),
    )
    return list(build(tmp_path_factory.mktemp("fork") / "run", rounds=3, organisations=3, lies=lies).run.records())


@pytest.fixture
def settings(federation: Federation, tmp_path: Path) -> SignerSettings:
    """Of an organisation that has agreed to the federation."""
    genesis, state = federation.genesis, State.at(tmp_path / "state")
    jsonl.append(state.agreed(federation.members[OWN].address), {"genesis": genesis.digest})
    keep(genesis, state.agreed_genesis())
    return SignerSettings(
        tmp_path, COORDINATOR.address, genesis.chain.chain_id, genesis.chain.contract,
        socket=tmp_path / "signer.sock", state=tmp_path / "state",
    )  # fmt: skip


@pytest.fixture
def key(federation: Federation, settings: SignerSettings) -> Iterator[RemoteKey]:
    with SignerServer(settings, federation.members[OWN]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield RemoteKey(settings.socket)
        server.shutdown()
        thread.join()


def task(federation: Federation, signed: Any = None) -> Any:
    shown = (ShownRecord(signed, federation.run.salts(signed.value)),) if signed else ()
    return SimpleNamespace(genesis=federation.genesis, shown=shown, openings=())


def records_of(federation: Federation) -> list[Any]:
    return list(federation.run.records())


def own_manifest(federation: Federation, number: int = 1) -> UpdateManifest:
    record = records_of(federation)[number - 1].value
    address = federation.members[OWN].address
    return next(a.signed.value for a in record.admitted if a.organisation == address)


# --- it signs as the key itself ------------------------------------------------------------------------------------


def test_a_remote_key_is_the_key_that_its_signer_holds(federation: Federation, key: RemoteKey) -> None:
    local = federation.members[OWN]
    assert (key.address, key.public, key.derived) == (local.address, local.public, False)
    nonce, records = f.other("nonce"), [f.other("record")]
    assert hidden(key.salt_for(nonce), records) == hidden(local.salt_for(nonce), records)


def test_every_statement_of_a_node_is_signed_as_by_the_key(federation: Federation, key: RemoteKey) -> None:
    genesis, address = federation.genesis, key.address
    member = genesis.organisation(address)
    registration = key.register(Registration(member, COORDINATOR.address, "run", f.other("challenge")), genesis.chain)
    asked = f.asked(f.other("challenge"))
    asked = replace(asked, coordinator=COORDINATOR.address, run="run")
    assert verified_registration(registration, genesis.chain, asked) == member
    offer = Offer(genesis.digest, address, 0, 0, 1, Bid(1, 1)).sign(key, genesis.chain)
    assert offer.verified(genesis)
    manifest = own_manifest(federation)
    assert manifest.sign(key, genesis.chain) == manifest.sign(federation.members[OWN], genesis.chain)


def test_it_follows_an_honest_coordinator_to_the_end(federation: Federation, key: RemoteKey) -> None:
    own_manifest(federation, 1).sign(key, federation.genesis.chain)
    for number in (2, 3):
        key.show(federation.genesis, task(federation, records_of(federation)[number - 2]))
        own_manifest(federation, number).sign(key, federation.genesis.chain)


def test_a_memory_that_others_can_write_is_refused_and_its_own_is_private(
    federation: Federation, settings: SignerSettings, key: RemoteKey
) -> None:
    own_manifest(federation, 1)
    own_manifest(federation, 1).sign(key, federation.genesis.chain)
    assert {stat.S_IMODE(p.stat().st_mode) for p in settings.state.rglob("*") if p.is_file()} == {0o600}
    settings.state.chmod(0o777)
    with pytest.raises(UsageError, match="expected one that you alone can write"):
        Signer(settings, federation.members[OWN])


# --- it signs nothing else -----------------------------------------------------------------------------------------


def test_another_chain_contract_coordinator_or_federation_is_refused(
    federation: Federation, key: RemoteKey, settings: SignerSettings
) -> None:
    genesis = federation.genesis
    member = genesis.organisation(key.address)
    registration = Registration(member, COORDINATOR.address, "run", f.other("challenge"))
    for domain in (replace(genesis.chain, chain_id=1), replace(genesis.chain, contract=key.address)):
        with pytest.raises(IntegrityError, match="the signer refuses: chain: expected"):
            key.register(registration, domain)
        with pytest.raises(IntegrityError, match="the signer refuses: chain: expected"):
            key.reveal([], domain)
        with pytest.raises(IntegrityError, match="the signer refuses: chain: expected"):
            own_manifest(federation).sign(key, domain)
        with pytest.raises(IntegrityError, match="the signer refuses: federation: expected chain"):
            key.consent(replace(genesis, chain=domain))
    with pytest.raises(IntegrityError, match="registration: expected coordinator"):
        key.register(replace(registration, coordinator=key.address), genesis.chain)
    with pytest.raises(IntegrityError, match="registration: expected coordinator"):
        key.register(replace(registration, organisation=replace(member, address=COORDINATOR.address)), genesis.chain)
    with pytest.raises(IntegrityError, match="federation: expected chain and coordinator"):
        key.consent(replace(genesis, coordinator=key.address))
    pinned = Signer(replace(settings, federations=(f.other("pinned"),)), federation.members[OWN])
    asked = {"ask": "consent", "genesis": genesis.to_dict()}
    assert f"expected {f.other('pinned')}" in pinned.answer(to_json(asked))["refused"]


def test_nothing_is_signed_in_a_federation_that_was_not_agreed_to(federation: Federation, key: RemoteKey) -> None:
    other = replace(federation.genesis, salt="11" * 32)
    manifest = replace(own_manifest(federation), genesis=other.digest, parent=other.digest)
    offer = Offer(other.digest, key.address, 0, 0, 1, Bid(1, 1))
    for statement in (manifest, offer, Receipt(other.digest, key.address, f.other("erasure"))):
        with pytest.raises(IntegrityError, match="expected one that this organisation has agreed to found"):
            statement.sign(key, other.chain)
    with pytest.raises(IntegrityError, match="expected one that this organisation has agreed to found"):
        key.show(other)
    with pytest.raises(IntegrityError, match="expected a seed from the nonce that was shown"):
        key.consent(other)
    for statement in (Consent(other.digest, key.address), f.registration(f.members()[0], f.other("x")).value):
        with pytest.raises(IntegrityError, match="statement: expected Offer, "):
            statement.sign(key, other.chain)


@pytest.fixture
def agreeing(tmp_path: Path) -> Iterator[list[RemoteKey]]:
    """The signers of three organisations with keys of their own, before anything is founded."""
    with ExitStack() as running:
        found = []
        for number in (1, 2, 3):
            folder = tmp_path / f"signer-{number}"
            settings = SignerSettings(
                folder, f.COORDINATOR.address, f.CHAIN.chain_id, f.CHAIN.contract,
                socket=folder / "signer.sock", state=folder / "state",
            )  # fmt: skip
            server = running.enter_context(SignerServer(settings, own_key(number)))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            running.callback(thread.join)
            running.callback(server.shutdown)
            found.append(RemoteKey(settings.socket))
        yield sorted(found, key=lambda key: int(key.address, 16))


def founded(agreements: list[RemoteAgreement], agreeing: list[RemoteKey]) -> tuple[list[Any], Genesis]:
    """Their registrations, and the genesis that follows from the nonces that they have shown."""
    members = tuple(Organisation(key.address, f"member-{i}", 100, False) for i, key in enumerate(agreeing))
    plain = [Registration(member, f.COORDINATOR.address, f.RUN, f.other("challenge")) for member in members]
    registrations = [a.register(each, f.CHAIN) for a, each in zip(agreements, plain, strict=True)]
    nonces = tuple(agreement.reveal(registrations, f.CHAIN) for agreement in agreements)
    lanes = (tuple(member.address for member in members),)
    values = {"organisations": members, "lanes": lanes, "nonces": nonces, "seed": from_nonces(nonces)}
    return registrations, replace(f.genesis(), **values)


def test_signers_draw_a_seed_and_agree_to_one_genesis_and_no_other(agreeing: list[RemoteKey], tmp_path: Path) -> None:
    """The memory of what was agreed is the signer's: foreign code of the node cannot show a nonce twice."""
    agreements = [RemoteAgreement(tmp_path / "node", key) for key in agreeing]
    registrations, genesis = founded(agreements, agreeing)
    nonces = genesis.nonces
    assert [commitment_to(nonce) for nonce in nonces] == [signed.value.nonce for signed in registrations]
    with pytest.raises(IntegrityError, match="it was shown for other members before"):
        agreements[0].reveal(registrations[:2], f.CHAIN)
    with pytest.raises(IntegrityError, match="has agreed to found"):
        agreements[0].check(genesis)
    consents = tuple(agreement.consent(genesis) for agreement in agreements)
    Founding(tuple(registrations), consents).check(genesis)
    agreements[0].check(genesis)
    assert Genesis.from_message(from_json((tmp_path / "node" / f"{genesis.digest}.json").read_bytes())) == genesis
    swapped = (nonces[1], nonces[0], nonces[2])
    with pytest.raises(IntegrityError, match="expected a seed from the nonce that was shown"):
        agreements[0].consent(replace(genesis, nonces=swapped, seed=from_nonces(swapped)))


def test_a_salt_does_not_tell_a_nonce(agreeing: list[RemoteKey]) -> None:
    key, asked = own_key(1), f.other("asked")
    remote = next(each for each in agreeing if each.address == key.address)
    assert remote.salt_for(asked) == key.salt_for(asked) != key.nonce_for(asked)


def test_another_organisations_statement_is_refused(federation: Federation, key: RemoteKey) -> None:
    other = replace(own_manifest(federation), organisation=federation.members[NAMES[1]].address)
    with pytest.raises(IntegrityError, match="update manifest: expected one of"):
        other.sign(key, federation.genesis.chain)


def test_a_record_or_a_certificate_is_refused(federation: Federation, key: RemoteKey) -> None:
    record = records_of(federation)[0].value
    assert record.struct not in STATEMENTS
    with pytest.raises(IntegrityError, match="statement: expected Offer, "):
        record.sign(key, federation.genesis.chain)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"[]", b"{}", b"not json", b"null", b'{"ask":"key"}', b'{"ask":"sign"}', b'{"ask":"salt","nonce":5}',
        b'{"ask":"show","federation":{},"shown":[],"openings":[]}', b'{"ask":"salt","secret":"x"}',
        b'{"ask":"consent","genesis":{}}', b'{"ask":"reveal","chain":{},"registrations":5}', b'{"ask":["sign"]}',
        b'{"ask":"register","chain":{},"value":{}}', b'{"ask":"sign","chain":{},"noun":[],"value":{}}',
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(federation: Federation, settings: SignerSettings, line: bytes) -> None:
    assert list(Signer(settings, federation.members[OWN]).answer(line)) == ["refused"]


# --- one history ---------------------------------------------------------------------------------------------------


def test_an_update_that_grows_from_no_shown_record_is_refused(federation: Federation, key: RemoteKey) -> None:
    own_manifest(federation, 1).sign(key, federation.genesis.chain)
    with pytest.raises(IntegrityError, match="is no record that was shown before it"):
        own_manifest(federation, 2).sign(key, federation.genesis.chain)
    with pytest.raises(IntegrityError, match="is no record that was shown before it"):
        replace(own_manifest(federation, 1), round=3).sign(key, federation.genesis.chain)


def test_two_histories_are_not_signed_whatever_asks(
    federation: Federation, forked: list[Any], settings: SignerSettings
) -> None:
    """Requests of foreign code, straight to the signer; it is started anew in between, and remembers."""
    chain = federation.genesis.chain.to_dict()

    def ask(**request: Any) -> dict[str, Any]:
        return signer.answer(to_json(request))

    def show(*records: Any) -> dict[str, Any]:
        salts = [
            {"aggregate": "00" * 32, "updates": {a.organisation: "00" * 32 for a in signed.value.admitted}}
            for signed in records
        ]
        shown = [{"record": signed.to_dict(), "salts": s} for signed, s in zip(records, salts, strict=True)]
        return ask(ask="show", federation=federation.genesis.digest, shown=shown, openings=[], memberships=[])

    def sign(manifest: UpdateManifest) -> dict[str, Any]:
        return ask(ask="sign", chain=chain, noun=manifest.struct, value=manifest.to_dict())

    signer = Signer(settings, federation.members[OWN])
    show()
    assert "signature" in sign(own_manifest(federation, 1))
    assert show(records_of(federation)[0]) == {}
    assert "signature" in sign(own_manifest(federation, 2))

    signer = Signer(settings, federation.members[OWN])
    assert "two records" in show(forked[0])["refused"]
    other = replace(own_manifest(federation, 2), parent=forked[0].value.digest)
    assert "refused" in sign(other)
    assert "refused" in sign(own_manifest(federation, 2)), "a coordinator caught once is not believed again"


def test_a_later_round_of_another_history_is_not_signed_for(
    federation: Federation, forked: list[Any], key: RemoteKey
) -> None:
    """Shown a later record alone, the signer sees no two records of a round, nor two that do not follow each other."""
    genesis, plain = federation.genesis, forked[1].value
    # Without an update of its own: the one there was signed beside the signer, which signs for no round behind a gap.
    others = tuple(a for a in plain.admitted if a.organisation != federation.members[OWN].address)
    other = replace(plain, admitted=others).sign(COORDINATOR, genesis.chain)
    own_manifest(federation, 1).sign(key, genesis.chain)
    salts = Salts("00" * 32, {a.organisation: "00" * 32 for a in other.value.admitted})
    later: Any = SimpleNamespace(genesis=genesis, shown=[ShownRecord(other, salts)], openings=())
    with pytest.raises(IntegrityError, match="expected the record of every round since the last shown, got a gap"):
        key.show(genesis, later)
    with pytest.raises(IntegrityError, match="is no record that was shown before it"):
        replace(own_manifest(federation, 3), parent=other.value.digest).sign(key, genesis.chain)
    key.show(genesis, task(federation, records_of(federation)[0]))
    own_manifest(federation, 2).sign(key, genesis.chain)


def test_a_record_that_the_coordinator_did_not_sign_is_refused(federation: Federation, key: RemoteKey) -> None:
    signed = records_of(federation)[0]
    forged: Signed[Any] = signed.value.sign(federation.members[OWN], federation.genesis.chain)
    with pytest.raises(ForgeryError):
        forged.verified(federation.genesis)
    with pytest.raises(IntegrityError, match="the signer refuses: round record: expected the signature of"):
        key.show(federation.genesis, task(federation, forged))


# --- its socket ----------------------------------------------------------------------------------------------------


def test_a_socket_of_a_killed_signer_is_taken_over_and_a_file_is_not(
    federation: Federation, settings: SignerSettings
) -> None:
    SignerServer(settings, federation.members[OWN]).socket.close()
    assert stat.S_ISSOCK(settings.socket.stat().st_mode)
    SignerServer(settings, federation.members[OWN]).server_close()
    settings.socket.write_text("a file of somebody's")
    with pytest.raises(UsageError, match="expected a place for a socket"):
        SignerServer(settings, federation.members[OWN])


def test_a_signer_that_ends_removes_its_own_socket_and_no_other(
    federation: Federation, settings: SignerSettings
) -> None:
    first = SignerServer(settings, federation.members[OWN])
    second = SignerServer(settings, federation.members[OWN])
    first.server_close()
    assert settings.socket.exists()
    second.server_close()
    assert not settings.socket.exists()
    second.server_close()


def test_a_user_that_does_not_exist_is_named(federation: Federation, settings: SignerSettings) -> None:
    with pytest.raises(UsageError, match="users: expected users of this machine, got 'no-such-user'"):
        SignerServer(replace(settings, users=("no-such-user",)), federation.members[OWN])


def test_its_own_user_may_ask_for_an_erasure(federation: Federation, key: RemoteKey) -> None:
    genesis, own = federation.genesis, federation.members[OWN]
    records = (f.other("one"), f.other("two"))
    asked = OpenedRequest.of(key, genesis, "replay", records, "a test", e.TODAY)
    assert asked == OpenedRequest.of(own, genesis, "replay", records, "a test", e.TODAY)
    assert asked.verified(genesis).value.organisation == own.address
    for genesis in (replace(federation.genesis, salt="11" * 32), replace(federation.genesis, chain=f.CHAIN)):
        with pytest.raises(IntegrityError, match=r"the signer refuses: (federation|chain)"):
            OpenedRequest.of(key, genesis, "replay", (), "a test", e.TODAY)
    other = replace(asked.request.value, organisation=federation.members[NAMES[1]].address)
    with pytest.raises(IntegrityError, match="erasure request: expected one of"):
        other.sign(key, federation.genesis.chain)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as another user")
def test_the_node_s_user_cannot_have_its_organisation_erased(federation: Federation, settings: SignerSettings) -> None:
    """What it is answered otherwise, and a request that claims to come from the owner, help it nothing."""

    def ask(key: RemoteKey) -> str:
        try:
            return OpenedRequest.of(key, federation.genesis, "replay", (), "a test", e.TODAY).salt
        except IntegrityError as error:
            return str(error)

    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        asked = replace(settings, users=("nobody",), socket=Path(folder) / "signer.sock")
        told = answer_to_nobody(asked, federation.members[OWN], ask)
    assert told == (
        "the signer refuses: statement: expected Offer, Update, DeletionReceipt, got 'ErasureRequest' "
        "for another user than the signer's own"
    )


@pytest.mark.parametrize("more", [{"owner": True}, {"allowed": {}}])
def test_a_request_does_not_say_who_asks(federation: Federation, settings: SignerSettings, more: Any) -> None:
    plain = OpenedRequest.of(federation.members[OWN], federation.genesis, "replay", (), "a test", e.TODAY).request.value
    sign = {"ask": "sign", "chain": federation.genesis.chain.to_dict(), "noun": plain.struct, "value": plain.to_dict()}
    signer = Signer(settings, federation.members[OWN])
    assert list(signer.answer(to_json(sign | more))) == ["refused"]
    assert list(signer.answer(to_json(sign))) == ["refused"]
    assert list(signer.answer(to_json(sign), owner=True)) == ["signature"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as another user")
@pytest.mark.parametrize(("users", "answered"), [((), False), (("nobody",), True)])
def test_only_the_users_that_its_settings_name_are_answered(
    federation: Federation, settings: SignerSettings, users: tuple[str, ...], answered: bool
) -> None:
    with TemporaryDirectory() as folder:  # pytest's own are closed to others
        Path(folder).chmod(0o755)
        asked = replace(settings, users=users, socket=Path(folder) / "signer.sock")
        assert answer_to_nobody(asked, federation.members[OWN]) == (federation.members[OWN].address if answered else "")


def told_address(key: RemoteKey) -> str:
    return key.address


def answer_to_nobody(settings: SignerSettings, key: Key, ask: Callable[[RemoteKey], str] = told_address) -> str:
    """What a process of the user nobody is told, "" where it is told nothing."""

    def as_nobody() -> str:
        os.setuid(65534)
        try:
            return ask(RemoteKey(settings.socket))
        except UsageError:
            return ""

    with SignerServer(settings, key) as server:
        told = in_child(as_nobody)  # it waits at the socket until it is served
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            return told()
        finally:
            server.shutdown()
            thread.join()


def test_a_signer_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"signer {tmp_path}/none: expected an answer"):
        RemoteKey(tmp_path / "none").sign_statement(f.CHAIN, f.manifest(f.genesis()))


def test_a_silent_client_does_not_hold_up_the_next(federation: Federation, key: RemoteKey, monkeypatch: Any) -> None:
    monkeypatch.setattr("client_app.signer._PATIENCE_SECONDS", 0.1)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(key.path))
        assert key.address == federation.members[OWN].address


def test_an_answer_is_one_line_of_json(federation: Federation, settings: SignerSettings) -> None:
    signer = Signer(settings, federation.members[OWN])
    assert from_json(to_json(signer.answer(b'{"ask":"about"}')))["address"] == federation.members[OWN].address


# --- the site's policy ---------------------------------------------------------------------------------------------


def with_policy(settings: SignerSettings, key: Key, text: str) -> Signer:
    path = settings.folder / "policy.toml"
    path.write_text(text, encoding="utf-8")
    return Signer(replace(settings, policy=path), key)


def signing(signer: Signer, manifest: UpdateManifest, domain: Domain, *, owner: bool = False) -> dict[str, Any]:
    asked = {"ask": "sign", "chain": domain.to_dict(), "noun": manifest.struct, "value": manifest.to_dict()}
    return signer.answer(to_json(asked), owner=owner)


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("most-rounds = 1", "most-rounds: expected at most 1, as this site's policy allows, got"),
        ("most-epsilon = 8", "most-epsilon: expected at most 8, as this site's policy allows, got inf"),
        ('hours = ["{closed}"]', "hours: expected"),
    ],
)
def test_a_signer_signs_no_update_beyond_the_policy_whatever_its_node_asks(
    federation: Federation, settings: SignerSettings, policy: str, reason: str
) -> None:
    hour = (time.localtime().tm_hour + 2) % 24
    signer = with_policy(settings, federation.members[OWN], policy.replace("{closed}", f"{hour:02}:00-{hour:02}:30"))
    refusal = signing(signer, own_manifest(federation), federation.genesis.chain)
    assert refusal["refused"].startswith(reason)
    assert refusal["as"] in ("PolicyError", "NotNowError")


def test_a_signer_agrees_to_no_genesis_beyond_the_policy(federation: Federation, settings: SignerSettings) -> None:
    signer = with_policy(settings, federation.members[OWN], 'bases = ["another"]')
    refusal = signer.answer(to_json({"ask": "consent", "genesis": federation.genesis.to_dict()}))
    assert refusal["refused"].startswith("base: expected another, as this site's policy allows, got")


def test_a_policy_that_is_missing_or_wrong_is_said_at_the_start_and_signs_nothing(
    federation: Federation, settings: SignerSettings
) -> None:
    with pytest.raises(ConfigError, match="approve: expected text, got 5"):
        with_policy(settings, federation.members[OWN], "approve = 5")
    signer = with_policy(settings, federation.members[OWN], "")
    (settings.folder / "policy.toml").unlink()
    refusal = signing(signer, own_manifest(federation), federation.genesis.chain)
    assert "expected a settings file" in refusal["refused"]


def test_a_signer_holds_updates_and_lets_go_what_its_owner_has_looked_at_and_nothing_else(
    federation: Federation, settings: SignerSettings
) -> None:
    chain, made = federation.genesis.chain, own_manifest(federation)
    other = replace(made, update=f.other("other bytes"))
    signer = with_policy(settings, federation.members[OWN], 'approve = "each"')
    held = signing(signer, made, chain)
    assert held == {"refused": "held for approval by a person of its organisation", "as": "HeldError"}
    decision = {"ask": "decide", "manifest": made.digest, "released": True}
    assert "expected about, " in signer.answer(to_json(decision))["refused"], "its node is not its people"
    assert "expected about, " in signer.answer(to_json({"ask": "held"}))["refused"]
    assert signer.answer(to_json({"ask": "held"}), owner=True) == {"held": [made.to_dict()]}
    assert signer.answer(to_json(decision), owner=True) == {}
    assert signing(signer, other, chain)["as"] == "HeldError"
    assert "signature" in signing(signer, made, chain)


def test_a_node_hears_from_its_signer_what_is_held_and_why(federation: Federation, settings: SignerSettings) -> None:
    (settings.folder / "policy.toml").write_text('approve = "each"', encoding="utf-8")
    settings = replace(settings, policy=settings.folder / "policy.toml")
    with SignerServer(settings, federation.members[OWN]) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        key, made = RemoteKey(settings.socket), own_manifest(federation)
        key.check_approve("each")
        with pytest.raises(PolicyError, match=r"approve: expected a signer whose policy says first, .* got each"):
            key.check_approve("first")
        with pytest.raises(HeldError, match="the signer refuses: held for approval"):
            made.sign(key, federation.genesis.chain)
        assert key.waiting() == [made]
        key.decide(made.digest, released=True)
        assert made.sign(key, federation.genesis.chain).verified(federation.genesis)
        server.shutdown()
        thread.join()


# --- members that come and go --------------------------------------------------------------------------------------


def proposal_of(federation: Federation, *joins: Organisation) -> Proposal:
    genesis = federation.genesis
    return Proposal(genesis.digest, 0, 1, records_of(federation)[-1].value.digest, genesis.lanes[0], joins)


def test_a_signer_agrees_to_newcomers_of_its_federation_and_of_no_other(
    federation: Federation, key: RemoteKey, tmp_path: Path
) -> None:
    genesis = federation.genesis
    newcomer = Organisation(own_key(77).address, "newcomer", 10, derived=False)
    proposal = proposal_of(federation, newcomer)
    admission = RemoteAgreement(tmp_path / "agreed", key).admit(genesis, proposal)
    assert admission.verified(genesis).proposal == proposal.digest
    other = replace(genesis, coordinator=key.address)
    with pytest.raises(IntegrityError, match="federation: expected chain and coordinator"):
        key.admit(other, replace(proposal, genesis=other.digest))


def test_a_signer_joins_a_federation_of_its_coordinator_and_then_signs_in_it(
    federation: Federation, settings: SignerSettings, tmp_path: Path
) -> None:
    genesis, key = federation.genesis, own_key(77)
    newcomer = Organisation(key.address, "newcomer", 10, derived=False)
    proposal = proposal_of(federation, newcomer)
    own_settings = replace(settings, state=tmp_path / "newcomer")
    asked = {"ask": "admit", "genesis": genesis.to_message(), "proposal": proposal.to_dict()}
    refused = Signer(own_settings, key).answer(to_json(asked))
    assert refused["refused"].startswith(f"joins: expected none, as this site's policy allows, got {genesis.digest}")
    signer = with_policy(own_settings, key, f'joins = ["{genesis.digest}"]')

    def ask(**request: Any) -> dict[str, Any]:
        return signer.answer(to_json(request))

    joining = ask(**asked)
    own = Signed(Admission(genesis.digest, key.address, proposal.digest), (joining["signature"],))
    others = [
        Admission(genesis.digest, m.address, proposal.digest).sign(m, genesis.chain)
        for m in federation.members.values()
    ]
    record = MembershipRecord(genesis.digest, proposal, (own, *others), (), "33" * 32)
    opened = GenerationRecord(
        genesis.digest, 0, 1, 0, 3, proposal.parent, proposal.parent, 3, record.change, record.members, record.digest
    ).sign(COORDINATOR, genesis.chain)  # fmt: skip
    head = records_of(federation)[-1]
    shown = [ShownRecord(head, federation.run.salts(head.value)).to_dict()]
    show = {"ask": "show", "federation": genesis.digest, "shown": shown, "openings": [opened.to_dict()]}
    # A coordinator that adds members without a quorum, or shows the opening without its record.
    few = replace(record, admissions=(own,)).sign(COORDINATOR, genesis.chain)
    assert "members to agree, got 0" in ask(**show, memberships=[few.to_dict()])["refused"]
    assert "expected its membership record, got none" in ask(**show, memberships=[])["refused"]
    assert ask(**show, memberships=[record.sign(COORDINATOR, genesis.chain).to_dict()]) == {}
    made = replace(own_manifest(federation), organisation=key.address, generation=1, round=4, parent=head.value.digest)
    assert "signature" in signing(signer, made, genesis.chain)
    elsewhere = replace(made, parent=records_of(federation)[0].value.digest)
    assert "no record that was shown before it" in signing(signer, elsewhere, genesis.chain)["refused"]


def test_a_leave_is_signed_for_the_signer_s_owner_alone(federation: Federation, settings: SignerSettings) -> None:
    genesis = federation.genesis
    signer = Signer(settings, federation.members[OWN])
    leave = Leave(genesis.digest, federation.members[OWN].address)
    asked = {"ask": "sign", "chain": genesis.chain.to_dict(), "noun": leave.struct, "value": leave.to_dict()}
    assert "for another user than the signer's own" in signer.answer(to_json(asked))["refused"]
    assert "signature" in signer.answer(to_json(asked), owner=True)


def rotated(federation: Federation, new: Key) -> tuple[Rotation, MembershipRecord, Signed[GenerationRecord]]:
    """The own key replaced behind the run's last round."""
    genesis, old = federation.genesis, federation.members[OWN]
    rotation = Rotation(genesis.digest, old.address, old.address, new.address, old.address)
    proposal = proposal_of(federation)
    record = MembershipRecord(genesis.digest, proposal, (), (), "33" * 32, (rotation.sign(old, genesis.chain, new),))
    opened = GenerationRecord(
        genesis.digest, 0, 1, 0, 3, proposal.parent, proposal.parent, 3, record.change, record.members, record.digest
    ).sign(COORDINATOR, genesis.chain)  # fmt: skip
    return rotation, record, opened


@pytest.mark.parametrize("opening", [True, False], ids=["opened", "decided"])
def test_nothing_more_is_signed_in_a_generation_that_is_over(
    federation: Federation, settings: SignerSettings, opening: bool
) -> None:
    """Once a change of members was shown, whoever asks: at a place before it, a key that it replaced would count."""
    genesis, chain = federation.genesis, federation.genesis.chain
    signer, records = Signer(settings, federation.members[OWN]), records_of(federation)
    show: dict[str, Any] = {"ask": "show", "federation": genesis.digest, "openings": [], "memberships": []}
    for number in (1, 2):
        assert "signature" in signing(signer, own_manifest(federation, number), chain)
        head = records[number - 1]
        shown = [ShownRecord(head, federation.run.salts(head.value)).to_dict()]
        assert signer.answer(to_json(show | {"shown": shown})) == {}
    gone = federation.members[NAMES[1]]
    leave = Leave(genesis.digest, gone.address).sign(gone, chain)
    proposal = replace(proposal_of(federation), parent=head.value.digest)
    record = MembershipRecord(genesis.digest, proposal, (), (leave,), "33" * 32)
    opened = GenerationRecord(
        genesis.digest, 0, 1, 0, 2, proposal.parent, proposal.parent, 3, record.change, record.members, record.digest
    ).sign(COORDINATOR, chain)  # fmt: skip
    changed = {"memberships": [record.sign(COORDINATOR, chain).to_dict()]}
    openings = [opened.to_dict()] if opening else []
    assert signer.answer(to_json(show | changed | {"shown": shown, "openings": openings})) == {}
    made = own_manifest(federation, 3)
    for asked in (signer, Signer(settings, federation.members[OWN])):
        assert "its generation is over, as generation 1 was shown" in signing(asked, made, chain)["refused"]
    assert signer.answer(to_json(show | changed | {"shown": shown, "openings": [opened.to_dict()]})) == {}
    assert "signature" in signing(signer, replace(made, generation=1), chain)


def test_a_new_key_signs_under_the_old_address_once_the_rotation_was_shown(
    federation: Federation, settings: SignerSettings
) -> None:
    genesis, old, new = federation.genesis, federation.members[OWN], own_key(77)
    rotation, record, opened = rotated(federation, new)
    before = Signer(settings, old)
    asked = {"ask": "sign", "chain": genesis.chain.to_dict(), "noun": rotation.struct, "value": rotation.to_dict()}
    assert "for another user than the signer's own" in before.answer(to_json(asked))["refused"]
    assert "signature" in before.answer(to_json(asked), owner=True)
    Agreement.of(State.at(settings.state), new, 8).succeed(genesis)
    signer, head = Signer(settings, new), records_of(federation)[-1]
    made = replace(own_manifest(federation), generation=1, round=4, parent=head.value.digest)
    assert f"expected one of {new.address}, got one of {old.address}" in signing(signer, made, genesis.chain)["refused"]
    shown = [ShownRecord(head, federation.run.salts(head.value)).to_dict()]
    show = {"ask": "show", "federation": genesis.digest, "shown": shown, "openings": [opened.to_dict()]}
    changes = [record.sign(COORDINATOR, genesis.chain).to_dict()]
    assert "It says so once" in signer.answer(to_json(show | {"memberships": changes}))["refused"]
    assert signer.answer(to_json(show | {"memberships": changes})) == {}
    signature = signing(signer, made, genesis.chain)["signature"]
    amended = genesis.amended([record.sign(COORDINATOR, genesis.chain)])
    assert Signed(made, (signature,)).verified(amended).organisation == old.address
    # The old key, and a coordinator that shows a history without the rotation.
    assert "expected one of" in signing(before, made, genesis.chain)["refused"]
    assert "shown before" in signer.answer(to_json(show | {"memberships": []}))["refused"]


def test_a_founding_that_is_asked_again_takes_no_change_of_members_from_the_memory(
    agreeing: list[RemoteKey], tmp_path: Path
) -> None:
    """Neither from the signer's, whatever asks, nor from that of its node."""
    held, new = own_key(1), own_key(77)
    agreements = [RemoteAgreement(tmp_path / "node", key) for key in agreeing]
    _, genesis = founded(agreements, agreeing)
    own = next(a for a, key in zip(agreements, agreeing, strict=True) if key.address == held.address)
    rotation = Rotation(genesis.digest, held.address, held.address, new.address, held.address)
    proposal = Proposal(genesis.digest, 0, 1, genesis.digest, genesis.lanes[0], ())
    record = MembershipRecord(genesis.digest, proposal, (), (), "33" * 32, (rotation.sign(held, genesis.chain, new),))
    changed = genesis.amended([record.sign(f.COORDINATOR, genesis.chain)])
    own.consent(genesis)
    own.check(changed)
    for ask in (own.consent, own.check):
        with pytest.raises(IntegrityError, match="the signer refuses: memberships: expected those that were shown"):
            ask(genesis)
        for folder in (tmp_path / "node", tmp_path / "signer-1" / "state" / "agreed"):
            kept.cache_clear()
            assert kept(genesis.digest, folder).signing(held.address) == new.address


def test_a_memory_that_cannot_be_read_is_no_objection_to_the_coordinator(
    key: RemoteKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(_: Signer, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "agreed/0x1.jsonl")

    monkeypatch.setattr(Signer, "about", forbidden)
    with pytest.raises(UsageError, match=r"the signer refuses: its memory: .*Permission denied: 'agreed/0x1.jsonl'"):
        _ = key.address
