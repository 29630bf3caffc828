"""How an organisation keeps an eye on its coordinator, with a memory and a ledger of its own choosing.

A deployed node says where in its node-config: ``chain-url`` is the RPC endpoint, ``state`` the folder of its memory,
and ``chain-lag`` and ``chain-lag-policy`` overrule the run's. Without chain-url it trusts the coordinator, and says so
in its log and in every manifest. In a simulation everyone reads the run's own chain.
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
from core.erasures import Attestation
from core.errors import ConfigError, IntegrityError
from core.genesis import Genesis
from core.ledger import LedgerView
from core.messages.codec import Task
from core.storage.state_folder import State


@dataclass(frozen=True)
class Oversight:
    """Where an organisation looks: `chain` is embedded, anvil or a URL, "" for none; `lag` in rounds."""

    chain: str
    state: State
    lag: int
    policy: str

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
            raise ConfigError(f"node-config has chain-lag {lag!r}, a number of rounds wanted")
        if policy not in LAG_POLICIES:
            raise ConfigError(f"node-config has chain-lag-policy {policy!r}, one of {', '.join(LAG_POLICIES)} wanted")
        return cls(chain, State(Path(folder).resolve()) if folder else State.of(RunConfig()), lag, str(policy))

    def witness(self, task: Task) -> Witness:
        """The memory of the organisation that a task is for."""
        genesis = task.genesis
        ledger = self._ledger(genesis)
        path = self.state.witness(genesis.digest, task.organisation)
        return Witness(path, genesis, task.organisation, ledger, self.lag)

    def show(self, task: Task) -> None:
        """Check and remember the record that a task carries; raises IntegrityError when it does not hold."""
        if task.parent and task.salts:
            self.witness(task).shown(task.parent, task.salts, task.openings)

    def standing(self, task: Task) -> Standing:
        """Check the record that a task carries, and every one before it on the ledger, before training on it.

        Raises IntegrityError when one of them does not hold.
        """
        witness = self.witness(task)
        if task.parent and task.salts:
            witness.shown(task.parent, task.salts, task.openings)
        standing = witness.confirm(task.lane, task.generation, task.round)
        _say(task.organisation, standing)
        return standing

    def check_attested(self, genesis: Genesis, attestation: Attestation) -> None:
        """Check that the organisation's own ledger, if it has one, knows an erasure by this attestation.

        Raises IntegrityError when it does not, LedgerUnreachableError when it does not answer.
        """
        if (ledger := self._ledger(genesis)) is None:
            return
        known = ledger.erasure(genesis.digest, attestation.erasure)
        wanted = attestation.hide(attestation.digest)
        if known is None or known.attestation != wanted:
            got = known.attestation if known else "nothing"
            raise IntegrityError(f"the ledger has {got} of erasure {attestation.erasure}, {wanted} wanted")

    def _ledger(self, genesis: Genesis) -> LedgerView | None:
        return _ledger(self.chain, self.state.folder, genesis.chain.contract) if self.chain else None

    def abstains(self, standing: Standing) -> bool:
        """Whether the organisation will not train on what stands so."""
        return bool(standing.behind) and self.policy == "abstain"


def metrics(standing: Standing) -> Mapping[str, float]:
    """What a manifest says of its organisation's standing: the rounds that are late, or that nothing was checked."""
    if standing.trusting:
        return {"trusting": 1}
    return {"behind": len(standing.behind)} if standing.behind else {}


def _say(organisation: Address, standing: Standing) -> None:
    if standing.trusting:
        log(WARNING, "%s has no chain-url: it trusts the coordinator and checks nothing on a chain", organisation)
    elif standing.behind:
        log(WARNING, "%s: %s", organisation, standing)


@lru_cache(maxsize=16)
def _ledger(chain: str, state: Path, contract: Address) -> Observer:
    """One for all organisations of a process: a ledger that does not answer is asked once for all of them."""
    return observe(chain, state, contract)
