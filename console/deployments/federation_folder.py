"""A coordinator's folder: what `foedus deploy init` writes, `admit` adds to, and a run on the deployment reads.

DIR/federation.toml      what was decided, with absolute paths
DIR/own.key              the coordinator's key, unless federation.toml names another
DIR/ca.pem, ca.key       the CA, unless the operator has one; DIR/server.pem, server.key what nodes see
DIR/coordinator.toml     for `foedus coordinator`
DIR/kits/NAME.json       a kit for each organisation
DIR/admitted/NAME.json   the requests that were admitted; DIR/nodes/NAME.pub their node keys
DIR/state                runs and chains, and in DIR/state/coordinator what `foedus coordinator` keeps
"""

import json
import math
import shutil
import sys
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chain.joining import JoinKit, JoinRequest
from console.deployments.certificates import Certified, authority, check_own, names_of, server
from console.deployments.templates import watched_by, write_templates
from core import keys
from core.canonical import Digest
from core.deployment import COORDINATOR_METRICS, FederationSettings, RunSettings
from core.errors import IntegrityError, UsageError
from core.keys import Domain, Key
from core.names import Name
from core.storage.blobs import read, write
from llm.bases import digest_of, find

INSTALLED = Path("/etc/foedus")
"""Where a federation's folder is looked for by its name."""
_RENEW = timedelta(days=30)
_GRACE = 2.0
"""How long a round with its quorum waits by default, in multiples of the median answer."""
_OWN = ("certificate", "private_key", "ca")


