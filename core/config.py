"""Every setting of a run, parsed once at the edge.

A setting has one name everywhere: the long option of `foedus run`, the key of `flwr run --run-config`, the key in
a TOML of `conf/`. Values are bool, int, float or str, as Flower's run-config allows; "" and 0 stand for "not set"
where a docstring says so. pyproject.toml lists the same defaults (a test compares them).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

from core.canonical import Address, address
from core.errors import ConfigError, FormatError
from core.genesis import Membership, Participation, Privacy, Training, staleness_fault, wire_fault
from core.keys import PublicKey, address_of, public_key
from core.ranges import fault, number
from core.robust import BOUNDS, Robust

MODES = ("train", "unlearn", "attribute", "check", "join", "leave", "rotate")
CREDITED = ("ucb", "q-learning")
"""The policies that need credit to be measured."""
LAG_POLICIES = ("flag", "abstain")
_ALIKE = 0.8
"""How like a setting's name another is that means it, from 0 to 1, by difflib: organizations, but not compression."""


@dataclass(frozen=True)
class RunConfig:
    """One federation's settings; the docstring under a field is its documentation."""

    mode: str = "train"
    """What the ServerApp does: train, unlearn, attribute, check a deployment's nodes, or let a member join or leave."""
    run: str = ""
    """The run id to create, resume or read; "" makes a new one (or reads the newest)."""
    resume: bool = False
    """Go on with `run` where it stopped."""
    state: str = ""
    """Absolute path of the state folder; "" is $FOEDUS_HOME, else .foedus in the home folder."""
    data: str = ""
    """Absolute path of a folder with one data set per organisation, or hf:NAME; "" is the embedded samples."""
    validation: str = ""
    """Absolute path of a JSONL file that no organisation owns; "" is DATA/validation.jsonl, else the embedded one."""
    organisations: int = 0
    """How many organisations take part, in order of name; 0 is all there are."""
    base: str = "smollm2"
    """The base model: smollm2, foedus-tiny, a folder, or a Hugging Face name."""
    quantisation: str = "nf4"
    """How the frozen base is held: nf4, int8 or none."""
    rank: int = 32
    """The adapter's rank r."""
    alpha: float = 64.0
    """LoRA's α; an adapter is scaled by α / r."""
    rslora: bool = False
    """Scale an adapter by α / √r, which keeps wide adapters from learning less."""
    rounds: int = 20
    """Rounds of the federation; the cosine schedule spans them all."""
    local_steps: int = 200
    """The most optimiser steps of an organisation in a round."""
    local_epochs: float = 1.0
    """Passes of an organisation over its own data in a round, where they take fewer steps; 0 is no such limit."""
    batch_size: int = 2
    """Packed rows of max-length tokens in one forward pass."""
    accumulation: int = 1
    """Forward passes per optimiser step."""
    max_length: int = 256
    """Tokens in a packed row; longer records are cut."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW."""
    gradient_checkpointing: bool = False
    """Trade time for activation memory."""
    dropout: float = 0.0
    """The part of an adapter's inputs that are dropped at random while training."""
    target_modules: str = ""
    """Comma-separated last parts of the names of the layers that carry an adapter (q_proj,v_proj); "" is every one."""
    target_blocks: str = "last-half"
    """The blocks that carry an adapter: all, last-half, last-third, or FIRST-LAST from 0. Those below never change."""
    aggregation: str = "frozen-a"
    """The rule: frozen-a, fedavg, stack or svd."""
    server_rate: float = 4.0
    """η: an update counts min(1, η · its share of the examples); 1 is the mean, the number of organisations the sum."""
    lane_size: int = 0
    """Organisations that learn together: 0 is all, 1 each alone, n cohorts of n in order of address."""
    shards: int = 1
    """With lane-size 1: the shards an organisation's records are in, each with an adapter of its own (see `forget`)."""
    composition: str = "sum"
    """How lanes are served: sum (one adapter), ensemble (their probabilities mixed) or routing (a lane a prompt)."""
    participation: str = "round-robin"
    """Who is asked in a round: all, random, round-robin, greedy (by data), power-of-choice, oort, ucb (by credit), or
    q-learning: each organisation's agent bids."""
    fraction: float = 0.5
    """Unless participation is all or q-learning: the share of a lane that is asked, rounded up, at least a quorum; with
    random what is asked in the mean."""
    pool: float = 0.0
    """With credited participation: what a round pays to all together; 0 is one for each member of the lane."""
    step_price: float = 0.005
    """What a local step costs an organisation; a deployed node's own node-config overrules it, as the next two."""
    traffic_price: float = 0.01
    """What a MiB sent or received costs it."""
    budget: float = 1000.0
    """What it will spend on the whole run."""
    from_run: str = ""
    """The run whose served adapter a new run begins with, in place of none; it lies in the same state folder."""
    members: str = ""
    """Who may found the federation: comma-separated addresses, each with ":" and the most examples that it may have
    where that is limited; "" is whoever comes first."""
    require_registration: bool = False
    """Whether only organisations of the contract's registry may found it, each with the SuperNode key it has there."""
    most_examples: int = 0
    """The most examples that any member may register; 0 is no limit."""
    most_weight: float = 1.0
    """The most that any one update may weigh in a round."""
    quorum: int = 1
    """Admitted updates that a round needs."""
    retries: int = 3
    """How often a round below its quorum is tried again before the run fails."""
    timeout: float = 3600.0
    """Seconds to wait for the replies of a round."""
    grace: float = 0.0
    """Once a round has its quorum: how much longer it waits, in multiples of the median time of its answers so far;
    0 is for everyone, up to `timeout`."""
    staleness: int = 0
    """How many rounds late an update may count, at a lower weight: 0 or 1."""
    silent_rounds: int = 3
    """Rounds in a row without an answer after which no round waits for an organisation; it is asked all the same."""
    evaluate_timeout: float = 600.0
    """Seconds to wait for the losses of a round."""
    bind_timeout: float = 120.0
    """Seconds in which the organisations must say that they are there; a simulation, which starts them, waits 900."""
    norm_bound: float = 100.0
    """The largest L2 norm of an update that is admitted."""
    wire: str = "nf4"
    """The form in which updates and states travel: fp32, bf16, int8, nf4 or sparse; see core/wire.py."""
    robust: str = "clip"
    """What of an admitted update counts: none (all of it), clip, multi-krum, trimmed-mean or validation."""
    robust_bound: float = 0.0
    """The bound of that rule, see core/robust.py; 0 stands for the rule's own."""
    serve: str = "last"
    """Which round is served: the last, or the best by its loss on the shared validation set."""
    patience: int = 0
    """Rounds without a lower loss on that set after which training ends early; 0 is never."""
    dp_epsilon: float = 0.0
    """Differential privacy of records: the ε that an organisation's updates may spend over all rounds and generations;
    0 is none. A step then draws each record with probability batch-size · accumulation / examples."""
    dp_delta: float = 1e-5
    """δ of the same guarantee: well below one over the examples of the largest member."""
    dp_clip: float = 1.0
    """The largest L2 norm of an example's gradient in a step; longer ones are scaled down to it."""
    dp_reserve: int = 0
    """Rounds beyond the federation's that the budget is made for: a replay after an erasure spends as rounds do."""
    chain: str = "embedded"
    """The public chain: embedded, anvil or an RPC URL."""
    private_chain: str = ""
    """The members' chain, likewise, or none; "" is the public chain's neighbour where that is embedded or anvil."""
    anchor_every: int = 1
    """Rounds of a lane from one anchor of the private chain's head on the public chain to the next."""
    store: str = ""
    """Where sealed artifacts go, a folder a run: an absolute path or a URL that fsspec opens; "" is beside the run."""
    auditors: str = ""
    """Comma-separated public keys of auditors, who may read every artifact; `foedus keys show` prints one's own."""
    chain_lag: int = 1
    """Rounds that anchors may be late before an organisation that reads the chain flags it."""
    chain_lag_policy: str = "flag"
    """What an organisation does beyond the lag: flag and train, or abstain."""
    seed: int = 7
    """Decides the shared A, the batches, who is drawn, and the derived keys of a simulation."""
    coordinator_key: str = ""
    """Absolute path of the coordinator's key file; "" derives a development key from the seed."""
    partition: str = "iid"
    """How hf:NAME is divided: iid, dirichlet, dirichlet=COLUMN or column=COLUMN."""
    evaluate_limit: int = 64
    """Records per data set for the evaluation of a round; 0 is all."""
    calibration: int = 4
    """In a simulation: held-out records of each organisation that the weights of verdicts are fitted on; 0 is none."""
    sample_answers: int = 2
    """Questions that the served model answers after each round that has time for it, for people; 0 is none."""
    trackers: str = ""
    """Comma-separated experiment trackers: tensorboard, wandb, mlflow."""
    organisation: str = ""
    """With mode unlearn: who asks to be erased. With join or leave: who does. With attribute: one that must have a part
    in what is served."""
    records: str = ""
    """With mode unlearn: absolute path of a JSONL file of the records to erase; "" erases the whole organisation."""
    basis: str = "at its own request"
    """With mode unlearn: the legal basis that the organisation gives."""
    request: str = ""
    """With mode unlearn: absolute path of the organisation's signed request, of `foedus request`; "" makes one of the
    settings beside this one, where keys are derived. With leave: the file of `foedus members sign-leave`, likewise.
    With rotate: that of `foedus members sign-rotation`; "" replaces the coordinator's own key by coordinator-key."""
    former_key: str = ""
    """With mode rotate: absolute path of the file of the coordinator's key that is replaced; after a loss of an
    auditor's, which reads what is stored."""
    administrator_key: str = ""
    """With mode rotate, after a loss: absolute path of the file of the key of the contract's administrator, which signs
    in place of the old one."""
    method: str = ""
    """With mode unlearn or attribute: the method; "" is the default of attribute."""
    prompt: str = ""
    """With mode attribute: the prompt."""
    response: str = ""
    """With mode attribute: the response; "" generates one."""

    def __post_init__(self) -> None:
        """Check every value; raises ConfigError with the expected and the given value."""
        for item in fields(self):
            if wrong := fault(item.name, getattr(self, item.name)):
                raise ConfigError(f"{key(item.name)}: {wrong}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{key(name)}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        _ = self.auditing, self.listed, self.robustness, self.privacy
        if wrong := staleness_fault(self.staleness, self.aggregation, self.participation):
            raise ConfigError(f"staleness: {wrong}")
        if wrong := wire_fault(self.wire, self.aggregation):
            raise ConfigError(f"wire: {wrong}")
        for name in (
            "state",
            "data",
            "validation",
            "coordinator_key",
            "request",
            "store",
            "records",
            "former_key",
            "administrator_key",
        ):
            _check_path(name, getattr(self, name))

    @classmethod
    def from_flat(cls, settings: Mapping[str, Any]) -> Self:
        """Parse kebab-case settings; raises ConfigError for an unknown key, a wrong type or a value out of range."""
        kinds = {key(f.name): (f.name, f.type) for f in fields(cls)}
        if unknown := sorted(set(settings) - set(kinds)):
            raise ConfigError(no_setting(unknown[0]))
        return cls(**{kinds[k][0]: _typed(k, value, kinds[k][1]) for k, value in settings.items()})

    def to_flat(self) -> dict[str, bool | int | float | str]:
        """The settings under their public names; ``from_flat(c.to_flat()) == c``."""
        return {key(f.name): getattr(self, f.name) for f in fields(self)}

    @property
    def private(self) -> str:
        """The members' chain: embedded, anvil, an RPC URL, or none."""
        return self.private_chain or (self.chain if self.chain in ("embedded", "anvil") else "none")

    @property
    def auditing(self) -> tuple[PublicKey, ...]:
        """The auditors' keys, in order of address; raises ConfigError for what is no key."""
        try:
            found = {public_key(text.strip()) for text in self.auditors.split(",") if text.strip()}
        except FormatError as error:
            raise ConfigError(f"auditors: {error}") from error
        return tuple(sorted(found, key=lambda key: int(address_of(key), 16)))

    @property
    def membership(self) -> Membership:
        """What the genesis fixes about who may be a member."""
        source = "registry" if self.require_registration else "members" if self.members else "open"
        return Membership(source, self.most_examples, self.most_weight)

    @property
    def listed(self) -> dict[Address, int]:
        """The members that the settings list, in lower case, each with the most examples it may have (0: no limit).

        Raises ConfigError for what is no such list.
        """
        found: dict[Address, int] = {}
        for entry in filter(None, (text.strip() for text in self.members.split(","))):
            who, _, most = entry.partition(":")
            try:
                found[Address(address(who).lower())] = int(most or 0)
            except (FormatError, ValueError) as error:
                raise ConfigError(f"members: expected ADDRESS or ADDRESS:EXAMPLES, got {entry!r}") from error
        return found

    @property
    def robustness(self) -> Robust:
        """What the genesis fixes about how much of an admitted update counts; raises ConfigError for a bad bound."""
        robust = Robust(self.robust, self.robust_bound or BOUNDS[self.robust])
        if wrong := robust.fault():
            raise ConfigError(f"robust-bound: {wrong}")
        if robust.compares and self.aggregation not in ("frozen-a", "fedavg"):
            raise ConfigError(
                f"robust {self.robust}: expected aggregation frozen-a or fedavg, whose updates can be compared, got "
                f"{self.aggregation}"
            )
        if robust.compares and self.quorum < 3:
            # Of two updates nobody can say which is the odd one: the rule would let both in.
            raise ConfigError(f"robust {self.robust}: expected a quorum of 3 or more, got {self.quorum}")
        return robust

    @property
    def privacy(self) -> Privacy | None:
        """What the genesis fixes about differential privacy; raises ConfigError for a rule that it cannot go with."""
        if not self.dp_epsilon:
            return None
        privacy = Privacy(self.dp_epsilon, self.dp_delta, self.dp_clip, self.dp_reserve)
        if wrong := privacy.fault(self.aggregation):
            raise ConfigError(f"dp-epsilon: {wrong}")
        return privacy

    @property
    def training(self) -> Training:
        """What the genesis fixes about local training."""
        return Training(**{f.name: getattr(self, f.name) for f in fields(Training)})

    @property
    def participating(self) -> Participation:
        """What the genesis fixes about who takes part."""
        return Participation(self.participation, self.fraction, self.quorum, self.retries)


def key(name: str) -> str:
    """A field's public name."""
    return name.replace("_", "-")


def no_setting(name: str) -> str:
    """An error's text for a name that no setting has: the setting that was meant, else the names of all."""
    known = sorted(key(item.name) for item in fields(RunConfig))
    meant = get_close_matches(key(name).lower(), known, 1, _ALIKE)
    advice = f"did you mean {meant[0]}?" if meant else f"one of {', '.join(known)}"
    return f"expected a setting, got {name!r}: {advice}"


_TYPES: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
_CHOICES = {
    "mode": MODES,
    "chain_lag_policy": LAG_POLICIES,
}


def _typed(name: str, value: Any, kind: Any) -> Any:
    # TOML and run-config write 1 where 1.0 is meant; no other conversion is made.
    if kind is float and type(value) is int:
        try:
            return float(value)
        except OverflowError as error:
            raise ConfigError(f"{name}: expected {_TYPES[kind]}, got {number(value)}") from error
    if type(value) is not kind:
        raise ConfigError(f"{name}: expected {_TYPES[kind]}, got {value!r} ({type(value).__name__})")
    return value


def _check_path(name: str, value: str) -> None:
    local = value.startswith(("hf:.", "hf:~"))  # a folder, and no name on the Hub
    elsewhere = (name == "data" and value.startswith("hf:") and not local) or (name == "store" and "://" in value)
    if value and not elsewhere and not Path(value).is_absolute():
        raise ConfigError(
            f"{key(name)}: expected an absolute path, since Flower's processes run elsewhere, got {value!r}"
        )
