"""Hosting: the organisations that a node speaks for, each with its key and its data.

A deployed node hosts one organisation and says so in its node-config: ``organisation, data``, its key (``signer``, or
``key-file`` and ``passphrase``), its ``base``, and where it checks its coordinator (client_app/oversight.py). No path
and no model that only a run or a message names is read there.

In a simulation node i of N hosts every organisation j with j mod N = i, so that any number of nodes will do, and keys
are derived from the federation's seed and the organisation's name: they are public, and marked as such.
"""

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flwr.app import Context, UserConfig

from chain.membership import digest_of_node_key
from client_app.agency import Agency
from client_app.agreement import Agreement, RemoteAgreement
from client_app.approvals import Approvals, HeldUpdates
from client_app.erased_records import ErasedRecords
from client_app.feedback import Feedback
from client_app.oversight import Oversight
from client_app.remote_key import RemoteKey
from core import keys, seeds
from core.canonical import Address
from core.config import RunConfig
from core.errors import ConfigError, ObjectionError, UsageError
from core.genesis import Genesis
from core.keys import Key
from core.names import listed
from core.site_policy import SitePolicy, SiteTerms
from core.update import Asked, Organisation, Registration, UpdateManifest
from llm.data import read_data
from llm.records import OrganisationData, Record


@dataclass(frozen=True)
class Host:
    """One organisation on its node: its key and its data, which never leave it."""

    key: Key | RemoteKey
    data: OrganisationData

    @property
    def organisation(self) -> Organisation:
        """The organisation as it registers now."""
        return Organisation(self.key.address, self.data.name, len(self.data.train), self.key.derived)


@dataclass(frozen=True)
class Node:
    """The organisations hosted here, and how many this node knows of (0 in a deployment)."""

    hosts: dict[Address, Host]
    known: int
    oversight: Oversight
    agency: Agency
    base: str
    """The base model that it loads, whatever a message calls it; the genesis has its digest."""
    policy_file: Path | None = None

    def check_site(self, host: Host, terms: SiteTerms | None = None) -> SitePolicy:
        """The site's policy as its file says now, once it allows an organisation's data set, and a federation's terms.

        Raises PolicyError when it does not, ConfigError for a file that is none.
        """
        policy = SitePolicy.at(self.policy_file)
        policy.check_data(host.data.name, lambda: host.data.digest)
        if terms:
            policy.check_terms(terms)
        return policy

    def held_updates(self, host: Host, genesis: Genesis) -> HeldUpdates:
        """The updates of an organisation that this node keeps while they are held."""
        return HeldUpdates(self.oversight.state.held(genesis.digest, host.key.address))

    def check_approved(self, host: Host, manifest: UpdateManifest) -> None:
        """Check that an update may leave, where this process holds the key; else its signer checks that.

        Raises as `Approvals.check`, and PolicyError for a signer that would let go what the node's policy holds.
        """
        approve = SitePolicy.at(self.policy_file).approve
        if not isinstance(host.key, RemoteKey):
            Approvals(self.oversight.state.approvals(host.key.address)).check(manifest, approve)
        elif approve != "never":
            host.key.check_approve(approve)

    def host(self, address: Address, genesis: Genesis | None = None) -> Host:
        """The organisation with this address, in a federation by the key that signs for it now.

        Raises UsageError when it is not hosted here.
        """
        own = genesis.signing(address) if genesis else address
        if own not in self.hosts:
            raise UsageError(f"expected an organisation hosted here ({listed(self.hosts)}), got {own}")
        host = self.hosts[own]
        return host if own == address else replace(host, key=replace(host.key, member=address))

    def registrations(self, asked: Asked, own: UserConfig) -> dict[Address, Registration]:
        """The registrations of the organisations hosted here with a federation, before anybody signs them."""
        named: dict[str, Any] = {"product": f"foedus {version('foedus')}"}
        if node_key := str(own.get("node-key", "")):
            named["node_key"] = digest_of_node_key(Path(node_key))
        return {who: Registration(host.organisation, **asdict(asked), **named) for who, host in self.hosts.items()}

    def agreement(self, host: Host) -> Agreement | RemoteAgreement:
        """What an organisation hosted here, or its signer, remembers of the federations that it agreed to found."""
        key, state = host.key, self.oversight.state
        if isinstance(key, RemoteKey):
            return RemoteAgreement(state.agreed_genesis(), key)
        return Agreement.of(state, key, self.oversight.most_draws)

    def erased_records(self, host: Host, genesis: Genesis) -> ErasedRecords:
        """The note of the records that an organisation has erased from a federation."""
        return ErasedRecords(self.oversight.state.forgotten(genesis.digest, host.key.address))

    def feedback(self, host: Host, genesis: Genesis, lane: int) -> Feedback:
        """What compression has left out of an organisation's updates to a lane."""
        return Feedback(self.oversight.state.feedback(genesis.digest, host.key.address, lane), genesis.wire)

    def privacy(self, host: Host, genesis: Genesis) -> Path:
        """The file of an organisation's account of its privacy budget in a federation."""
        return self.oversight.state.privacy(genesis.digest, host.key.address)

    def member(self, host: Host, genesis: Genesis) -> Organisation:
        """The organisation as it registered: with the records erased since, whether its data still hold them or not.

        Raises FormatError when its note of them is damaged.
        """
        erased = self.erased_records(host, genesis)
        examples = len(erased.left(host.data.train)) + sum(erased.counts().values())
        return replace(host.organisation, examples=examples)

    def records(self, host: Host, genesis: Genesis, lane: int) -> tuple[Record, ...]:
        """The records that an organisation trains on in a lane: its shard of those not erased, in the data's order.

        Raises FormatError when its note of erased records is damaged, IntegrityError for another's lane.
        """
        left = self.erased_records(host, genesis).left(host.data.train)
        lanes = genesis.lanes_of(host.key.address)
        if lane not in lanes:
            raise ObjectionError(f"expected lane {' or '.join(map(str, lanes))}, got {lane}")
        if len(lanes) == 1:
            return left
        return tuple(r for r in left if seeds.shard_of(r.digest, len(lanes)) == lanes.index(lane))

    @classmethod
    @lru_cache(maxsize=64)
    def simulated(cls, config: RunConfig, index: int, nodes: int) -> "Node":
        """Node `index` of a simulation; the data of all are read once per process."""
        organisations = _simulated_data(config)
        hosts = [Host(keys.derive(config.seed, data.name), data) for data in organisations[index::nodes]]
        oversight = Oversight.simulated(config)
        agency = Agency.of(config, oversight.state, {})
        return cls({host.key.address: host for host in hosts}, len(organisations), oversight, agency, config.base)

    @classmethod
    @lru_cache(maxsize=4)
    def deployed(cls, oversight: Oversight, agency: Agency, places: "Places") -> "Node":
        """The node of one organisation; its data are read once per process. Raises UsageError without its data."""
        host = Host(places.key(), places.records())
        policy = Path(places.policy) if places.policy else None
        return cls({host.key.address: host}, 0, oversight, agency, places.base, policy)


