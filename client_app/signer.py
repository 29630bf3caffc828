"""The signer: a process that holds an organisation's key, and a memory of what it was shown and has signed.

It may run under another user than the node. Then even foreign code in the node's worker can neither read the key nor
sign anything but this system's statements, of this organisation, for the coordinator, chain and contract of the
signer's own settings; and an update only if it grows from a record that the coordinator signed and that fits all it was
shown before (client_app/witness.py). So no code of the node can sign two histories of a federation.
"""

import os
import pwd
import socket
import stat
import struct
from collections.abc import Mapping
from socketserver import StreamRequestHandler, UnixStreamServer
from typing import Any, Protocol

from client_app.remote_key import LONGEST_LINE
from client_app.token_key import TokenKey
from client_app.witness import Witness
from core import keys
from core.canonical import Digest, from_json, to_json
from core.deployment import SignerSettings
from core.erasures import Receipt
from core.errors import FoedusError, FormatError, IntegrityError, UsageError
from core.founding import Consent
from core.generations import GenerationRecord
from core.genesis import Genesis
from core.keys import PublicKey
from core.rounds import ShownRecord
from core.signed import MemberStatement, Signed, SigningKey, Statement
from core.storage.state_folder import State
from core.update import Offer, Registration, UpdateManifest

STATEMENTS: Mapping[str, type[Statement]] = {
    noun.struct: noun for noun in (Registration, Consent, Offer, UpdateManifest, Receipt)
}
"""What an organisation's node signs, by the names of the structs."""
_MOST_FEDERATIONS = 64
"""That are kept at hand."""
_MOST_MEMORIES = 1000
"""Of federations, in the state folder."""
_PATIENCE_SECONDS = 10.0


class HeldKey(SigningKey, Protocol):
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
        """`key` signs for `settings` alone; raises UsageError for a state folder that other users can write."""
        self._settings, self._key = settings, key
        # Whoever else can write there makes this process forget what it was shown.
        self._state = State.at(settings.state)
        self._federations: dict[Digest, Genesis] = {}

    def answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a request; a request that is none, or not allowed, is refused with a reason."""
        try:
            request = from_json(line, LONGEST_LINE)
            asked = request.pop("ask") if isinstance(request, dict) and "ask" in request else None
            match asked:
                case "about":
                    return {"address": self._key.address, "public": self._key.public}
                case "show":
                    self.show(**request)
                    return {}
                case "sign":
                    return {"signature": self.sign(**request)}
                case "salt":
                    return {"salt": self._key.salt_for(**request).hex()}
            raise FormatError(f"request: expected about, show, sign or salt, got {str(asked)[:40]!r}")
        except FoedusError as error:
            return {"refused": str(error)}
        except (TypeError, KeyError, AttributeError, ValueError, OSError) as error:
            return {"refused": f"malformed request: {error}"}

    def show(self, genesis: Any, shown: Any, openings: Any) -> None:
        """Take note of a federation of this coordinator, and of the records that lead to the newest of a lane."""
        federation, settings = Genesis.from_dict(genesis), self._settings
        got, expected = (federation.chain, federation.coordinator), (settings.domain, settings.coordinator)
        if got != expected:
            raise IntegrityError(f"federation: expected chain and coordinator {expected}, got {got}")
        if settings.federations and federation.digest not in settings.federations:
            raise IntegrityError(f"federation: expected {' or '.join(settings.federations)}, got {federation.digest}")
        if self._key.address not in federation.examples:
            raise IntegrityError(f"federation {federation.digest}: expected {self._key.address} among its members")
        while len(self._federations) >= _MOST_FEDERATIONS:
            self._federations.pop(next(iter(self._federations)))
        self._federations[federation.digest] = federation
        opened = tuple(Signed.parse(GenerationRecord, opening) for opening in openings)
        self._witness(federation).follow(tuple(map(ShownRecord.from_dict, shown)), opened)

    def sign(self, chain: Any, noun: Any, value: Any) -> str:
        """The signature under a statement, once all that this process knows allows it."""
        settings = self._settings
        if chain != settings.domain.to_dict():
            raise IntegrityError(f"chain: expected {settings.domain.to_dict()}, got {chain}")
        if noun not in STATEMENTS:
            raise IntegrityError(f"statement: expected {', '.join(STATEMENTS)}, got {str(noun)[:40]!r}")
        statement = STATEMENTS[noun].from_dict(value)
        if isinstance(statement, Registration):
            got = statement.coordinator, statement.organisation.address
            if got != (expected := (settings.coordinator, self._key.address)):
                raise IntegrityError(f"registration: expected coordinator and organisation {expected}, got {got}")
        elif isinstance(statement, MemberStatement):
            if (genesis := self._federations.get(statement.federation())) is None:
                raise IntegrityError(f"federation {statement.federation()}: expected one that was shown before")
            if (signers := statement.signers(genesis.coordinator)) != (self._key.address,):
                raise IntegrityError(f"{type(statement).__name__}: expected one of {self._key.address}, got {signers}")
            if isinstance(statement, UpdateManifest):
                witness = self._witness(genesis)
                witness.check_parent(statement)
                witness.check_open(statement.key)
        signed = statement.sign(self._key, settings.domain)
        if isinstance(statement, UpdateManifest):
            self._witness(self._federations[statement.genesis]).sent(Signed(statement, signed.signatures))
        return signed.signatures[0]

    def _witness(self, genesis: Genesis) -> Witness:
        """The memory of a federation; raises IntegrityError where there are too many to begin another."""
        path = self._state.witness(genesis.digest, self._key.address)
        # Any code that may ask can name federations; what it names must not fill the disk.
        if not path.exists() and len(list(path.parents[1].glob("*"))) >= _MOST_MEMORIES:
            raise IntegrityError(
                f"federation {genesis.digest}: expected at most {_MOST_MEMORIES} in {path.parents[1]}, got one more: "
                "remove those that are over"
            )
        return Witness(path, genesis, self._key.address, None)


class SignerServer(UnixStreamServer):
    """The signer's socket; it answers its own user, and the users that the settings name."""

    def __init__(self, settings: SignerSettings, key: HeldKey) -> None:
        """Listen on the socket.

        Raises UsageError for a user that does not exist, where it cannot listen, and as `Signer` does.
        """
        self.allowed = {os.getuid(), *map(_uid, settings.users)}
        path = settings.socket
        try:
            path.parent.mkdir(parents=True, exist_ok=True)  # before the umask of the state folder: the node must pass
            self.signer = Signer(settings, key)
            # A socket that a killed signer has left; anything else there is not ours to remove.
            if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
                path.unlink()
            super().__init__(str(path), _Request)
            # The kernel tells who connects, which a mode cannot: it knows one group only.
            path.chmod(0o666)
        except OSError as error:
            raise UsageError(f"socket {path}: expected a place for a socket, got {error}") from error

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection, which may not hold up the ones after it for ever."""
        connection, client = super().get_request()
        connection.settimeout(_PATIENCE_SECONDS)
        return connection, client

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - socketserver's signature
        """Whether the process on the other end belongs to an allowed user."""
        credentials = request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return struct.unpack("3i", credentials)[1] in self.allowed


class _Request(StreamRequestHandler):
    """One request and its answer."""

    server: SignerServer

    def handle(self) -> None:
        line = self.rfile.readline(LONGEST_LINE)
        self.wfile.write(to_json(self.server.signer.answer(line.rstrip(b"\n"))) + b"\n")


def _uid(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise UsageError(f"users: expected users of this machine, got {name!r}") from error
