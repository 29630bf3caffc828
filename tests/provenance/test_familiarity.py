import numpy as np
import pytest
import torch

from llm.differentiate import Seen, hooked
from llm.familiarity import keys
from llm.loss import answer_logits
from provenance.contributions import Contributions
from provenance.familiarity import familiarity
from provenance.method import Subject, rows_of
from tests.provenance.conftest import EXAMPLE, Federate


def inputs_of(subject: Subject, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    seen = Seen()
    with torch.no_grad(), hooked([(subject.model.layers[name], seen.hook(name)) for name in names]):
        answer_logits(subject.model, rows_of(subject, EXAMPLE))
    return seen.inputs


def expected(subject: Subject) -> np.ndarray:
    """The formula, with every δ_k as a matrix."""
    contributions, names = subject.contributions, keys(subject.contributions.modules)
    inputs, ((_, terms),) = inputs_of(subject, names), list(contributions.chunks(len(contributions.organisations)))
    logs = []
    for name in names:
        for x in inputs[name][0].double().numpy():
            delta = sum(np.matmul(left.double().numpy(), right.double().numpy()) for left, right in terms[name])
            logs.append([np.log(np.linalg.norm(d @ x) / np.linalg.norm(d)) for d in delta])
    found = np.mean(logs, axis=0)
    return found - found.mean()


@pytest.mark.parametrize("rule", ["frozen-a", "fedavg", "stack", "svd"])
def test_it_is_the_formula_for_every_rule(rule: str, federate: Federate) -> None:
    subject = federate(rule_name=rule)
    found = familiarity(subject, EXAMPLE, subject.contributions.organisations)
    assert found.numpy() == pytest.approx(expected(subject), abs=2e-4)
    assert found.abs().max() > 0.01


def test_organisations_may_be_looked_at_one_at_a_time(federate: Federate) -> None:
    subject = federate()
    who = subject.contributions.organisations
    assert torch.allclose(familiarity(subject, EXAMPLE, who), familiarity(subject, EXAMPLE, who, size=1))
    pair = familiarity(subject, EXAMPLE, who[1:])
    whole = familiarity(subject, EXAMPLE, who)[1:]
    assert torch.allclose(pair, whole - whole.mean())


def test_a_larger_contribution_is_not_more_familiar(federate: Federate, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = federate()
    who = subject.contributions.organisations
    before = familiarity(subject, EXAMPLE, who)
    terms = Contributions.chunks

    def larger(self: Contributions, size: int | None = None):  # noqa: ANN202
        for part, found in terms(self, size):
            yield part, {name: tuple(t._replace(left=3 * t.left) for t in some) for name, some in found.items()}

    monkeypatch.setattr(Contributions, "chunks", larger)
    assert torch.allclose(familiarity(subject, EXAMPLE, who), before)


def test_who_contributed_nothing_is_never_the_most_familiar(
    federate: Federate, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = federate()
    who, terms = subject.contributions.organisations, Contributions.chunks

    def without_first(self: Contributions, size: int | None = None):  # noqa: ANN202
        for part, found in terms(self, size):
            keep = torch.arange(part.start, part.stop).view(-1, 1, 1) > 0
            yield part, {name: tuple(t._replace(left=t.left * keep) for t in some) for name, some in found.items()}

    monkeypatch.setattr(Contributions, "chunks", without_first)
    found = familiarity(subject, EXAMPLE, who)
    assert torch.isfinite(found).all()
    assert found.argmin() == 0
