"""The settings files of a deployment, each in the folder of its part: node.toml, signer.toml, coordinator.toml.

From a fourth, federation.toml, `foedus deploy init` writes the coordinator's folder. A name is written with dashes. A
path that is not absolute lies in the folder. Nothing here comes from a message or a run: what an organisation's node
reads, loads and signs is decided on its own machine.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Self, get_args
from urllib.parse import urlsplit

from eth_utils.address import to_checksum_address

from core.canonical import Address, Digest, address, raw
from core.config import LAG_POLICIES, RunConfig
from core.errors import ConfigError, FormatError
from core.escape import redacted
from core.keys import Domain
from core.names import Name, check_distinct, organisation_name
from core.ranges import fault, number

RunSettings = dict[str, bool | int | float | str]
"""Settings of a run under their public names (core/config.py)."""


MOST_DRAWS = 8
"""Seeds that a coordinator may have drawn of which no training came: members that leave during a founding cost one."""


COORDINATOR_METRICS, NODE_METRICS = "127.0.0.1:9464", "127.0.0.1:9465"
"""Where `foedus deploy init` and `foedus join` have the two serve their metrics."""


@dataclass(frozen=True)
class FolderSettings:
    """What a folder's settings file says; the docstring under a field is its documentation."""

    file: ClassVar[str]
    """The name of the file."""

    folder: Path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """From a folder's file; raises ConfigError when it is missing, or has an unknown, missing or wrong setting."""
        return cls.read_file(folder.expanduser().absolute() / cls.file)

    @classmethod
    def read_file(cls, path: Path) -> Self:
        """From a file of any name; raises ConfigError as `read` does."""
        path = path.expanduser().absolute()
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: expected a settings file, got {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: expected TOML in UTF-8, got {error}") from error
        known = {item.name.replace("_", "-"): item for item in fields(cls) if item.name != "folder"}
        for name in given.keys() - known.keys():
            raise ConfigError(f"{path}: expected settings among {', '.join(known)}, got {name!r}")
        values = {}
        for name, item in known.items():
            if name in given:
                values[item.name] = _value(f"{path}: {name}", item.type, given[name], path.parent)
            elif item.default is MISSING and item.default_factory is MISSING:
                raise ConfigError(f"{path}: expected a setting {name}, got none")
            elif isinstance(item.default, Path):
                values[item.name] = path.parent / item.default
        try:
            return cls(path.parent, **values)
        except FormatError as error:
            raise ConfigError(f"{path}: {error}") from error


@dataclass(frozen=True)
class NodeSettings(FolderSettings):
    """node.toml: an organisation's node."""

    file = "node.toml"

    organisation: str
    """The organisation that this node speaks for."""
    superlink: str
    """HOST:PORT of the coordinator."""
    data: Path
    """A folder of data sets; only this organisation's is read."""
    signer: Path | None = None
    """The socket of its signer; else `key-file`."""
    key_file: Path | None = None
    """Its key in this process, a key file or a keystore, where there is no signer."""
    passphrase: Path | None = None
    """The file of a keystore's passphrase."""
    root_certificates: Path | None = None
    """The CA of the coordinator's certificate; without it the connection has no TLS, which is for trying things out."""
    node_key: Path | None = None
    """The private key that admits this node (`ssh-keygen -t ecdsa -b 384`)."""
    state: Path = Path("state")
    """What it remembers: witness, erased records, its agent's tables."""
    base: str = RunConfig.base
    """The base model that it loads, whatever a message names: smollm2, foedus-tiny, an absolute path, or a Hub name."""
    pin_coordinator: str = ""
    """The only coordinator that it registers with; needed with a key-file, as a signer's settings name one. As the next
    two, not asked for without it."""
    pin_contract: str = ""
    """The public contract."""
    pin_members: str = ""
    """The members' addresses, comma-separated, and no others."""
    policy: Path | None = None
    """What the site allows, policy.toml (core/site_policy.py); without it, everything."""
    most_draws: int | None = None
    """Seeds that its coordinator may have drawn of which no training came, 8 without it; else its signer's."""
    metrics: str = ""
    """ADDRESS:PORT for `/metrics` and `/health`; they are not served without it."""
    idle: float = 600.0
    """Seconds without a message after which the memory of the base is given back; the next that needs it loads it."""
    chain_url: str = ""
    """An RPC endpoint of its own choosing, to check the coordinator against."""
    chain_lag: int | None = None
    """Rounds that anchors may be late; the run's without it."""
    chain_lag_policy: str | None = None
    """flag or abstain; the run's without it."""
    step_price: float | None = None
    """The agent's own price of a step; the run's without it, as the next two."""
    traffic_price: float | None = None
    """Its price of a MiB."""
    budget: float | None = None
    """What it will spend on a run."""

    def __post_init__(self) -> None:
        """Raises ConfigError unless there is one source of the key, and one that the connection may use."""
        if (self.signer is None) == (self.key_file is None):
            got = "neither" if self.signer is None else "both"
            raise ConfigError(f"{self.folder}: expected signer or key-file, got {got}")
        # A coordinator's question can be relayed from another federation: whoever signs must know whose it answers.
        if self.key_file and not self.pin_coordinator:
            raise ConfigError(f"{self.folder}: expected pin-coordinator with a key-file, as a signer has it, got none")
        if self.node_key and not self.root_certificates:
            raise ConfigError(f"{self.folder}: expected root-certificates with a node-key, got none")
        check_above_zero("idle", self.idle)
        check_metrics(self.metrics)
        if self.most_draws is not None:
            _check_draws(self.most_draws)
        for name in ("chain_lag", "step_price", "traffic_price", "budget"):
            value = getattr(self, name)
            if value is not None and (wrong := fault(name, value)):
                raise ConfigError(f"{name.replace('_', '-')}: {wrong}")
        if self.chain_lag_policy not in (None, *LAG_POLICIES):
            raise ConfigError(f"chain-lag-policy: expected {' or '.join(LAG_POLICIES)}, got {self.chain_lag_policy!r}")

    @property
    def activity(self) -> Path:
        """The file in which the worker says what it does."""
        return self.state / "activity.json"

    @property
    def worker_secret(self) -> Path:
        """The file of the secret that SuperNode and worker share: who has it is given the node's tasks."""
        return self.state / "worker.secret"

    def node_config(self) -> dict[str, str | int | float]:
        """The settings that the ClientApp reads, under their names."""
        served = {name: getattr(self, name) for name in _NODE_CONFIG}
        # The app names the public half in its registration, which ssh-keygen puts beside the private one.
        served["node_key"] = self.node_key.with_name(f"{self.node_key.name}.pub") if self.node_key else None
        return {
            name.replace("_", "-"): str(value) if isinstance(value, Path) else value
            for name, value in served.items()
            if value is not None and value != ""
        }


_NODE_CONFIG = (
    "organisation", "superlink", "data", "signer", "key_file", "passphrase", "state", "base", "pin_coordinator",
    "pin_contract", "pin_members", "policy", "most_draws", "chain_url",
    "chain_lag", "chain_lag_policy", "step_price", "traffic_price", "budget",
)  # fmt: skip


@dataclass(frozen=True)
class SignerSettings(FolderSettings):
    """signer.toml: a process that holds an organisation's key and signs for one coordinator, chain and contract."""

    file = "signer.toml"

    coordinator: Address
    """The coordinator's address."""
    chain_id: int
    """The public chain's id."""
    contract: Address
    """The public contract's address."""
    key: Path = Path("key")
    """A key file of mode 0600, or a keystore."""
    passphrase: Path | None = None
    """The file of a keystore's passphrase, or of a token's PIN."""
    pkcs11_module: Path | None = None
    """The library of a hardware token that holds the key; then `key` is not read."""
    pkcs11_label: str = "foedus"
    """The token's label."""
    pkcs11_key: str = "own"
    """The label of its key pair, and of the secret key for its salts."""
    federations: tuple[Digest, ...] = ()
    """The federations, by genesis digest; without any, each of this coordinator on this contract."""
    most_draws: int = MOST_DRAWS
    """Seeds that the coordinator may have drawn of which no training came."""
    socket: Path = Path("signer.sock")
    """The Unix socket that it answers on."""
    policy: Path | None = None
    """What the site allows, policy.toml; a file that the node's user cannot write."""
    users: tuple[str, ...] = ()
    """Further users of the machine that may ask, by name: the node's. Its own may always."""
    state: Path = Path("state")
    """What it was shown and has signed."""

    def __post_init__(self) -> None:
        """Write addresses as a genesis has them; raises FormatError for a value that is none."""
        for name in ("coordinator", "contract"):
            # The spelling of an address is no part of it, and the only ones to compare with have this one.
            object.__setattr__(self, name, Address(to_checksum_address(address(getattr(self, name)))))
        for federation in self.federations:
            raw(federation)
        _check_draws(self.most_draws)
        if not 0 <= self.chain_id < 2**53:
            raise FormatError(f"chain-id: expected 0 to 2^53 − 1, got {number(self.chain_id)}")

    @property
    def domain(self) -> Domain:
        """The only EIP-712 domain that it signs for."""
        return Domain(self.chain_id, self.contract)


@dataclass(frozen=True)
class CoordinatorSettings(FolderSettings):
    """coordinator.toml: a SuperLink on the loopback, and nginx in front of it."""

    file = "coordinator.toml"

    certificate: Path
    """The certificate that nodes see, with its chain."""
    private_key: Path
    """Its private key."""
    listen: str = "0.0.0.0:9092"
    """ADDRESS:PORT for the nodes."""
    control_port: int = 9093
    """The SuperLink's port on the loopback: Control, Fleet and Runtime."""
    nodes: Path = Path("nodes")
    """A folder with the public keys of the nodes that are admitted, NAME.pub."""
    state: Path = Path("state")
    """The SuperLink's database, its own certificates, and logs."""
    metrics: str = ""
    """ADDRESS:PORT for `/metrics` and `/health`; they are not served without it."""
    nginx: str = "nginx"
    """The program."""

    def __post_init__(self) -> None:
        """Raises ConfigError for a port that is none."""
        check_listen(self.listen, self.control_port)
        check_metrics(self.metrics)


@dataclass(frozen=True)
class FederationSettings(FolderSettings):
    """federation.toml: what a coordinator decides about a deployment; everything else follows from it."""

    file = "federation.toml"

    name: Name
    """The federation's name."""
    hosts: tuple[str, ...]
    """Names and IP addresses of the coordinator's machine, for its certificate; nodes reach it by the first."""
    organisations: tuple[str, ...]
    """The organisations that may join, by name."""
    base: str = RunConfig.base
    """The base model; its digest is pinned in every kit."""
    chain: str = "embedded"
    """The public chain: an RPC URL that every organisation reaches; embedded or anvil where all is on one machine."""
    require_registration: bool = False
    """Whether organisations are registered with the contract, too."""
    norm_bound: float = 100.0
    """The largest norm of an update that is admitted."""
    listen: str = "0.0.0.0:9092"
    """ADDRESS:PORT for the nodes."""
    control_port: int = 9093
    """The SuperLink's port on the loopback."""
    metrics: str = COORDINATOR_METRICS
    """ADDRESS:PORT for the coordinator's `/metrics` and `/health`; "" serves none."""
    key: Path | None = None
    """An existing key file of the coordinator's; without it one is made."""
    certificate: Path | None = None
    """A certificate with its chain, of the operator's own; without it one is made, and the CA for it."""
    private_key: Path | None = None
    """Its private key."""
    ca: Path | None = None
    """The certificate of the CA that signed it."""
    run: RunSettings = field(default_factory=dict)
    """Settings of every run, as in `conf/`."""

    def __post_init__(self) -> None:
        """Raises ConfigError or FormatError for what cannot be deployed, before anything is written."""
        check_distinct(map(organisation_name, (self.name, *self.organisations)))
        for name, listed in (("hosts", self.hosts), ("organisations", self.organisations)):
            if not listed:
                raise ConfigError(f"{name}: expected at least one, got none")
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ConfigError(f"hosts: expected names or IP addresses, got {host!r}")
        check_listen(self.listen, self.control_port)
        check_metrics(self.metrics)
        if wrong := fault("norm_bound", self.norm_bound):
            raise ConfigError(f"norm-bound: {wrong}")
        own = (self.certificate, self.private_key, self.ca)
        if any(own) and not all(own):
            raise ConfigError("expected certificate, private-key and ca together, got some of them")
        # A chain that only this machine reaches is one that no organisation can check its coordinator against.
        if is_local(self.chain) and (elsewhere := [host for host in self.hosts if not is_local(host)]):
            raise ConfigError(
                "chain: expected the RPC URL of one that organisations reach from machines of their own, since the "
                f"coordinator's is {elsewhere[0]}, got {redacted(self.chain)}"
            )
        if decided := sorted(set(self.run) & DECIDED):
            raise ConfigError(f"[run]: expected settings that this file does not decide elsewhere, got {decided[0]!r}")
        _ = RunConfig.from_flat(self.run)

    @property
    def superlink(self) -> str:
        """HOST:PORT by which nodes reach the coordinator."""
        host = f"[{self.hosts[0]}]" if ":" in self.hosts[0] else self.hosts[0]
        return f"{host}:{self.listen.rpartition(':')[2]}"


_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:.]{2,45}")
DECIDED = frozenset(
    ("mode", "run", "resume", "state", "base", "chain", "members", "organisations", "require-registration",
     "norm-bound", "coordinator-key")
)  # fmt: skip
"""Settings of a run that follow from federation.toml and from who was admitted."""