@lru_cache(maxsize=1)
def _simulated_data(config: RunConfig) -> tuple[OrganisationData, ...]:
    """The organisations of a simulation, of which a process hosts those of several nodes."""
    return read_data(config).organisations


@dataclass(frozen=True)
class Places:
    """What a deployed node says of itself."""

    organisation: str
    data: str
    base: str
    signer: str
    key_file: str
    passphrase: str
    policy: str

    @classmethod
    def of(cls, own: UserConfig) -> "Places":
        """From a node-config; raises ConfigError without an organisation, data, or a key."""
        named = ("organisation", "data", "signer", "key-file", "passphrase", "policy")
        given = {name: own.get(name, "") for name in named}
        given["base"] = own.get("base", RunConfig.base)
        for name, value in given.items():
            needed = name in ("organisation", "data") or (name == "key-file" and not given["signer"])
            if not isinstance(value, str) or (needed and not value):
                raise ConfigError(f"node-config has no {name}: give --node-config 'organisation=… data=… key-file=…'")
        return cls(**{name.replace("-", "_"): str(value) for name, value in given.items()})

    def records(self) -> OrganisationData:
        """Its data; raises UsageError where they have nothing of it."""
        organisations = read_data(RunConfig(data=self.data)).organisations
        organisation = next((o for o in organisations if o.name == self.organisation), None)
        if organisation is None:
            raise UsageError(f"no data of organisation {self.organisation!r} in {self.data}")
        return organisation

    def key(self) -> Key | RemoteKey:
        """Its key, or the signer that holds it."""
        if self.signer:
            return RemoteKey(Path(self.signer))
        return keys.read(Path(self.key_file), Path(self.passphrase) if self.passphrase else None)


def node_of(context: Context) -> Node:
    """The node that a ClientApp's context describes; raises ConfigError for a node-config without its settings."""
    config, own = RunConfig.from_flat(context.run_config), context.node_config
    if "partition-id" in own:
        return Node.simulated(config, int(own["partition-id"]), int(own["num-partitions"]))
    oversight = Oversight.deployed(config, own)
    return Node.deployed(oversight, Agency.of(config, oversight.state, own), Places.of(own))
