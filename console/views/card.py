"""The model card that an exported adapter carries: its digests, organisations and rounds."""

import json

from core.canonical import Digest
from core.escape import markdown
from core.storage.run_folder import RunFolder
from llm.bases import published

_COMPOSED = {
    "ensemble": "mixes their next-token probabilities",
    "routing": "answers each prompt with one of them",
}
"""How a run of independently trained lanes uses its adapters."""
_CARD = """\
---
base_model: {yaml}
library_name: peft
tags: [lora, federated-learning, foedus]
---
# Adapter of run {run}

A LoRA adapter that {members} organisations trained together with Foedus, aggregated by
{rule}. Load it with `PeftModel.from_pretrained(base, "this folder")`.{lanes}

| what | value |
|---|---|
| served aggregate | `{aggregate}` |
| genesis | `{genesis.digest}` |
| base model | {base}, `{genesis.base.digest}` |
| base held as | {held} while training |
| rank, alpha | {genesis.rank}, {genesis.alpha:g} in every round |
| coordinator | `{genesis.coordinator}` |
| chain, contract | {genesis.chain.chain_id}, `{genesis.chain.contract}` |
| seed | {genesis.seed} |
| goes on from | {origin} |

## Organisations

| name | address | examples | key |
|---|---|---|---|
{organisations}

## Rounds

| round | lane | admitted | rejected | aggregate | record |
|---|---|---|---|---|---|
{rounds}

## Licence

None is granted here. The adapter is a derivative of the base model and of every organisation's data: the base's
licence and the organisations' agreement decide how it may be used.
"""


def model_card(run: RunFolder, aggregate: Digest) -> str:
    """Markdown with the metadata block that model hubs read; `aggregate` is the digest of the served adapter."""
    genesis, lanes = run.genesis, ""
    if way := _COMPOSED.get(genesis.composition):
        lanes = f"\n\nIt is one of {len(genesis.lanes)} independently trained lanes: the run {way}."
    organisations = "\n".join(
        f"| {markdown(o.name)} | `{o.address}` | {o.examples} | {'derived: a simulation' if o.derived else 'its own'} |"
        for o in genesis.everyone
    )
    rounds = "\n".join(
        f"| {r.round} | {r.lane} | {len(r.admitted)} | {len(r.rejected)} | `{r.aggregate}` | `{r.digest}` |"
        for r in (signed.value for signed in run.records())
    )
    return _CARD.format(
        genesis=genesis,
        yaml=json.dumps(published(genesis.base.name)),  # text in JSON is text in YAML
        run=markdown(genesis.run),
        base=markdown(genesis.base.name),
        rule=markdown(genesis.rule),
        held=markdown(genesis.base.quantisation),
        members=len(genesis.everyone),
        aggregate=aggregate,
        origin=f"run {markdown(genesis.origin.run)}, `{genesis.origin.genesis}`" if genesis.origin else "nothing",
        lanes=lanes,
        organisations=organisations,
        rounds=rounds,
    )
