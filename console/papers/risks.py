"""The residual risks of a run, in plain words: the "not defended" rows of the threat model that apply to it."""

from collections.abc import Callable
from typing import NamedTuple

from core.genesis import Genesis


class Circumstances(NamedTuple):
    """What decides whether a row applies."""

    genesis: Genesis
    derived: bool
    """Whether some key is derived from the seed, as in a simulation."""
    own_chain: bool
    """Whether the public chain is the coordinator's own development chain."""
    erased: bool


class Risk(NamedTuple):
    """A row of the threat model by its attack, as it stands there; what it means; and when it applies."""

    attack: str
    plain: str
    applies: Callable[[Circumstances], bool] = lambda _: True


RISKS = (
    Risk("reads updates, or gives them away",
         "The coordinator can read every update, and pass it on: there is no secure aggregation."),
    Risk("infers from updates, aggregates, answers or verdicts whether a record was trained on, or what it says",
         "Who reads updates, or asks the model, may infer training records: no noise was added.",
         lambda c: c.genesis.privacy is None),
    Risk("takes the noise off: it knows the genesis, the seed and the records of others",
         "The noise follows from keys that anybody can derive, so anybody can take it off.",
         lambda c: c.genesis.privacy is not None and c.derived),
    Risk("as an organisation, adds less noise than it says",
         "Nobody sees that an organisation adds the noise that it says. Its own records would pay for it.",
         lambda c: c.genesis.privacy is not None),
    Risk("trains the same records in two federations",
         "Records that are trained on elsewhere, too, lose more privacy than is counted here.",
         lambda c: c.genesis.privacy is not None),
    Risk("poisons by an update of ordinary size that teaches something wrong, as one with its sign changed",
         "A well-formed update that teaches something wrong is admitted.",
         lambda c: c.genesis.robust.rule != "validation"),
    Risk("copies, sends noise, or sends zeros",
         "An organisation can take part without teaching anything. The record names who sent each update."),
    Risk("registers more examples than it has",
         "How many examples an organisation has, it says itself; its weight follows from that, up to a cap."),
    Risk("trains on one record of ten thousand",
         "How many of its records an organisation trained on, it says itself."),
    Risk("takes part under several keys",
         "Several members can belong to one owner."),
    Risk("keeps a key that was to be destroyed",
         "A reader that opened a state before its key was destroyed can have kept the key."),
    Risk("as an organisation, keeps copies of destroyed states",
         "A member can have kept a copy of what was erased. Its signed receipt says that it has not.",
         lambda c: c.erased),
    Risk("as an organisation, trains on data records that it claims to have forgotten",
         "That an organisation trains without records that were erased, it says itself.",
         lambda c: c.erased),
    Risk("opens an old copy of a destroyed state",
         "A backup of key files from before an erasure opens what was destroyed.",
         lambda c: c.erased),
    Risk("keeps a request back, to carry it out when it suits",
         "That a request to erase is carried out at all, nothing enforces."),
    Risk("erases an organisation that did not ask",
         "Keys are derived from the seed, so anybody can sign a request to erase.",
         lambda c: c.derived),
    Risk("another user of the machine reaches the SuperLink of a simulation",
         "Other users of the machine can reach the running simulation.",
         lambda c: c.derived),
    Risk("the owner of a development chain rebuilds it",
         "The chain is a development chain of this machine: its owner can rebuild it, so it dates nothing.",
         lambda c: c.own_chain),
    Risk("a node that lies consistently",
         "The chain was read through one node, which could lie: ask a second one.",
         lambda c: not c.own_chain),
    Risk("signs a false validation loss, so that a round of its choice is the best or the last",
         "Which round is served follows from losses that the coordinator measured.",
         lambda c: c.genesis.compares_rounds),
    Risk("sends a false state for evaluation, where lanes are isolated",
         "What is sent for evaluation is checked for an organisation's own lane alone.",
         lambda c: len(c.genesis.lanes) > 1),
    Risk("leaves an agent's offer out of the record",
         "An offer that the coordinator left out cannot be told from one that never came.",
         lambda c: c.genesis.participation.policy == "q-learning"),
    Risk("reads the salts",
         "Who has the run folder can compare what is on the chain with digests that it knows."),
    Risk("stops",
         "The coordinator can stop. The records stay valid."),
    Risk("an organisation shapes its updates so that it is named for others' answers",
         "Attribution shows influence on an answer, and can be sought by who wants to be named."),
)  # fmt: skip


def residual(circumstances: Circumstances) -> list[Risk]:
    """The risks that apply."""
    return [risk for risk in RISKS if risk.applies(circumstances)]
