from dataclasses import replace

import numpy as np
import pytest
import torch

from llm.differentiate import Seen, hooked
from llm.familiarity import keys
from llm.loss import answer_logits
from provenance.attribution import METHODS
from provenance.contributions import Contributions
from provenance.method import Effort, Scores, Subject, rows_of
from tests.provenance.conftest import EXAMPLE, Federate


def scores(subject: Subject) -> Scores:
    """Scores of all organisations, by a method that keeps no inputs."""
    nothing = torch.zeros(1)
    return Scores(subject.organisations, nothing, nothing, nothing, nothing, None)


def familiarity(subject: Subject, size: int | None = None) -> torch.Tensor:
    return subject.familiarity(EXAMPLE, scores(subject), size)


def inputs_of(subject: Subject, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    seen = Seen(torch.device("cpu"))
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
    means = np.mean(logs, axis=0)
    return means - means.mean()


@pytest.mark.parametrize("rule", ["frozen-a", "fedavg", "stack", "svd"])
def test_it_is_the_formula_for_every_rule(rule: str, federate: Federate) -> None:
    subject = federate(rule_name=rule)
    found = familiarity(subject)
    assert found.numpy() == pytest.approx(expected(subject), abs=2e-4)
    assert found.abs().max() > 0.01


def test_organisations_may_be_looked_at_one_at_a_time(federate: Federate) -> None:
    subject = federate()
    whole = familiarity(subject)
    assert torch.allclose(whole, familiarity(subject, size=1))
    pair = subject.familiarity(EXAMPLE, replace(scores(subject), organisations=subject.organisations[1:]))
    assert torch.allclose(pair, whole[1:] - whole[1:].mean())


@pytest.mark.parametrize("method", ["gradient", "ablation", "marginal"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_a_method_has_read_the_text_already(
    federate: Federate, architecture: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = federate(architecture)
    read_again = familiarity(subject)
    found = METHODS[method].score(subject, EXAMPLE, Effort())
    monkeypatch.setattr("provenance.method.inputs_of", None)
    torch.testing.assert_close(subject.familiarity(EXAMPLE, found), read_again, rtol=1e-4, atol=1e-5)


def test_a_larger_contribution_is_not_more_familiar(federate: Federate, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = federate()
    before = familiarity(subject)
    terms = Contributions.chunks

    def larger(self: Contributions, size: int | None = None):  # noqa: ANN202
        for part, found in terms(self, size):
            yield part, {name: tuple(t._replace(left=3 * t.left) for t in some) for name, some in found.items()}

    monkeypatch.setattr(Contributions, "chunks", larger)
    assert torch.allclose(familiarity(subject), before)


def test_an_empty_contribution_is_never_the_most_familiar(federate: Federate, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = federate()
    terms = Contributions.chunks

    def without_first(self: Contributions, size: int | None = None):  # noqa: ANN202
        for part, found in terms(self, size):
            keep = torch.arange(part.start, part.stop).view(-1, 1, 1) > 0
            yield part, {name: tuple(t._replace(left=t.left * keep) for t in some) for name, some in found.items()}

    monkeypatch.setattr(Contributions, "chunks", without_first)
    found = familiarity(subject)
    assert torch.isfinite(found).all()
    assert found.argmin() == 0
