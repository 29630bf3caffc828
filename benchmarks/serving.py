"""The server's decoding against transformers' own `generate`, and the cost of scores while it generates.

    python -m benchmarks.serving [--state .foedus] [--run RUN] [--pairs 5] [--tokens 32]

The model is that of a finished run. One answer at a time, by the same adapter, each by all three in turn; an answer
begins with its prompt, and with provenance it ends with its verdict. Then as many answers together as the server
decodes at a time. Times are CPU seconds of the process in one thread, so that other work hardly counts.
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks import arguments, report
from benchmarks.timing import cpu_timed
from core.storage.state_folder import State
from llm.batches import encode_prompt
from llm.decoding import Answer, Decoder
from llm.records import Message
from provenance.method import Subject
from provenance.served import subject
from provenance.serving import GREEDY, STREAMED, Question, ServedSubject, answer

LEAST_SPEED = 0.9
"""Tokens a second of ours over those of `generate`."""
MOST_PROVENANCE = 1.3
"""Time of an answer with scores over that of one without."""
_ROWS = 8
_PROMPTS = (
    "Explain in detail how rain forms.", "Tell me a long story about a fox and a hen.",
    "List ten rivers and where they end.",
    "Describe how bread is baked, step by step.", "Why do leaves fall in autumn?",
)  # fmt: skip


def peer(found: Subject, prompt: str, most: int) -> int:
    """Tokens that transformers generates for a prompt, with PEFT's own layers."""
    tokens = torch.tensor([encode_prompt(found.model.tokenizer, prompt)])
    found.model.set_adapter(found.adapter)
    with torch.no_grad(), found.model.autocast():
        made = found.model.module.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=most, min_new_tokens=most,
            do_sample=False, pad_token_id=0,
        )  # fmt: skip
    return int(made.shape[1] - tokens.shape[1])


def ours(served: ServedSubject, prompt: str, most: int, method: str) -> int:
    """Tokens of our own answer, to its trace where a method is named."""
    reply = answer(Question((Message("user", prompt),), most, method=method), served)
    reply.trace()
    return len(reply.answer.tokens)


def together(found: Subject, served: ServedSubject, rows: int, most: int) -> int:
    """Tokens of so many answers that are decoded at once."""
    decoder = Decoder(found.model)
    prompts = [encode_prompt(found.model.tokenizer, _PROMPTS[i % len(_PROMPTS)]) for i in range(rows)]
    answers = [Answer(prompt, served.factors(found), GREEDY, most) for prompt in prompts]
    for one in answers:
        decoder.begin(one)
    while len(decoder):
        decoder.step()
    return sum(len(one.tokens) for one in answers)


def in_turn(ways: Mapping[str, Callable[[str], int]], pairs: int) -> dict[str, list[float]]:
    """CPU seconds a token of every way to answer, prompt by prompt."""
    for way in ways.values():  # what is made once is made before anything is timed
        way(_PROMPTS[0])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(pairs):
        for name in sorted(ways, reverse=bool(index % 2)):
            count, took = cpu_timed(partial(ways[name], _PROMPTS[index % len(_PROMPTS)]))
            seconds[name].append(took / count)
    return seconds


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path(".foedus"))
    parser.add_argument("--run", default="")
    parser.add_argument("--pairs", type=arguments.count(), default=5)
    parser.add_argument("--tokens", type=arguments.count(), default=32)
    options = parser.parse_args()
    run = State.at(options.state.absolute()).existing(options.run)
    torch.set_num_threads(1)
    found = subject(run)
    if not isinstance(found, Subject):
        raise SystemExit("expected a run that serves one adapter, got an ensemble")
    served = ServedSubject(found)
    # An answer that ends early would be timed for its prompt: all are of one length.
    found.model.module.get_base_model().generation_config.eos_token_id = None
    ways: dict[str, Callable[[str], int]] = {
        "generate": lambda prompt: peer(found, prompt, options.tokens),
        "ours": lambda prompt: ours(served, prompt, options.tokens, ""),
        "with provenance": lambda prompt: ours(served, prompt, options.tokens, STREAMED),
    }
    seconds = in_turn(ways, options.pairs)
    count, took = cpu_timed(partial(together, found, served, _ROWS, options.tokens))
    figures = {
        "base": run.genesis.base.name, "organisations": len(run.genesis.organisations), "tokens": options.tokens,
        "tokens_per_cpu_second": {
            **{name: 1 / median(times) for name, times in seconds.items()}, "eight together": count / took,
        },
        "speed": median(a / b for a, b in zip(seconds["generate"], seconds["ours"], strict=True)),
        "provenance": median(a / b for a, b in zip(seconds["with provenance"], seconds["ours"], strict=True)),
        "least_speed": LEAST_SPEED, "most_provenance": MOST_PROVENANCE,
    }  # fmt: skip
    command = f"python -m benchmarks.serving --pairs {options.pairs} --tokens {options.tokens}"
    report.write("serving", figures, command, run.genesis.seed)
    report.print_table(("", "tokens a CPU second"), list(figures["tokens_per_cpu_second"].items()))
    print(f"Target: speed ≥ {LEAST_SPEED:g}×. Measured: {figures['speed']:.2f}×.")
    print(f"Target: time with provenance ≤ {MOST_PROVENANCE:g}×. Measured: {figures['provenance']:.2f}×.")


if __name__ == "__main__":
    main()
