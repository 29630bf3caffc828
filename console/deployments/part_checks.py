"""The parts of a deployment, each from its own folder: a node, a signer, a coordinator."""

import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path

import httpx
from cryptography import x509

from chain.joining import JoinKit
from chain.membership import digest_of_node_key
from client_app.remote_key import RemoteKey
from client_app.signer import held_key
from console.backends.deployment import answers
from console.deployments.certificates import names_of
from console.deployments.chain_checks import LARGEST_SKEW, balance_check, chain_checks, registration_check
from console.deployments.checkup import Check, check
from console.deployments.federation_folder import FederationFolder
from console.deployments.machine_checks import machine_checks
from console.papers.base_signature import base_signature
from core import keys
from core.canonical import Address, parse_json
from core.deployment import CoordinatorSettings, NodeSettings, SignerSettings
from core.errors import FormatError
from core.site_policy import SitePolicy
from core.storage.blobs import read
from llm.bases import digest_of, find
from llm.data import read_folder

FEWEST_DAYS = 30
_PATIENCE_SECONDS = 5.0


def checks_of(folder: Path) -> Iterator[Check]:
    """Everything about a folder of `foedus deploy init` or `foedus join`, or one of its parts."""
    if (folder / "coordinator.toml").is_file():
        yield from coordinator_checks(folder)
    for part in (folder, folder / "node"):
        if (part / "node.toml").is_file():
            yield from node_checks(NodeSettings.read(part))
    for part in (folder, folder / "signer"):
        if (part / "signer.toml").is_file():
            yield from signer_checks(SignerSettings.read(part))


def node_checks(settings: NodeSettings) -> Iterator[Check]:
    """A node: its machine, its key, its data and base, its coordinator, and its chain."""
    host = settings.superlink.rpartition(":")[0].strip("[]")
    yield from machine_checks(settings.state, host)
    yield check("key", "a signer that answers, or a key file", "start `foedus signer`, or mend key-file and its mode",
                lambda: (True, _address(settings)))  # fmt: skip
    if settings.node_key:
        key = settings.node_key
        advice = f"foedus join makes one; chmod 600 {key}"
        yield check("node key", "a key that this user alone reads", advice, lambda: _private_key(key))
    yield check("data", f"records of {settings.organisation}", f"put {settings.organisation}.jsonl into the folder",
                lambda: own_data(settings))  # fmt: skip
    yield check("base", "one that the site's policy allows", "take the base that the kit names",
                lambda: own_base(settings))  # fmt: skip
    yield policy_check(settings.policy)
    yield check("health", "none of its own problems", "read its log", lambda: health(settings.metrics))
    if settings.root_certificates:
        yield from coordinator_seen(settings.superlink, settings.root_certificates)
    if settings.chain_url:
        yield from chain_of(settings)
    else:
        # No fault: kits of a chain on the coordinator's machine have none, and manifests say so.
        yield check("chain", "chain-url, an endpoint of your own choosing", "", lambda: (True, "none: it is trusted"))


def signer_checks(settings: SignerSettings) -> Iterator[Check]:
    """A signer: its key, its memory, and whether it answers."""
    yield replace(policy_check(settings.policy), name="signer's site policy")
    yield check("signer's key", "a key that can be used", "mend key, passphrase or their modes",
                lambda: (True, held_key(settings).address))  # fmt: skip
    yield check("signer", f"an answer on {settings.socket}", f"start `foedus signer {settings.folder}`",
                lambda: (True, RemoteKey(settings.socket).address))  # fmt: skip


