"""Train `foedus-tiny`, the embedded base model, or another small model of the same kind, from scratch.

Decisions:

- Text: `DATA/{medical,financial,math,coding}/base.jsonl` and what `benchmarks.base_text` generates; never the
  organisations' own records. One part in forty of the base records, grouped by input so that a table is never on
  both sides, is held out to choose the weights; `dev.jsonl` is read once, at the end.
- A record is one document of the chat template. Documents are packed whole into rows (split only when longer than
  a row), with attention and positions that stop at the document's edges: training sees what evaluation shows.
- Matrices are trained with Muon (Jordan et al. 2024), embeddings and norms with AdamW. The rate is warmed up, held
  and then falls linearly to zero over wall-clock time (or steps), so a busy machine still ends annealed.
- Copying heads are set once, part-way (see `benchmarks.copying_heads`); the optimisers then begin afresh.
- Digits are single tokens: copying and calculating then work on places, not on chance merges.
- Bits per character = nats of the answer's tokens and its end / ln 2 / characters of the answer, for the model, its
  untrained self and a character 6-gram, which reads the same text, and once the real records alone: the harder
  rival, because the dev answers are real too.
- A run that is over is only measured again when the command is repeated with its `--work` folder.

    python -m benchmarks.train_base --data DATA --out assets/base/foedus-tiny --work BUILD --minutes 90
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import platform
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

from benchmarks import arguments, json_lines
from benchmarks.base_text import SIZES, TextRecord, corpus
from benchmarks.copying_heads import set_copying_heads
from benchmarks.ngram import CharacterNgram

log = logging.getLogger("train_base")

DOMAINS = ("medical", "financial", "math", "coding")
GENERATED_PARTS = 3
"""A pass over the text holds every base record and one of so many parts of the generated ones."""
HELD_OUT_ONE_IN = 40

BOS, USER, ASSISTANT, END, PAD = "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% set ns = namespace(system='') %}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{% set ns.system = ns.system + message['content'] + '\n' %}"
    "{% elif message['role'] == 'user' %}<|user|>{{ ns.system }}{{ message['content'] }}{% set ns.system = '' %}"
    "{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('unknown role: ' + message['role']) }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PIECES = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+ (?=\p{N})| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""GPT-2's pieces with single digits; punctuation takes the blank that parts it from a digit (" | ", " = ")."""

ANSWER_WEIGHT = {"medical": 1.0, "financial": 4.0, "math": 1.5, "coding": 1.5, "copying": 1.0}
PROMPT_WEIGHT = {"medical": 0.5, "financial": 0.15, "math": 0.3, "coding": 0.3, "copying": 0.05}
FAMILIES = {"llama": "llama", "gemma3": "gemma3_text", "qwen2": "qwen2", "qwen3": "qwen3", "smollm3": "smollm3"}
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Options:
    """What the command line chose; written beside the weights."""

    data: Path
    out: Path
    work: Path
    family: str
    hidden: int
    layers: int
    vocabulary: int
    minutes: float
    steps: int | None
    length: int
    rows: int
    rate: float
    seed: int
    threads: int
    copying_heads_at: float


@dataclass(frozen=True)
class Document:
    """A tokenised record: ids (T,), and the loss weight of each token as a target (T,)."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]
    answer_from: int
    domain: str


@dataclass
class Progress:
    """Where the training stands; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    position: int = 0
    best: float = math.inf
    copying_heads: bool = False
    history: list[dict[str, float]] = field(default_factory=list)


# --- text --------------------------------------------------------------------------------------------------


def read_records(path: Path, domain: str) -> list[TextRecord]:
    """Read the records of one JSON Lines file."""
    return [TextRecord(domain, row["instruction"], row["input"], row["output"]) for row in json_lines.read(path)]


@dataclass(frozen=True)
class Corpora:
    """The three sets of records: real ones to train on, real ones to choose the weights by, and generated ones."""

    base: Sequence[TextRecord]
    held_out: Sequence[TextRecord]
    generated: Sequence[TextRecord]


