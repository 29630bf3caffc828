"""Oversight: the ledger and the memory with which an organisation checks its coordinator.

A deployed node sets them in its node-config: ``chain-url`` is the RPC endpoint, ``state`` the folder of its memory, and
``chain-lag`` and ``chain-lag-policy`` overrule the run's. Without chain-url it trusts the coordinator, and says so in
its log and in every manifest. In a simulation everyone reads the run's own chain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from logging import WARNING
from pathlib import Path

from flwr.app import UserConfig
from flwr.common.logger import log

from chain.observer import Observer, observe
from client_app.witness import Standing, Witness
from core.canonical import Address
from core.config import LAG_POLICIES, RunConfig
from core.deployment import MOST_DRAWS
from core.erasures import Attestation
from core.errors import ConfigError, ObjectionError
from core.genesis import Genesis
from core.keys import Domain
from core.ledger import LedgerView
from core.messages.training import Task
from core.storage.state_folder import State


@dataclass(frozen=True)
class Oversight:
    """A node's way to check: `chain` is embedded, anvil or a URL, "" for none; `lag` in rounds, `most_draws` seeds."""

    chain: str
    state: State
    lag: int
    policy: str
    most_draws: int = MOST_DRAWS

    @classmethod
    def simulated(cls, config: RunConfig) -> "Oversight":
        """Of an organisation in a simulation."""
        return cls(config.chain, State.of(config), config.chain_lag, config.chain_lag_policy)

    @classmethod
    def deployed(cls, config: RunConfig, node_config: UserConfig) -> "Oversight":
        """Of a deployed node; raises ConfigError for an unknown policy or a lag that is no count."""
        chain, folder = str(node_config.get("chain-url", "")), str(node_config.get("state", ""))
        lag = node_config.get("chain-lag", config.chain_lag)
        policy = node_config.get("chain-lag-policy", config.chain_lag_policy)
        if type(lag) is not int or lag < 0:
            raise ConfigError(f"node-config: expected chain-lag as a number of rounds, got {lag!r}")
        if policy not in LAG_POLICIES:
            raise ConfigError(f"node-config: expected chain-lag-policy {' or '.join(LAG_POLICIES)}, got {policy!r}")
        draws = node_config.get("most-draws", MOST_DRAWS)
        if type(draws) is not int or draws < 1:
            raise ConfigError(f"node-config: expected most-draws of at least 1, got {draws!r}")
        state = State.at(Path(folder).resolve()) if folder else State.of(RunConfig())
        return cls(chain, state, lag, str(policy), draws)

    def check_records(self, task: Task) -> Witness:
        """Check and remember the records that a task shows; returns the organisation's memory, read once a message.

        Raises IntegrityError when the record does not hold.
        """
        genesis, organisation = task.genesis, task.organisation
        path = self.state.witness(genesis.digest, organisation)
        witness = Witness(path, genesis, organisation, self._ledger(genesis.chain.contract), self.lag)
        witness.follow(task.shown, task.openings)
        return witness

    def check_attested(self, genesis: Genesis, attestation: Attestation) -> None:
        """Check that the organisation's own ledger, if it has one, knows an erasure by this attestation.

        Raises IntegrityError when it does not, LedgerUnreachableError when it does not answer.
        """
        if (ledger := self._ledger(genesis.chain.contract)) is None:
            return
        known = ledger.erasure(genesis.digest, attestation.erasure)
        expected = attestation.hide(attestation.digest)
        if known is None or known.attestation != expected:
            got = known.attestation if known else "nothing"
            raise ObjectionError(f"the ledger on erasure {attestation.erasure}: expected {expected}, got {got}")

    def check_contract(self, chain: Domain) -> None:
        """Check that the organisation's own ledger, if it has one, has this contract.

        Raises IntegrityError when it does not, LedgerUnreachableError when it does not answer.
        """
        ledger = self._ledger(chain.contract)
        if ledger and ledger.domain != chain:
            raise ObjectionError(f"the contract on the organisation's chain: expected {chain}, got {ledger.domain}")

    def _ledger(self, contract: Address) -> LedgerView | None:
        return _ledger(self.chain, self.state.folder, contract) if self.chain else None

    def abstains(self, standing: Standing) -> bool:
        """Whether the organisation will not train while its coordinator stands so."""
        return bool(standing.behind) and self.policy == "abstain"


def confirm(witness: Witness, task: Task) -> Standing:
    """Have the witness check every earlier round on the ledger, before its organisation trains.

    Raises IntegrityError when one of them does not hold.
    """
    standing = witness.confirm(task.lane, task.generation, task.round)
    if standing.trusting:
        log(WARNING, "%s has no chain-url: it trusts the coordinator and checks nothing on a chain", task.organisation)
    elif standing.behind:
        log(WARNING, "%s: %s", task.organisation, standing)
    return standing


def metrics(standing: Standing) -> Mapping[str, float]:
    """A coordinator's standing as metrics of a manifest: how many rounds are late, or that none was checked."""
    if standing.trusting:
        return {"trusting": 1}
    return {"behind": len(standing.behind)} if standing.behind else {}


@lru_cache(maxsize=16)
def _ledger(chain: str, state: Path, contract: Address) -> Observer:
    """One for all organisations of a process: a ledger that does not answer is asked once for all of them."""
    return observe(chain, state, contract)
