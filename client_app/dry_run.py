"""A dry run: a node tries what a federation would ask of it, and is in none.

Nothing is signed, shown or written down, and nothing of the data is told. The step is on made-up records that fill its
rows to the last token: no step of a round takes more memory, and its time says nothing of the organisation's records.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from flwr.app import Context

from client_app.agreement import Pins
from client_app.hosting import Node, node_of
from client_app.refusals import told
from client_app.remote_key import RemoteKey
from core.aggregation import RULES
from core.config import RunConfig
from core.errors import ObjectionError
from core.messages.queries import DryRunAnswer, DryRunQuery
from core.messages.refusal import Cause
from core.site_policy import SiteTerms
from core.update import Registration
from llm.memory import peak_memory
from llm.model import Model
from llm.private import Mechanism, train_privately
from llm.records import Record
from llm.served import shared_adapter
from llm.sources import base_of_settings
from llm.train import TrainConfig, TrainResult, train


@dataclass
class DryRun:
    """One node's dry run: it goes on behind what fails, as far as it can."""

    query: DryRunQuery
    context: Context
    problems: list[str] = field(default_factory=list)
    registration: Registration | None = None
    seconds: float = 0.0
    memory: int = 0

    def answer(self) -> DryRunAnswer:
        """Try everything; what fails is a problem in the answer, and its whole text stays in this node's log."""
        self._try({"settings": self.check_settings, "data and key": self.check_organisation})
        if self.registration:
            parts = {"chain": self.check_chain, "site policy": self.check_site, "base and step": self.check_step}
            self._try(parts)
        return DryRunAnswer(self.registration, self.seconds, self.memory, tuple(self.problems))

    def check_settings(self) -> None:
        """Raise ObjectionError for a federation that the node's pins do not allow."""
        config, asked = self.config, self.query.asked
        pins = Pins.of(self.context.node_config)
        pins.check_asked(asked, self.query.chain)
        pins.check_members(config.listed)

    def check_organisation(self) -> None:
        """Read data and key; raises IntegrityError for a signer of another coordinator or contract."""
        asked = self.query.asked
        # A deployed node has one; a simulation's may have many, and nobody's machines to try.
        (host,) = self.node.hosts.values()
        (self.registration,) = self.node.registrations(asked, self.context.node_config).values()
        if isinstance(host.key, RemoteKey):
            host.key.check_settings(asked.coordinator, self.query.chain)

    def check_chain(self) -> None:
        """Raise IntegrityError, or LedgerUnreachableError, unless the node's own chain has the contract."""
        self.node.oversight.check_contract(self.query.chain)

    def check_site(self) -> None:
        """Raise PolicyError for data, or terms of the planned federation, that the site's policy does not allow."""
        (host,) = self.node.hosts.values()
        self.node.check_site(host, SiteTerms.planned(self.config, self.query.base))

    def check_step(self) -> None:
        """Load the node's own base as the settings want it, and do one step."""
        config = replace(self.config, base=self.node.base)
        model = base_of_settings(config)
        if model.digest != self.query.base:
            raise ObjectionError(f"base: expected {self.query.base}, as the coordinator has it, got {model.digest}")
        self.seconds = one_step(model, config).seconds
        self.memory = peak_memory(model.device)

    @property
    def config(self) -> RunConfig:
        """The settings that a run would have."""
        return RunConfig.from_flat(self.context.run_config)

    @property
    def node(self) -> Node:
        """The node as a round would find it."""
        return node_of(self.context)

    def _try(self, parts: Mapping[str, Callable[[], None]]) -> None:
        for name, part in parts.items():
            try:
                part()
            # The boundary, as for every message: an error of any kind is this organisation's, and stays at home.
            except Exception as error:  # noqa: BLE001
                detail = told(self.context, error) or f"{Cause.of(error)}: the node's log says why"
                self.problems.append(f"{name}: {detail}")


def one_step(model: Model, config: RunConfig) -> TrainResult:
    """A step as a round has them, on rows that are full; with `dp-epsilon` a private one, which spends nothing."""
    # Numbers, since no tokenizer writes one in less than a token.
    text = " ".join(map(str, range(config.max_length)))
    rows = config.batch_size * config.accumulation
    records = [Record((), text)] * rows
    start = shared_adapter(model, config.rank, config.seed)
    settings = TrainConfig(
        steps=1,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        max_length=config.max_length,
        learning_rate=config.learning_rate,
        gradient_checkpointing=config.gradient_checkpointing,
        dropout=config.dropout,
        train_a=RULES[config.aggregation].trains_a,
    )
    if config.privacy:
        mechanism = Mechanism(1.0, config.dp_clip, 1.0, rows, secrets.token_bytes(32))
        return train_privately(model, records, start, settings, mechanism, seed=0)
    return train(model, records, start, settings, seed=0)
