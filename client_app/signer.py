"""The signer: a process that holds an organisation's key, and a memory of what it was shown and has signed.

It may run under another user than the node. Then even foreign code in the node's worker can neither read the key nor
sign anything but this system's statements, of this organisation, for the coordinator, chain and contract of the
signer's own settings, in federations that it has agreed to with nonces of its own (client_app/agreement.py); and an
update only if it grows from a record that the coordinator signed and that fits all it was shown before
(client_app/witness.py). So no code of the node can sign two histories of a federation, or help to choose its seed.
A request to erase is signed for the signer's own user and root alone, and only they look at what is held. What the
site's policy forbids (core/site_policy.py) is not signed.
"""

import os
import pwd
import socket
import stat
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from socketserver import StreamRequestHandler, UnixStreamServer
from typing import Any, Protocol

from client_app.agreement import AgreeingKey, Agreement, keep
from client_app.approvals import Approvals
from client_app.remote_key import LONGEST_LINE
from client_app.token_key import TokenKey
from client_app.witness import Witness
from core import keys
from core.canonical import from_json, to_json
from core.deployment import SignerSettings
from core.erasures import ErasureRequest, Receipt
from core.errors import FoedusError, FormatError, IntegrityError, NotNowError, PolicyError, UsageError
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.keys import Domain, PublicKey
from core.membership import Leave, MembershipRecord, Proposal
from core.parsing import in_words
from core.rotations import Rotation
from core.rounds import ShownRecord
from core.signed import OrganisationStatement, Signed
from core.site_policy import SitePolicy, SiteTerms
from core.storage.state_folder import State
from core.update import Offer, Registration, UpdateManifest

OwnStatement = OrganisationStatement | Rotation
STATEMENTS: Mapping[str, type[OwnStatement]] = {noun.struct: noun for noun in (Offer, UpdateManifest, Receipt)}
"""What an organisation's node signs in a federation that it has agreed to, by the names of the structs."""
OF_ITS_OWNER: Mapping[str, type[OwnStatement]] = {noun.struct: noun for noun in (ErasureRequest, Leave, Rotation)}
"""What is signed there for the signer's own user and root alone: no code of the node can have it erased, leave, or have
its key replaced."""
_PATIENCE_SECONDS = 10.0


class HeldKey(AgreeingKey, Protocol):
    """A key that this process can use: of a file, a keystore or a token."""

    @property
    def public(self) -> PublicKey:
        """The public key."""


def held_key(settings: SignerSettings) -> HeldKey:
    """The key that a signer's settings name; raises UsageError when it cannot be used."""
    if settings.pkcs11_module is None:
        return keys.read(settings.key, settings.passphrase)
    if settings.passphrase is None:
        raise UsageError("pkcs11-module: expected passphrase, the file of the token's PIN, got none")
    pin = keys.read_passphrase(settings.passphrase)
    return TokenKey(settings.pkcs11_module, settings.pkcs11_label, settings.pkcs11_key, pin)


