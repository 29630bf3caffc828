"""The model card of an export, for people: what it is, who taught it, what it can do, and its limits."""

import json
from collections.abc import Iterable, Sequence

from console.papers.origin import Origin
from console.web.listing import erasures_of as listed
from core.escape import markdown
from core.model_selection import perplexity
from llm.bases import licence_of, published

USES = "It answers questions of the kind that its organisations trained on, and was measured on no others."
LIMITS = (
    "Who taught it is recorded, not what it was taught: a well-formed update can teach something wrong.",
    "Losses were measured by the organisations on their own records; nobody else has seen those.",
    "Attribution measures influence on an answer. It does not show that a record was in somebody's data.",
    "What the base model gets wrong, and what it was trained on, is not changed by the adapter.",
)
"""What holds of every export."""
_COMPOSED = {
    "ensemble": "mixes their next-token probabilities",
    "routing": "answers each prompt with one of them",
}
"""How a run of independently trained lanes uses its adapters."""
_CARD = """\
---
{metadata}
---
# {title} of run {run}

{what} that {members} organisations trained together with Foedus, aggregated by
{rule}. The organisations' records never left them.{lanes}

## Use

{use}

{uses}

## Organisations

{pseudonyms} An organisation has as many updates as rounds admitted it.

{organisations}{former}

## Evaluation

{evaluation}

## Limits

{limits}

## Erasures

{erasures}

## Licence

{licence} It derives from the base model ({base_licence}) and from every organisation's data: the base's licence and the
organisations' agreement decide how it may be used.

## Check it

`model.sig` signs every file here in the OpenSSF Model Signing format. `provenance.intoto.jsonl` binds them to base, run
and chain, and `bom.cdx.json` is the bill of materials. With the signer's public key, which you have from the signer:

```bash
pip install model-signing
model_signing verify key . --signature model.sig --public-key signing.pub
```

{facts}

Served rounds: the commitment on the chain is SHA-256 over tag, salt and outcome, as the statement has them.

{rounds}
"""
_LOAD = """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base}), "this folder")
```

```bash
vllm serve {base} --enable-lora --max-lora-rank {rank} --lora-modules taught=this-folder
```"""
_MERGED = """\
```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("this folder")
```"""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""


def model_card(origin: Origin, rank: int = 0) -> str:
    """Markdown with the metadata that model hubs read; `rank` is the adapter's, 0 where it is merged."""
    genesis = origin.run.genesis
    base = published(genesis.base.name)
    metadata = {
        "base_model": base,
        "library_name": "peft" if rank else "transformers",
        "pipeline_tag": "text-generation",
        **({"license": origin.licence.lower()} if origin.licence else {}),
        "tags": ["lora", "federated-learning", "foedus"],
    }
    known = next((known for known in VLLM_RANKS if known >= rank), rank)
    use = _LOAD.format(base=json.dumps(base), rank=known) if rank else _MERGED
    way = _COMPOSED.get(genesis.composition)
    return _CARD.format(
        # Text in JSON is text in YAML.
        metadata="\n".join(f"{name}: {json.dumps(value)}" for name, value in metadata.items()),
        title="Adapter" if rank else "Model",
        what="A LoRA adapter" if rank else f"{markdown(base)} with a LoRA adapter in its weights",
        run=markdown(genesis.run),
        members=len(origin.teachers),
        rule=markdown(genesis.rule),
        lanes=f"\n\nIt is one of {len(genesis.lanes)} independently trained lanes: the run {way}." if way else "",
        use=use,
        uses=USES,
        pseudonyms="" if origin.named else "They are named by their addresses, under which they stand on the chain.",
        organisations=organisations_of(origin),
        former="".join(f"\n\n{line}" for line in former_of(origin)),
        evaluation=evaluation_of(origin),
        limits="\n".join(f"- {limit}" for limit in (*LIMITS, *limits_of(origin))),
        erasures=erasures_of(origin),
        licence=f"{origin.licence}." if origin.licence else "None is granted here.",
        base_licence=licence_of(genesis.base.name) or "its licence is not known here",
        facts=facts_of(origin),
        rounds=_table(
            ("lane", "generation", "round", "record", "transaction"),
            [(h.record.lane, h.record.generation, h.record.round, f"`{h.record.digest}`",
              f"`{h.anchor.transaction}`" if h.anchor else "not committed yet") for h in origin.heads],
        ),
    )  # fmt: skip