def coordinator_checks(folder: Path) -> Iterator[Check]:
    """A coordinator: its machine, certificate and key, its ports, its organisations, and its chain."""
    settings = CoordinatorSettings.read(folder)
    yield from machine_checks(settings.state)
    yield check("nginx", "a program", "apt-get install nginx-light, or name it in coordinator.toml",
                lambda: (bool(shutil.which(settings.nginx)), shutil.which(settings.nginx)))  # fmt: skip
    yield check("certificate's key", "a file that this user alone reads", f"chmod 600 {settings.private_key}",
                lambda: _private_key(settings.private_key))  # fmt: skip
    yield check("health", "none of its own problems", "read its log", lambda: health(settings.metrics))
    host, _, port = settings.listen.rpartition(":")
    for name, address, number in (
        ("port for nodes", host, int(port)),
        ("control port", "127.0.0.1", settings.control_port),
    ):
        taken = partial(free_port_or_own, address, number, settings)
        yield check(name, f"{number} free, or foedus's own", f"end the other program on port {number}", taken)
    if not (folder / "federation.toml").is_file():
        return
    found = FederationFolder(folder)
    hosts = found.settings.hosts
    yield from _certificate(settings.certificate.read_bytes(), hosts, "foedus deploy init federation.toml")
    yield check("key", "a key file that this user alone reads", f"mend {found.key_file} or its mode",
                lambda: (True, found.key().address))  # fmt: skip
    yield check("organisations", f"{len(found.settings.organisations)} admitted", "foedus deploy admit REQUEST",
                lambda: organisations(found))  # fmt: skip
    kit = found.kit_file(found.settings.organisations[0])
    if "://" in found.settings.chain and kit.exists():
        contract = JoinKit.from_json(read(kit)).chain.contract
        yield from chain_checks(found.settings.chain, contract)
        yield balance_check(found.settings.chain, contract, found.key().address)


def _address(settings: NodeSettings) -> Address:
    if settings.signer:
        return RemoteKey(settings.signer).address
    assert settings.key_file is not None  # noqa: S101 - one of the two is given
    return keys.read(settings.key_file, settings.passphrase).address


def _private_key(path: Path) -> tuple[bool, str]:
    path.read_bytes()
    found = path.stat()
    return keys.is_own(found), f"mode {found.st_mode & 0o777:04o}"


def own_data(settings: NodeSettings) -> tuple[bool, str]:
    """How many records there are."""
    found = {str(data.name): data for data in read_folder(settings.data).organisations}
    own = found.get(settings.organisation)
    if own is None:
        return False, f"{', '.join(found) or 'nothing'} in {settings.data}"
    counted = f"{len(own.train)} records to train on, {len(own.dev)} held out; digest {own.digest}"
    return bool(own.train), counted


def health(metrics: str) -> tuple[bool, str]:
    """What a part that runs says of itself, where it is watched."""
    if not metrics:
        return True, "not watched: metrics names no address"
    try:
        answer = httpx.get(f"http://{metrics}/health", timeout=_PATIENCE_SECONDS)
        problems = parse_json(answer.content)["problems"]
    except httpx.HTTPError:
        return True, "not started"
    except (FormatError, KeyError, TypeError):
        return False, f"another program on {metrics}"
    return not problems, "; ".join(map(str, problems)) or "well"


def own_base(settings: NodeSettings) -> tuple[bool, str]:
    """The digest of the base, against those of the site's policy, and whether it has a signature."""
    digest, allowed = digest_of(find(settings.base)), SitePolicy.at(settings.policy).bases
    signature = base_signature(settings.base, digest, None)
    return not allowed or bool({digest, settings.base} & set(allowed)), f"{digest}, {signature}"


def policy_check(path: Path | None) -> Check:
    """A part's copy of the site's policy, and whether it holds updates."""
    return check("site policy", "a policy.toml that can be read, or none", "mend the setting that it names",
                 lambda: (True, f"approve {SitePolicy.at(path).approve}" if path else "none"))  # fmt: skip