class Signer:
    """Answers the requests of a node (client_app/remote_key.py), one at a time."""

    def __init__(self, settings: SignerSettings, key: HeldKey) -> None:
        """`key` signs for `settings` alone.

        Raises UsageError for a state folder that other users can write, ConfigError for a policy that is none.
        """
        self._settings, self._key = settings, key
        # Whoever else can write there makes this process forget what it was shown.
        self._state = State.at(settings.state)
        self._agreement = Agreement.of(self._state, key, settings.most_draws)
        self._approvals = Approvals(self._state.approvals(key.address))
        _ = self._policy

    def answer(self, line: bytes, *, owner: bool = False) -> dict[str, Any]:
        """The answer to a request, of the signer's own user or of another; what is no request is refused."""
        verbs: dict[str, Callable[..., dict[str, Any]]] = {
            "about": self.about,
            "register": self.register,
            "reveal": self.reveal,
            "consent": self.consent,
            "admit": self.admit,
            "show": self.show,
            "sign": partial(self.sign, {**STATEMENTS, **(OF_ITS_OWNER if owner else {})}),
            "salt": lambda nonce: {"salt": self._key.salt_for(nonce).hex()},
        }
        # No code of the node looks at an update in its people's place.
        verbs |= {"held": self.held, "decide": self.decide} if owner else {}
        try:
            request = from_json(line, LONGEST_LINE)
            asked = str(request.pop("ask", "")) if isinstance(request, dict) else ""
            if asked not in verbs:
                raise FormatError(f"request: expected {', '.join(verbs)}, got {asked[:40]!r}")
            return verbs[asked](**request)
        except (PolicyError, NotNowError) as error:
            return {"refused": str(error), "as": type(error).__name__}
        except FoedusError as error:
            return {"refused": str(error)}
        except OSError as error:  # a full disk, or a file of another user: nothing that its coordinator has done
            return {"refused": f"its memory: {error}", "as": UsageError.__name__}
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            return {"refused": f"malformed request: {error}"}

    def about(self) -> dict[str, Any]:
        """Whose key it is, and for whom it signs."""
        settings = self._settings
        own = {"address": self._key.address, "public": self._key.public, "approve": self._policy.approve}
        return own | {"coordinator": settings.coordinator, "chain": settings.domain.to_dict()}

    def register(self, chain: Any, value: Any) -> dict[str, Any]:
        """A registration with this coordinator, and the commitment to a nonce in it."""
        plain = Registration.from_dict(value)
        got = plain.coordinator, plain.organisation.address
        if got != (expected := (self._settings.coordinator, self._key.address)):
            raise IntegrityError(f"registration: expected coordinator and organisation {expected}, got {got}")
        signed = self._agreement.register(plain, self._domain(chain))
        return {"nonce": signed.value.nonce, "signature": signed.signatures[0]}

    def reveal(self, chain: Any, registrations: Any) -> dict[str, Any]:
        """The nonce behind the own registration, for these members and no others."""
        members = [Signed.parse(Registration, signed) for signed in registrations]
        return {"nonce": self._agreement.reveal(members, self._domain(chain))}

    def consent(self, genesis: Any) -> dict[str, Any]:
        """The consent to a federation of this coordinator, of the members to whom the nonce was shown."""
        federation = Genesis.from_dict(genesis)
        self._check_federation(federation)
        return {"signature": self._agreement.consent(federation).signatures[0]}

    def admit(self, genesis: Any, proposal: Any) -> dict[str, Any]:
        """The signature under newcomers of a federation of this coordinator, or under the own joining."""
        federation, change = Genesis.from_message(genesis), Proposal.from_dict(proposal)
        self._check_federation(federation)
        if self._key.address in {newcomer.address for newcomer in change.joins}:
            self._policy.check_joining(federation)
        return {"signature": self._agreement.admit(federation, change).signatures[0]}

    def _check_federation(self, federation: Genesis) -> None:
        """Raise IntegrityError for another coordinator or contract, or terms that the site's policy does not allow."""
        settings = self._settings
        got, expected = (federation.chain, federation.coordinator), (settings.domain, settings.coordinator)
        if got != expected:
            raise IntegrityError(f"federation: expected chain and coordinator {expected}, got {got}")
        if settings.federations and federation.digest not in settings.federations:
            raise IntegrityError(f"federation: expected {' or '.join(settings.federations)}, got {federation.digest}")
        self._policy.check_terms(SiteTerms.of(federation))

    def show(self, federation: Any, shown: Any, openings: Any, memberships: Any) -> dict[str, Any]:
        """Take note of the records that lead to the newest of a lane, in a federation that was agreed to."""
        opened = tuple(Signed.parse(GenerationRecord, opening) for opening in openings)
        changes = [Signed.parse(MembershipRecord, membership) for membership in memberships]
        genesis = keep(self._agreement.agreed(federation).amended(changes), self._state.agreed_genesis())
        if shown or opened:
            self._witness(genesis).follow(tuple(map(ShownRecord.from_dict, shown)), opened)
        return {}

    def sign(self, allowed: Mapping[str, type[OwnStatement]], /, chain: Any, noun: Any, value: Any) -> dict[str, Any]:
        """The signature under a statement in a federation that was agreed to, once all that was shown allows it."""
        domain = self._domain(chain)
        if noun not in allowed:
            whose = " for another user than the signer's own" if noun in OF_ITS_OWNER else ""
            raise IntegrityError(f"statement: expected {', '.join(allowed)}, got {str(noun)[:40]!r}{whose}")
        statement = allowed[noun].from_dict(value)
        genesis = self._agreement.agreed(statement.federation())
        if (got := genesis.signing(statement.organisation)) != self._key.address:
            raise IntegrityError(f"{in_words(type(statement))}: expected one of {self._key.address}, got one of {got}")
        witness = self._witness(genesis)
        if isinstance(statement, UpdateManifest):
            witness.check_parent(statement)
            witness.check_open(statement.key)
            self._check_policy(statement)
        signed = statement.sign(self._key, domain)
        if isinstance(statement, UpdateManifest):
            witness.sent(Signed(statement, signed.signatures))
        return {"signature": signed.signatures[0]}

    def held(self) -> dict[str, Any]:
        """The manifests of the updates that wait until a person has looked at them."""
        return {"held": [manifest.to_dict() for manifest in self._approvals.waiting()]}

    def decide(self, manifest: Any, released: Any) -> dict[str, Any]:
        """Let a held update go, or keep it."""
        self._approvals.decide(manifest, released=released is True)
        return {}

    def _check_policy(self, manifest: UpdateManifest) -> None:
        """The site's policy as it is now, which may be stricter than when the federation was agreed to."""
        policy = self._policy
        policy.check_terms(SiteTerms.of(self._agreement.agreed(manifest.genesis)))
        policy.check_update(manifest.round, manifest.bid.steps, manifest.bid.rank)
        policy.check_hours()
        self._approvals.check(manifest, policy.approve)

    @property
    def _policy(self) -> SitePolicy:
        return SitePolicy.at(self._settings.policy)

    def _domain(self, chain: Any) -> Domain:
        """The domain of the settings, if a request names it; raises IntegrityError for another."""
        if chain != (expected := self._settings.domain.to_dict()):
            raise IntegrityError(f"chain: expected {expected}, got {chain}")
        return self._settings.domain

    def _witness(self, genesis: Genesis) -> Witness:
        """The memory of a federation that was agreed to."""
        own = genesis.keys.owner(self._key.address)
        return Witness(self._state.witness(genesis.digest, own), genesis, own, None)