def is_local(place: str) -> bool:
    """Whether a host, a URL, or a chain by its name is reached from its own machine alone; raises ConfigError."""
    if place in ("embedded", "anvil", "localhost"):
        return True
    try:
        host = urlsplit(place).hostname or place
    except ValueError as error:  # brackets that are no IPv6 address
        raise ConfigError(f"expected a host or a URL, got {redacted(place)!r}") from error
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def check_above_zero(name: str, bound: float | None) -> None:
    """Raise ConfigError for a bound that is none."""
    # Compared with NaN nothing is too large, and no bound at all would be read as one that is kept.
    if bound is not None and not 0 < bound < math.inf:
        raise ConfigError(f"{name}: expected a number above 0, got {bound}")


def check_listen(listen: str, control_port: int) -> None:
    """Raise ConfigError for an address or a port that is none, or one port for both."""
    check_address("listen", listen)
    if not 0 < control_port < 2**16:
        raise ConfigError(f"control-port: expected 1 to 65535, got {control_port}")
    if listen.endswith(f":{control_port}"):
        raise ConfigError(f"control-port: expected another port than that of listen, got {control_port}")


def check_address(name: str, text: str) -> None:
    """Raise ConfigError for a setting that is no ADDRESS:PORT."""
    host, _, port = text.rpartition(":")
    # Bounded first: Python refuses to read an integer of thousands of digits, which a kit from elsewhere may have.
    numbered = port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 2**16
    # It becomes a line of nginx's settings, of a unit and of manifests.
    if not numbered or not _HOST.fullmatch(host.removeprefix("[").removesuffix("]")):
        raise ConfigError(f"{name}: expected ADDRESS:PORT, got {text!r}")