@dataclass(frozen=True)
class FederationFolder:
    """A coordinator's folder; its files are its user's alone, but for what `public` hands out."""

    folder: Path

    @classmethod
    def named(cls, name: str) -> Self:
        """The folder of this path, or of this name in /etc/foedus; raises UsageError when neither is one."""
        for path in (Path(name).expanduser().absolute(), INSTALLED / name):
            if (path / "federation.toml").is_file():
                return cls(path)
        raise UsageError(
            f"--federation: expected a folder that `foedus deploy init` has made, or its name in {INSTALLED}, "
            f"got {name!r}"
        )

    @cached_property
    def settings(self) -> FederationSettings:
        """What was decided."""
        return FederationSettings.read(self.folder)

    @property
    def state(self) -> Path:
        """The state folder of its runs."""
        return self.folder / "state"

    @property
    def key_file(self) -> Path:
        """The coordinator's key."""
        return self.settings.key or self.folder / "own.key"

    def write_settings(self, given: FederationSettings) -> None:
        """Take over what was decided."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines, table = [], "\n[run]\n"
        for item in fields(given):
            value = getattr(given, item.name)
            if item.name not in ("folder", "run", *_OWN) and value is not None:
                shown = str(value) if isinstance(value, Path) else value
                lines.append(f"{item.name.replace('_', '-')} = {json.dumps(shown)}\n")
        table += "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.run.items())
        write(self.folder / "federation.toml", "".join(lines).encode() + (table.encode() if given.run else b""))
        for name in ("kits", "admitted", "nodes", "state"):
            (self.folder / name).mkdir(exist_ok=True, mode=0o700)

    def key(self) -> Key:
        """The coordinator's key, made where there is none; raises UsageError for one that cannot be used."""
        return keys.read(self.key_file) if self.settings.key or self.key_file.exists() else keys.create(self.key_file)

    def certify(self, given: FederationSettings) -> x509.Certificate:
        """Have a certificate for the nodes: the operator's own, or one that is made; returns it."""
        shown, secret, ca = (self.folder / name for name in ("server.pem", "server.key", "ca.pem"))
        if given.certificate and given.private_key and given.ca:
            check_own(given.certificate, given.private_key, given.ca)
            for source, target in ((given.certificate, shown), (given.private_key, secret), (given.ca, ca)):
                shutil.copyfile(source, target)
                target.chmod(0o600 if target == secret else 0o644)
        elif not self._serves(shown):
            server(given.hosts[0], given.hosts, self._authority()).write(shown, secret)
        certificate = x509.load_pem_x509_certificate(shown.read_bytes())
        if missing := set(given.hosts) - names_of(certificate):
            raise UsageError(f"certificate: expected one for {', '.join(given.hosts)}, got none for {min(missing)}")
        write(
            self.folder / "coordinator.toml",
            f'certificate = "server.pem"\nprivate-key = "server.key"\nlisten = {json.dumps(given.listen)}\n'
            f'control-port = {given.control_port}\nstate = "state/coordinator"\n'
            f"metrics = {json.dumps(given.metrics)}\n".encode(),
        )
        return certificate

    def _serves(self, path: Path) -> bool:
        """Whether a certificate is there, has all names, and lasts."""
        if not path.exists():
            return False
        found = x509.load_pem_x509_certificate(path.read_bytes())
        lasts = found.not_valid_after_utc > datetime.now(UTC) + _RENEW
        return lasts and set(self.settings.hosts) <= names_of(found)

    def _authority(self) -> Certified:
        """The CA, which stays: nodes have it."""
        certificate, key = self.folder / "ca.pem", self.folder / "ca.key"
        if not certificate.exists():
            made = authority(f"CA of {self.settings.name}")
            made.write(certificate, key)
            return made
        secret: Any = load_pem_private_key(key.read_bytes(), None)
        return Certified(x509.load_pem_x509_certificate(certificate.read_bytes()), secret)

    def write_kits(self, chain: Domain) -> list[JoinKit]:
        """A kit for each organisation, for this contract."""
        settings = self.settings
        made = [
            JoinKit(
                federation=settings.name,
                organisation=Name(organisation),
                superlink=settings.superlink,
                ca=(self.folder / "ca.pem").read_text(encoding="ascii"),
                coordinator=self.key().address,
                chain=chain,
                chain_url="" if settings.chain in ("embedded", "anvil") else settings.chain,
                base=settings.base,
                base_digest=self.base_digest,
                norm_bound=settings.norm_bound,
                product=f"foedus {version('foedus')}",
            )
            for organisation in settings.organisations
        ]
        for kit in made:
            path = self.kit_file(kit.organisation)
            write(path, kit.to_json())
            path.chmod(0o644)  # it is given away, and holds no secret
        return made

    @cached_property
    def base_digest(self) -> Digest:
        """The digest of the base."""
        return digest_of(find(self.settings.base))

    def kit_file(self, organisation: str) -> Path:
        """The kit of an organisation."""
        return self.folder / "kits" / f"{organisation}.json"

    def write_units(self) -> list[Path]:
        """Units, a compose file, manifests, and values of the Helm chart."""
        settings = self.settings
        values = {"user": "foedus", "port": settings.listen.rpartition(":")[2], "key": self.key_file}
        values |= {"hosts": json.dumps(settings.hosts)}
        program = Path(sys.executable).parent / "foedus"
        values |= {"folder": self.folder, "program": program} | watched_by(settings.metrics, COORDINATOR_METRICS)
        return write_templates("coordinator", self.folder, values)

    def admit(self, request: JoinRequest) -> JoinRequest:
        """Take a request in, once it holds, and let its node key be registered; one that is there may come again.

        Raises UsageError for an organisation that is not of this federation, IntegrityError or ForgeryError for a
        request that does not hold, or another one than was admitted.
        """
        if request.organisation not in self.settings.organisations:
            expected = ", ".join(self.settings.organisations)
            raise UsageError(f"request: expected one of {expected}, got one of {request.organisation!r}")
        kit = JoinKit.from_json(read(self.kit_file(request.organisation)))
        known = {other.organisation: other for other in self.admitted()}
        before = known.pop(request.organisation, request)
        if (before.address, before.node_key) != (request.address, request.node_key):
            raise IntegrityError(f"{request.organisation}: expected the request of {before.address}, got another one")
        if taken := [name for name, other in known.items() if other.address == request.address]:
            raise IntegrityError(f"{request.organisation}: expected an address of its own, got that of {taken[0]}")
        request.verified(kit)
        write(self.folder / "admitted" / f"{request.organisation}.json", request.to_json())
        write(self.folder / "nodes" / f"{request.organisation}.pub", request.node_key.encode() + b"\n")
        return request

    def admitted(self) -> list[JoinRequest]:
        """The requests that were admitted, in order of name."""
        return [JoinRequest.from_json(read(path)) for path in sorted((self.folder / "admitted").glob("*.json"))]

    def run_settings(self) -> RunSettings:
        """The settings of a run on this deployment; raises UsageError while nobody is admitted."""
        admitted, settings = self.admitted(), self.settings
        if not admitted:
            raise UsageError(f"{self.folder}: expected organisations, got none: foedus deploy admit REQUEST")
        decided: RunSettings = {
            "state": str(self.state),
            "base": settings.base,
            "chain": settings.chain,
            "members": ", ".join(request.address for request in admitted),
            "organisations": len(admitted),
            "require-registration": settings.require_registration,
            "norm-bound": settings.norm_bound,
            "coordinator-key": str(self.key_file),
        }
        # Half of those that a round asks in turn: machines of others are away at times, and a round goes on without.
        return {"quorum": math.ceil(len(admitted) / 4), "grace": _GRACE} | settings.run | decided