class SignerServer(UnixStreamServer):
    """The signer's socket; it answers its own user, root, and the users that the settings name."""

    _own = -1
    """The socket's inode, once there is one."""

    def __init__(self, settings: SignerSettings, key: HeldKey) -> None:
        """Listen on the socket.

        Raises UsageError for a user that does not exist, where it cannot listen, and as `Signer` does.
        """
        self.owners = {0, os.getuid()}
        self.allowed = self.owners | set(map(_uid, settings.users))
        path = settings.socket
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # before the umask of the state folder: the node must pass
            self.signer = Signer(settings, key)
            # A socket that a killed signer has left; anything else there is not ours to remove.
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                path.unlink()
            super().__init__(str(path), _Request)
            self._own = path.stat().st_ino
            # The kernel tells who connects, which a mode cannot: it knows one group only.
            path.chmod(0o666)
        except OSError as error:
            raise UsageError(f"socket {path}: expected a place for a socket, got {error}") from error

    def server_close(self) -> None:
        """End, and remove the socket, unless another signer listens there by now."""
        super().server_close()
        path = Path(str(self.server_address))
        with suppress(OSError):  # it is gone, or its folder is
            if path.stat().st_ino == self._own:
                path.unlink()

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection, which may not hold up the ones after it for ever."""
        connection, client = super().get_request()
        connection.settimeout(_PATIENCE_SECONDS)
        return connection, client

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Whether the process on the other end belongs to an allowed user."""
        return _asking(request) in self.allowed


class _Request(StreamRequestHandler):
    """One request and its answer."""

    server: SignerServer

    def handle(self) -> None:
        line, owner = self.rfile.readline(LONGEST_LINE), _asking(self.request) in self.server.owners
        self.wfile.write(to_json(self.server.signer.answer(line.rstrip(b"\n"), owner=owner)) + b"\n")


def _asking(connection: socket.socket) -> int:
    """The user whose process is on the other end."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise UsageError(f"users: expected users of this machine, got {name!r}") from error
