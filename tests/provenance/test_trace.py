from dataclasses import replace

import pytest

from core.canonical import Address, Digest, from_json, to_json
from core.errors import FormatError
from provenance.trace import ResponseScores, TokenScores, TokenTrace

AVA, BEN = Address("0x" + "aa" * 20), Address("0x" + "bb" * 20)


@pytest.fixture
def trace() -> TokenTrace:
    tokens = (
        TokenScores("Take", 7, -1.0, (0.5, -0.25), -1.5, 0.25),
        TokenScores(" two", 8, -2.0, (1.0, 0.5), -4.0, 0.5),
        TokenScores("p", 9, -0.5, (0.25, 0.0), -1.0, 0.25),
    )
    response = ResponseScores((1.75, 0.25), (0.5, -0.5), -6.5, 1.0, 0.9, AVA, False)
    return TokenTrace("run", Digest("0x" + "11" * 32), "gradient", (AVA, BEN), "How many?", tokens, response, 0.1)


def test_bytes_and_back(trace: TokenTrace) -> None:
    assert TokenTrace.from_bytes(trace.to_bytes()) == trace


def test_the_digest_leaves_out_only_the_seconds(trace: TokenTrace) -> None:
    assert replace(trace, seconds=9.0).digest == trace.digest
    assert replace(trace, prompt="How much?").digest != trace.digest


def test_spans_are_sums(trace: TokenTrace) -> None:
    assert [(word.text, word.scores, word.residual) for word in trace.words()] == [
        ("Take", (0.5, -0.25), 0.25),
        (" twop", (1.25, 0.5), 0.75),
    ]
    assert trace.spans([(0, 3)])[0].logprob == -3.5


def test_json_names_the_organisations(trace: TokenTrace) -> None:
    shown = trace.to_dict({AVA: "ava", BEN: "ben"})
    assert shown["response"]["verdict"] == "ava"
    assert shown["tokens"][1]["scores"] == {"ava": 1.0, "ben": 0.5}
    assert shown["organisations"] == {"ava": AVA, "ben": BEN}
    abstains = replace(trace, response=replace(trace.response, verdict=None))
    assert abstains.to_dict({AVA: "ava", BEN: "ben"})["response"]["verdict"] is None


@pytest.mark.parametrize(
    "broken",
    [
        {"organisations": [AVA]},
        {"organisations": ["ava", "ben"]},
        {"aggregate": "0x11"},
        {"response": {"scores": [1.0, 2.0]}},
        {"tokens": [{"text": "Take"}]},
        {"more": 1},
    ],
)
def test_malformed_bytes_are_refused(trace: TokenTrace, broken: dict[str, object]) -> None:
    with pytest.raises(FormatError) as refused:
        TokenTrace.from_bytes(to_json(from_json(trace.to_bytes()) | broken))
    assert "__init__" not in str(refused.value)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("trace", ("run", "method", "prompt", "seconds")),
        ("response", ("confidence", "base", "residual", "calibrated")),
        ("token", ("text", "token", "logprob", "residual")),
    ],
)
def test_every_field_has_its_type(trace: TokenTrace, where: str, names: tuple[str, ...]) -> None:
    for name in names:
        for odd in ({}, [1], None if name != "residual" else "0"):
            plain = from_json(trace.to_bytes())
            {"trace": plain, "response": plain["response"], "token": plain["tokens"][1]}[where][name] = odd
            with pytest.raises(FormatError):
                TokenTrace.from_bytes(to_json(plain))


def test_a_verdict_is_one_of_the_organisations(trace: TokenTrace) -> None:
    stranger = replace(trace, response=replace(trace.response, verdict=Address("0x" + "cc" * 20)))
    with pytest.raises(FormatError, match="verdict"):
        TokenTrace.from_bytes(stranger.to_bytes())