def read_corpora(data: Path, seed: int) -> Corpora:
    """Read the base records of every domain, hold some out, and generate the rest."""
    records = [r for domain in DOMAINS for r in read_records(data / domain / "base.jsonl", domain)]
    generated = corpus(seed, SIZES)
    random.Random(seed).shuffle(generated)  # noqa: S311  order, not secrets
    return Corpora([r for r in records if not is_held_out(r)], [r for r in records if is_held_out(r)], generated)


def is_held_out(record: TextRecord) -> bool:
    """Say whether the record's group (its input, else its instruction) is kept out of training."""
    group = (record.input or record.instruction).encode()
    return int.from_bytes(hashlib.sha256(group).digest()[:4], "big") % HELD_OUT_ONE_IN == 0


def build_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of `vocabulary` tokens; every byte string can be encoded and comes back unchanged."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[BOS, USER, ASSISTANT, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )


def encode(record: TextRecord, tokenizer: PreTrainedTokenizerFast) -> Document:
    """Return the record as the chat template writes it, with the weights of its tokens as targets."""
    prompt = tokenizer.encode(f"{BOS}{USER}{record.prompt}{ASSISTANT}", add_special_tokens=False)
    answer = tokenizer.encode(f"{record.output}{END}", add_special_tokens=False)
    # BOS and the marks of both turns are given, not predicted.
    weights = [0.0, 0.0, *[PROMPT_WEIGHT[record.domain]] * (len(prompt) - 3), 0.0]
    weights += [ANSWER_WEIGHT[record.domain]] * len(answer)
    return Document((*prompt, *answer), tuple(weights), len(prompt), record.domain)


# --- packing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PackedBatch:
    """Packed rows: ids, positions and documents are int64 (B, T); weights are float32 (B, T)."""

    ids: Tensor
    positions: Tensor
    documents: Tensor
    weights: Tensor

    @property
    def mask(self) -> Tensor:
        """The attention mask, bool (B, 1, T, T): causal and within one document."""
        same = self.documents[:, :, None] == self.documents[:, None, :]
        return (same & torch.ones(same.shape[1:], dtype=torch.bool).tril())[:, None]


def pack(documents: Sequence[Document], length: int, open_rows: int = 48) -> Iterator[list[Document]]:
    """Yield rows of whole documents that fill at most `length` tokens, best fit among `open_rows` open ones."""
    rows: list[list[Document]] = []
    room: list[int] = []
    for document in documents:
        for part in _parts(document, length):
            fits = [i for i, free in enumerate(room) if free >= len(part.ids)]
            if fits:
                i = min(fits, key=room.__getitem__)
                rows[i].append(part)
                room[i] -= len(part.ids)
            else:
                rows.append([part])
                room.append(length - len(part.ids))
            if len(rows) > open_rows:
                i = room.index(min(room))
                room.pop(i)
                yield rows.pop(i)
    yield from rows


def _parts(document: Document, length: int) -> Iterator[Document]:
    for i in range(0, len(document.ids), length):
        ids, weights = document.ids[i : i + length], document.weights[i : i + length]
        yield Document(ids, weights, max(document.answer_from - i, 0), document.domain)


def collate(rows: Sequence[Sequence[Document]], length: int, pad: int) -> PackedBatch:
    """Lay packed rows out as tensors of shape (len(rows), length)."""
    ids = torch.full((len(rows), length), pad)
    positions, documents = torch.zeros_like(ids), torch.full_like(ids, -1)
    weights = torch.zeros(ids.shape)
    for r, row in enumerate(rows):
        start = 0
        for d, document in enumerate(row):
            span = slice(start, start + len(document.ids))
            ids[r, span] = torch.tensor(document.ids)
            positions[r, span] = torch.arange(len(document.ids))
            documents[r, span] = d
            weights[r, span] = torch.tensor(document.weights)
            weights[r, start] = 0.0  # nothing precedes a document's first token
            start = span.stop
    return PackedBatch(ids, positions, documents, weights)


