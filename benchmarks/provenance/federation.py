"""A federation in one process, as attribution sees it: after each round, the contribution of every organisation."""

from collections.abc import Callable, Iterator, Sequence

from benchmarks.in_process import RULE, Member, Schedule, fresh_adapter, train_rounds
from core.adapter import AdapterState
from llm.model import Model
from provenance.contributions import Contributions
from provenance.history import StoredRound
from provenance.method import Subject


def subjects(model: Model, members: Sequence[Member], schedule: Schedule, seed: int) -> Iterator[Subject]:
    """Train round by round; yields the subject of attribution after each."""
    fresh, steps = fresh_adapter(model, seed), list[StoredRound]()
    for done in train_rounds(model, members, schedule, seed):
        # One list that grows: each subject has the contributions of all rounds so far.
        steps.append(StoredRound(_reader(done.before), _reader(done.after), tuple(done.updates)))
        contributions = Contributions(RULE, fresh, (tuple(steps),), model.spec.alpha / model.spec.rank, model.device)
        yield Subject("benchmark", done.after.digest, model, RULE.adapter(done.after, fresh), contributions)


def _reader(state: AdapterState) -> Callable[[], AdapterState]:
    """Contributions read states from a store; these are in memory already."""
    return lambda: state
