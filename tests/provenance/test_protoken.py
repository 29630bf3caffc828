import pytest

from llm.batches import Example
from provenance.method import Effort
from provenance.protoken import protoken
from tests.provenance.small_subjects import FIRST, SECOND, normed


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_score_is_the_products_of_outputs_and_gradients(chunk: int | None) -> None:
    """The last hidden state h is (3, 3, 3, 3), its root mean square 3, and the logit h_0 / 3 = 1.

    The gradient at the MLP's output is e_0 / 3 − h_0 h / (4 · 27), so (3, −1, −1, −1) / 12; at the projection's, whose
    first feature the MLP reads and writes twice into three, (3 + 2 · (3 − 1 − 1), −1, −1, −1) / 12. The first client's
    projection writes (0, 0, 0, 3), the second's MLP (2, 2, 2, 0).
    """
    scores = protoken(normed(), Example((0, 0), 1), Effort(chunk=chunk))
    assert scores.organisations == (FIRST, SECOND)
    assert scores.tokens.tolist() == [pytest.approx([1 - 3 / 12, 1 + 2 * (3 - 1 - 1) / 12], abs=1e-6)]
    assert scores.explained is None
    assert scores.response.tolist() == scores.tokens[0].tolist()