class Text:
    """The endless, seeded stream of packed rows; a position in it can be returned to."""

    def __init__(self, base: Sequence[Document], generated: Sequence[Document], length: int, seed: int) -> None:
        self._base, self._generated, self._length, self._seed = base, generated, length, seed

    def rows_from(self, position: int) -> Iterator[list[Document]]:
        """Yield the rows from the `position`-th on, pass after pass."""
        seen = 0
        number = 0
        while True:
            rows = self._one_pass(number)
            if seen + len(rows) > position:
                yield from rows[max(position - seen, 0) :]
            seen += len(rows)
            number += 1

    def sample(self, count: int) -> list[Document]:
        """Return at most `count` documents of the first pass."""
        documents = [document for row in self._one_pass(0) for document in row]
        return documents[:count]

    def _one_pass(self, number: int) -> list[list[Document]]:
        # A pass depends on its number alone: a resumed run meets the same rows.
        rng = random.Random(self._seed * 1000 + number)  # noqa: S311  order, not secrets
        documents = [*self._base, *self._generated[number % GENERATED_PARTS :: GENERATED_PARTS]]
        rng.shuffle(documents)
        rows = list(pack(documents, self._length))
        rng.shuffle(rows)
        return rows


# --- model and optimiser -----------------------------------------------------------------------------------