def organisations_of(origin: Origin) -> str:
    """A table of who taught it."""
    return _table(
        ("organisation", "examples", "updates", "key"),
        [(markdown(t.called), t.organisation.examples, t.updates,
          "derived: a simulation" if t.organisation.derived else "its own") for t in origin.teachers],
    )  # fmt: skip


def former_of(origin: Origin) -> Iterable[str]:
    """The run that this one continues, and who was erased there since; nothing for one that began from zero."""
    run = origin.run
    if (named := run.genesis.origin) is None:
        return
    yield (
        f"It continues run {markdown(named.run)} (genesis `{named.genesis}`), whose adapter `{named.state}` it began "
        "with. Who taught that stands on that run's card."
    )
    if run.former and (erased := run.former.erased_since(named.record)):
        who = erased if origin.named else [run.former.genesis.named(name).address for name in erased]
        yield f"Erased there since, and still in this one: {', '.join(map(markdown, who))}."


def evaluation_of(origin: Origin) -> str:
    """Losses and perplexities, as the organisations measured them."""
    if not origin.losses:
        return "Nobody has measured what is served."
    rows = [
        (markdown(called), f"{before:.3f}", f"{after:.3f}", *(f"{perplexity(loss):.1f}" for loss in (before, after)))
        for called, before, after in origin.losses
    ]
    columns = ("held-out records of", "loss of the base", "loss", "perplexity of the base", "perplexity")
    return f"Loss in nats per answer token, as each organisation measured it.\n\n{_table(columns, rows)}"


def limits_of(origin: Origin) -> Iterable[str]:
    """What holds of this run."""
    genesis = origin.run.genesis
    if genesis.privacy:
        epsilon, delta = genesis.privacy.epsilon, genesis.privacy.delta
        yield f"Each record is protected by differential privacy: ε {epsilon:g}, δ {delta:g}."
    else:
        yield "No noise was added: records can, in part, be inferred from what was trained on them."
    if any(teacher.organisation.derived for teacher in origin.teachers):
        yield "It is a simulation: keys are derived from the seed, so anybody can sign as any organisation."


def erasures_of(origin: Origin) -> str:
    """Each erasure: what was asked for, and the label of its certificate."""
    genesis = origin.run.genesis
    rows = [
        (one["date"], markdown(one["organisation"] if origin.named else genesis.named(one["organisation"]).address),
         f"{one['records']} records" if one["records"] else "all", one["method"], one["label"])
        for one in listed(origin.run)
    ]  # fmt: skip
    return _table(("date", "organisation", "erased", "method", "label"), rows) if rows else "None."


def facts_of(origin: Origin) -> str:
    """A table of what fixes it."""
    genesis = origin.run.genesis
    facts = {
        "served aggregate": f"`{origin.aggregate}`",
        "genesis": f"`{genesis.digest}`",
        "base model": f"{markdown(genesis.base.name)}, `{genesis.base.digest}`",
        "signature of the base": origin.base_signature or "not looked at",
        "base held as": f"{markdown(genesis.base.quantisation)} while training",
        "rank, alpha": f"{genesis.rank}, {genesis.alpha:g} in every round",
        "coordinator": f"`{genesis.coordinator}`",
        "chain, contract": f"{genesis.chain.chain_id}, `{genesis.chain.contract}`",
        "seed": f"{genesis.seed}",
    }
    return _table(("what", "value"), [*facts.items()])


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