def check_metrics(address: str) -> None:
    """Raise ConfigError for a setting that is neither ADDRESS:PORT nor "", where no metrics are served."""
    if address:
        check_address("metrics", address)


def _check_draws(most: int) -> None:
    if not 0 < most < 2**31:
        raise ConfigError(f"most-draws: expected at least 1, got {number(most)}")


def _value(where: str, kind: Any, value: Any, folder: Path) -> Any:
    """A value of a file as its field's type; raises ConfigError for another type."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if "\0" in str(value):  # no path has one, and no name
        raise ConfigError(f"{where}: expected text without NUL, got {value!r}")
    if Path in kinds and isinstance(value, str) and value:
        return folder / Path(value).expanduser()
    if kinds[0] == tuple[str, ...] or kinds[0] == tuple[Digest, ...]:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
    # True is an int to Python, and nobody's port.
    elif type(value) in kinds or type(value) is _PLAIN.get(kinds[0]) or (float in kinds and type(value) is int):
        return value
    raise ConfigError(f"{where}: expected {_NAMES.get(kinds[0], 'text')}, got {value!r}")


_PLAIN: Mapping[Any, type] = {Address: str, Name: str, RunSettings: dict}
"""What TOML has for a type of ours."""
_NAMES: Mapping[Any, str] = {
    Path: "a path", int: "a whole number", float: "a number", tuple[str, ...]: "a list of text",
    tuple[Digest, ...]: "a list of text", RunSettings: "a table of settings",
}  # fmt: skip