def build_model(options: Options, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """Return a randomly initialised causal LM; every linear layer's sides are multiples of 64 (an NF4 block)."""
    heads = options.hidden // HEAD_WIDTH
    torch.manual_seed(options.seed)
    config = AutoConfig.for_model(
        FAMILIES[options.family],
        vocab_size=len(tokenizer),
        hidden_size=options.hidden,
        intermediate_size=64 * round(options.hidden * 2.75 / 64),
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=HEAD_WIDTH,
        max_position_embeddings=1024,
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model


def build_optimisers(model: PreTrainedModel, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for embeddings, norms and biases."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name and "lm_head" not in name]
    embeddings = [p for name, p in named if p.ndim == 2 and ("embed" in name or "lm_head" in name)]
    vectors = [p for _, p in named if p.ndim < 2]
    adam = [{"params": embeddings, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adam, lr=rate * 0.5, betas=(0.9, 0.95)),
    ]
    # The schedule scales every group's own peak.
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak"] = group["lr"]
    return optimisers


def rate_at(done: float, step: int, warmup: int = 40, hold: float = 0.4) -> float:
    """Return the part of the peak rate when the share `done` of the time is over: warm up, hold, fall to zero."""
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, (1.0 - done) / (1.0 - hold)))


def token_nats(model: PreTrainedModel, batch: PackedBatch) -> Tensor:
    """Return -log p of every token given those before it in its document, float32 (B, T); 0 at position 0."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(
            input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions, use_cache=False
        ).logits
    nats = functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    return functional.pad(nats.view(batch.ids.shape[0], -1), (1, 0))


# --- measuring ---------------------------------------------------------------------------------------------


@torch.no_grad()
def answer_nats(model: PreTrainedModel, documents: Sequence[Document], pad: int) -> list[float]:
    """Return for each document the nats of its answer and end.

    A document longer than the model's positions loses the beginning of its prompt, never a part of its answer.
    """
    model.eval()
    nats = []
    for document in documents:
        cut = max(0, len(document.ids) - model.config.max_position_embeddings)
        part = Document(document.ids[cut:], document.weights[cut:], document.answer_from - cut, document.domain)
        row = token_nats(model, collate([[part]], len(part.ids), pad))[0]
        nats.append(float(row[part.answer_from :].sum()))
    model.train()
    return nats


def per_domain(records: Sequence[TextRecord], nats: Sequence[float]) -> dict[str, float]:
    """Return bits per character of the answers, by domain."""
    bits = {}
    for domain in dict.fromkeys(record.domain for record in records):
        chosen = [(n, len(r.output)) for r, n in zip(records, nats, strict=True) if r.domain == domain]
        bits[domain] = sum(n for n, _ in chosen) / math.log(2) / sum(characters for _, characters in chosen)
    return bits


def compare_on_dev(
    options: Options,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    corpora: Corpora,
) -> dict[str, dict[str, float]]:
    """Return bits per character on every domain's dev answers: this model, untrained, and the 6-grams."""
    dev = [r for domain in DOMAINS for r in read_records(options.data / domain / "dev.jsonl", domain)]
    documents = [encode(record, tokenizer) for record in dev]
    pad = int(tokenizer.pad_token_id)
    return {
        "trained": per_domain(dev, answer_nats(model, documents, pad)),
        "untrained": per_domain(dev, answer_nats(build_model(options, tokenizer), documents, pad)),
        "character 6-gram, same text": per_domain(dev, ngram_nats([*corpora.base, *corpora.generated], dev)),
        "character 6-gram, real records": per_domain(dev, ngram_nats(corpora.base, dev)),
    }


def ngram_nats(training: Sequence[TextRecord], records: Sequence[TextRecord]) -> list[float]:
    """Return for each record the nats of its answer and end under a character 6-gram of the training records."""
    ngram = CharacterNgram(6).fit((record.prompt, record.output) for record in training)
    return [ngram.nats(record.prompt, record.output) for record in records]


# --- the run -----------------------------------------------------------------------------------------------


class Run:
    """One training: model, optimisers and progress, which a checkpoint holds together."""

    def __init__(self, options: Options, model: PreTrainedModel, text: Text, pad: int) -> None:
        self.options, self.model, self.text, self.pad = options, model, text, pad
        self.optimisers = build_optimisers(model, options.rate)
        self.progress = Progress()
        self._checkpoint = options.work / "checkpoint.pt"

    @property
    def done(self) -> float:
        """The share of the steps, or else of the time, that is over."""
        if self.options.steps is not None:
            return self.progress.step / self.options.steps
        return self.progress.seconds / (60 * self.options.minutes)

    def resume(self) -> None:
        """Go on from the last checkpoint, when there is one."""
        if self._checkpoint.exists():
            state = torch.load(self._checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(saved)
            self.progress = Progress(**state["progress"])

    def set_copying_heads(self) -> None:
        """Set the copying heads, fitted on some of the text; what was best before is no measure for what follows."""
        set_copying_heads(self.model, [document.ids for document in self.text.sample(200)], self.options.seed)
        self.optimisers = build_optimisers(self.model, self.options.rate)
        self.progress.copying_heads = True
        self.progress.best = math.inf

    def save(self) -> None:
        """Write a checkpoint whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "progress": asdict(self.progress),
        }
        torch.save(state, self._checkpoint.with_suffix(".tmp"))
        self._checkpoint.with_suffix(".tmp").replace(self._checkpoint)

    def steps(self) -> Iterator[float]:
        """Train to the end, yielding each step's weighted loss in nats a token."""
        rows = self.text.rows_from(self.progress.position)
        while self.done < 1.0:
            started = time.monotonic()
            batch = collate([next(rows) for _ in range(self.options.rows)], self.options.length, self.pad)
            loss = self._step(batch)
            progress = self.progress
            progress.step += 1
            progress.position += self.options.rows
            progress.tokens += int((batch.documents >= 0).sum())
            progress.seconds += time.monotonic() - started
            yield loss

    def _step(self, batch: PackedBatch) -> float:
        loss = (token_nats(self.model, batch) * batch.weights).sum() / batch.weights.sum()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = rate_at(self.done, self.progress.step)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * factor
            optimiser.step()
            optimiser.zero_grad()
        return loss.item()


def export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights in fp16 with configuration, generation defaults and tokenizer."""
    half = AutoModelForCausalLM.from_config(model.config, dtype=torch.float16)
    half.load_state_dict(model.state_dict())
    half.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone
    tokenizer.save_pretrained(folder)


def train(options: Options) -> None:
    """Train, choose by the held-out records, export, and write how the result compares on the dev answers."""
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    corpora = read_corpora(options.data, options.seed)
    tokenizer = _tokenizer(options, corpora)
    base, generated = ([encode(r, tokenizer) for r in part] for part in (corpora.base, corpora.generated))
    run = Run(
        options,
        build_model(options, tokenizer),
        Text(base, generated, options.length, options.seed),
        int(tokenizer.pad_token_id),
    )
    run.resume()
    log.info("%s base tokens, %s generated; %s", *(sum(len(d.ids) for d in t) for t in (base, generated)), options)
    _loop(run, tokenizer, corpora.held_out)
    best = AutoModelForCausalLM.from_pretrained(options.out, dtype=torch.float32, attn_implementation="sdpa")
    _report(options, run, compare_on_dev(options, best, tokenizer, corpora))


def _tokenizer(options: Options, corpora: Corpora) -> PreTrainedTokenizerFast:
    """Return the tokenizer that a resumed run began with, or else train one on the text of the domains."""
    saved = options.work / "tokenizer"
    if not saved.exists():
        records = [*corpora.base, *(r for r in corpora.generated if r.domain in DOMAINS)]
        build_tokenizer([f"{r.prompt}\n{r.output}" for r in records], options.vocabulary).save_pretrained(saved)
    tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(saved)
    return tokenizer


def _loop(run: Run, tokenizer: PreTrainedTokenizerFast, held_out: Sequence[TextRecord], every: float = 300.0) -> None:
    """Run the steps; measure and checkpoint every so many seconds of training, and at the end."""
    documents = [encode(record, tokenizer) for record in held_out]
    due = run.progress.seconds + every
    losses: list[float] = []
    for loss in run.steps():
        losses.append(loss)
        if run.progress.seconds >= due or run.done >= 1.0:
            due = run.progress.seconds + every
            bits = per_domain(held_out, answer_nats(run.model, documents, run.pad))
            log.info("%.0f %% done, loss %.3f, held out %s", 100 * run.done, sum(losses) / len(losses), bits)
            losses.clear()
            _keep_if_best(run, tokenizer, bits)
            if run.options.copying_heads_at <= run.done < 1.0 and not run.progress.copying_heads:
                run.set_copying_heads()
            run.save()


def _keep_if_best(run: Run, tokenizer: PreTrainedTokenizerFast, bits: dict[str, float]) -> None:
    """Note the measurement, and export the weights when their mean over the domains is the lowest so far."""
    mean = sum(bits.values()) / len(bits)
    if mean < run.progress.best:
        run.progress.best = mean
        export(run.model, tokenizer, run.options.out)
    run.progress.history.append({"step": run.progress.step, "seconds": run.progress.seconds, **bits})


def _report(options: Options, run: Run, bits: dict[str, dict[str, float]]) -> None:
    """Write `training.json` beside the weights and log the comparison."""
    folders = ("data", "out", "work")
    report = {
        "options": {key: value for key, value in asdict(options).items() if key not in folders},
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "steps": run.progress.step,
        "tokens": run.progress.tokens,
        "minutes": round(run.progress.seconds / 60, 1),
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, {options.threads} thread(s)",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "bits_per_character": {name: {d: round(b, 3) for d, b in row.items()} for name, row in bits.items()},
        "held_out": [{key: round(value, 3) for key, value in entry.items()} for entry in run.progress.history],
    }
    (options.out / "training.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    log.info("bits per character of the dev answers and their ends:\n%s", json.dumps(bits, indent=1))


def parse(words: Sequence[str] | None = None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=arguments.folder, required=True, help="folder with DOMAIN/base.jsonl and DOMAIN/dev.jsonl"
    )
    parser.add_argument("--out", type=arguments.output, required=True, help="folder for the model")
    parser.add_argument("--work", type=arguments.output, required=True, help="folder for checkpoints")
    parser.add_argument("--family", choices=sorted(FAMILIES), default="llama")
    parser.add_argument("--hidden", type=arguments.count(), default=256)
    parser.add_argument("--layers", type=arguments.count(), default=6)
    parser.add_argument("--vocabulary", type=arguments.count(), default=4096)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument(
        "--steps", type=arguments.count(), default=None, help="end after so many steps instead of minutes"
    )
    parser.add_argument("--length", type=arguments.count(), default=768, help="tokens in a packed row")
    parser.add_argument("--rows", type=arguments.count(), default=4, help="rows in a step")
    parser.add_argument("--rate", type=float, default=0.01)
    parser.add_argument("--copying-heads-at", type=float, default=0.2, help="share of the time; 1 or more: never")
    parser.add_argument("--seed", type=arguments.count(0), default=7)
    parser.add_argument("--threads", type=arguments.count(), default=1)
    return Options(**vars(parser.parse_args(words)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(parse())
