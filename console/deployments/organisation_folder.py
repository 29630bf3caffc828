"""An organisation's folder: what `foedus join` makes from a kit, on the organisation's own machine.

DIR/signer/          signer.toml, policy.toml, and the organisation's key; for the signer's user alone
DIR/node/            node.toml, policy.toml, the node's key pair, the CA of the coordinator; for the node's user alone
DIR/socket/          where the signer answers
DIR/request.json     what goes back to the coordinator
DIR/systemd, DIR/compose.yaml   how the two are started
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chain.joining import JoinKit, JoinRequest
from chain.membership import digest_of_node_key, request_membership
from console.deployments.certificates import write_secret
from console.deployments.templates import watched_by, write_templates
from core import keys
from core.deployment import NODE_METRICS, check_address, check_metrics
from core.errors import UsageError

REQUEST_DAYS = 30
"""Days for which the contract takes a request."""


@dataclass(frozen=True)
class Choices:
    """What an organisation decides for itself: data, base, chain, its processes' users, where it is watched."""

    data: Path | None = None
    base: str = ""
    chain_url: str = ""
    node_user: str = ""
    signer_user: str = ""
    passphrase: Path | None = None
    metrics: str = NODE_METRICS


def join(kit: JoinKit, folder: Path, choices: Choices) -> JoinRequest:
    """Make keys and folders, and return the request.

    Raises UsageError when there is a folder already, or no such user or data, and as `check_kit`; then nothing is made.
    """
    if choices.data and not choices.data.is_dir():
        raise UsageError(f"--data: expected a folder with this organisation's data set, got {choices.data}")
    if folder.exists():
        raise UsageError(f"{folder}: expected no such folder yet, got one: its keys are not made again")
    check_kit(kit, choices)
    owners = {name: _owner(user) for name, user in (("node", choices.node_user), ("signer", choices.signer_user))}
    # Other users must pass through the folders above, which may be made here.
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.umask(0o077)
    try:
        request = make_folder(kit, folder, choices)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # what is half made would be in the way of another try
        raise
    for place, owner in (("node", "node"), ("signer", "signer"), ("socket", "signer")):
        _hand_over(folder / place, owners[owner])
    return request


def make_folder(kit: JoinKit, folder: Path, choices: Choices) -> JoinRequest:
    """Write everything into a folder that is not there yet, for this process's own user; returns the request."""
    for path in (folder, folder / "node", folder / "signer", folder / "socket"):
        path.mkdir()
    request = make_keys(kit, folder, choices)
    data = choices.data or folder / "node" / "data"
    if not choices.data:
        data.mkdir()
    write_settings(kit, folder, data, choices)
    users = {"node_user": choices.node_user or "foedus-node", "signer_user": choices.signer_user or "foedus-signer"}
    program = Path(sys.executable).parent / "foedus"
    places = {"folder": folder, "program": program, "data": data} | watched_by(choices.metrics, NODE_METRICS)
    ports = {
        "coordinator_port": kit.superlink.rpartition(":")[2],
        "chain_port": _port(choices.chain_url or kit.chain_url),
    }
    write_templates("organisation", folder, users | places | ports)
    (folder / "request.json").write_bytes(request.to_json())
    # The node must reach the socket, and whoever owns the folder is asked for neither key.
    folder.chmod(0o755)
    (folder / "socket").chmod(0o755)
    return request


def check_kit(kit: JoinKit, choices: Choices) -> None:
    """Raise UsageError or ConfigError for addresses or a CA that are none, before any key is made."""
    check_address("kit: superlink", kit.superlink)
    check_metrics(choices.metrics)
    try:
        x509.load_pem_x509_certificate(kit.ca.encode())
        _port(choices.chain_url or kit.chain_url)
    except ValueError as error:
        raise UsageError(f"kit: expected a CA as PEM and the URL of a chain, got {error}") from error