def coordinator_seen(superlink: str, ca: Path) -> Iterator[Check]:
    """The coordinator from outside: its certificate, its version, its clock."""
    host, _, port = superlink.rpartition(":")
    host = host.strip("[]")

    def certificate() -> bytes:
        context = ssl.create_default_context(cafile=ca)
        plain = socket.create_connection((host, int(port)), _PATIENCE_SECONDS)
        with plain, context.wrap_socket(plain, server_hostname=host) as secure:
            return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"").encode()

    try:
        pem = certificate()
    except (OSError, ValueError) as error:
        advice = "ask whether `foedus coordinator` runs, and whether ca.pem is the kit's; look at firewalls"
        yield Check("coordinator", False, str(error), f"TLS with {superlink}", advice)
        return
    yield from _certificate(pem, (host,), "ask the coordinator for a new certificate")

    @cache
    def answer() -> tuple[httpx.Response, float]:
        """The answer, and the time when it came."""
        context = ssl.create_default_context(cafile=ca)
        return httpx.get(f"https://{superlink}/foedus", verify=context, timeout=_PATIENCE_SECONDS), time.time()

    def product() -> tuple[bool, str]:
        found, _ = answer()
        theirs = str(parse_json(found.content)["product"]) if found.is_success else f"status {found.status_code}"
        return theirs == _product(), theirs

    def skew() -> tuple[bool, str]:
        found, at = answer()
        late = at - parsedate_to_datetime(found.headers["date"]).timestamp()
        return abs(late) < LARGEST_SKEW, f"{late:+.0f} s"

    yield check("version", _product(), "install the coordinator's version: nodes refuse another's code",
                partial(asked, product))  # fmt: skip
    yield check("clock", f"within {LARGEST_SKEW:g} s of the coordinator's", "set the clock (NTP): at 300 s a node ends",
                partial(asked, skew))  # fmt: skip


def asked(question: Callable[[], tuple[bool, str]]) -> tuple[bool, str]:
    """A question to the coordinator; one without an answer raises OSError, which a check reports."""
    try:
        return question()
    except (httpx.HTTPError, KeyError, TypeError) as error:
        raise OSError(f"no answer: {error}") from error


def _certificate(pem: bytes, hosts: tuple[str, ...], advice: str) -> Iterator[Check]:
    found = x509.load_pem_x509_certificate(pem)
    days = (found.not_valid_after_utc - datetime.now(UTC)).days
    yield check("certificate's days", f"{FEWEST_DAYS} or more", advice, lambda: (days >= FEWEST_DAYS, days))
    names = names_of(found)
    yield check(
        "certificate's names", ", ".join(hosts), advice, lambda: (set(hosts) <= names, ", ".join(sorted(names)))
    )


def chain_of(settings: NodeSettings) -> Iterator[Check]:
    """The chain that a node chose, where its settings pin a contract."""
    if not settings.pin_contract:
        return
    contract = Address(settings.pin_contract)
    yield from chain_checks(settings.chain_url, contract)
    key = settings.node_key and digest_of_node_key(settings.node_key.with_name(f"{settings.node_key.name}.pub"))
    yield registration_check(settings.chain_url, contract, lambda: _address(settings), key or None)


def free_port_or_own(address: str, port: int, settings: CoordinatorSettings) -> tuple[bool, str]:
    """Whether a port is free, or this coordinator's."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.strip("[]"), port))
        except OSError:
            own = answers(settings.control_port, settings.state / "link" / "certificate.pem")
            return own, "foedus coordinator" if own else "another program"
    return True, "free"


def organisations(found: FederationFolder) -> tuple[bool, str]:
    """Who is admitted, and whose version differs."""
    admitted = found.admitted()
    others = sorted(
        f"{request.organisation} ({request.product})" for request in admitted if request.product != _product()
    )
    shown = ", ".join(request.organisation for request in admitted) or "none"
    ok = len(admitted) == len(found.settings.organisations) and not others
    return ok, f"{shown}{'; of another version: ' + ', '.join(others) if others else ''}"


def _product() -> str:
    return f"foedus {version('foedus')}"