def notes(folder: Path, choices: Choices) -> list[str]:
    """What the users of node and signer could not do once they are started, a line each."""
    found = []
    for user in filter(None, (choices.node_user, choices.signer_user)):
        if not _may(user, [sys.executable, "-c", ""]):
            found.append(
                f"{user} cannot run {sys.executable}: install Foedus where it can, as in /opt, before you start"
            )
    if (user := choices.node_user) and choices.data and not _may(user, ["ls", str(choices.data)]):
        found.append(f"{user} cannot read {choices.data}: give it the right before you start {folder / 'node'}")
    return found


def make_keys(kit: JoinKit, folder: Path, choices: Choices) -> JoinRequest:
    """The organisation's key and its node's, and what both say to the coordinator."""
    passphrase = keys.read_passphrase(choices.passphrase) if choices.passphrase else ""
    own = keys.create(folder / "signer" / "key", passphrase)
    node = ec.generate_private_key(ec.SECP384R1())
    plain = serialization.NoEncryption()
    openssh = node.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, plain)
    write_secret(folder / "node" / "node", openssh)
    public = node.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / "node" / "node.pub").write_bytes(public + b"\n")
    deadline = int(time.time()) + REQUEST_DAYS * 86_400
    digest = digest_of_node_key(folder / "node" / "node.pub")
    membership = request_membership(own, kit.chain, digest, 0, deadline)
    product = f"foedus {version('foedus')}"
    return JoinRequest(kit.federation, kit.organisation, kit.digest, public.decode(), membership, product)


def write_settings(kit: JoinKit, folder: Path, data: Path, choices: Choices) -> None:
    """node.toml, which pins all that it can, signer.toml, and the site's policy, which has the kit's bounds."""
    (folder / "node" / "ca.pem").write_text(kit.ca, encoding="ascii")
    chosen = {"chain-url": url} if (url := choices.chain_url or kit.chain_url) else {}
    node: dict[str, object] = {
        "organisation": kit.organisation,
        "superlink": kit.superlink,
        "root-certificates": "ca.pem",
        "node-key": "node",
        "signer": "../socket/signer.sock",
        "data": str(data) if choices.data else "data",
        "base": choices.base or kit.base,
        "pin-coordinator": kit.coordinator,
        "pin-contract": kit.chain.contract,
        "policy": "policy.toml",
        "metrics": choices.metrics,
        **chosen,
    }
    signer: dict[str, object] = {
        "coordinator": kit.coordinator,
        "chain-id": kit.chain.chain_id,
        "contract": kit.chain.contract,
        "socket": "../socket/signer.sock",
        "policy": "policy.toml",
    }
    signer |= {"passphrase": str(choices.passphrase)} if choices.passphrase else {}
    signer |= {"users": [choices.node_user]} if choices.node_user else {}
    _write_toml(folder / "node" / "node.toml", node)
    _write_toml(folder / "signer" / "signer.toml", signer)
    # A copy each, since neither user may write the other's.
    for part in ("node", "signer"):
        write_templates("policy", folder / part, {"base": kit.base_digest, "norm": kit.norm_bound})


def _port(url: str) -> int:
    """The port of a chain's endpoint; that of HTTPS where there is no URL."""
    parts = urlsplit(url)
    return parts.port or (80 if parts.scheme == "http" else 443)


def _write_toml(path: Path, settings: Mapping[str, object]) -> None:
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()), encoding="utf-8")


def _owner(user: str) -> tuple[int, int] | None:
    """The ids of a user to whom a folder goes; raises UsageError when there is none, or no right to give it."""
    if not user:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise UsageError(f"expected a user of this machine, got {user!r}: useradd --system {user}") from error
    if os.geteuid() not in (0, entry.pw_uid):
        raise UsageError(f"expected to be root, to give a folder to {user}, got user {os.geteuid()}")
    return entry.pw_uid, entry.pw_gid


def _may(user: str, command: list[str]) -> bool:
    """Whether a command succeeds for a user."""
    entry = pwd.getpwnam(user)
    identity: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    as_it = identity if os.geteuid() == 0 else {}
    try:
        return not subprocess.run(command, **as_it, cwd="/", capture_output=True, check=False).returncode  # noqa: S603 - ours
    except PermissionError:
        return False


def _hand_over(folder: Path, owner: tuple[int, int] | None) -> None:
    if owner:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *owner, follow_symlinks=False)
