"""Cross-entropy of answer tokens, the one forward pass that training and evaluation share."""

import torch
from torch.nn.functional import cross_entropy

from llm.batches import IGNORED, Batch
from llm.model import Model


def answer_losses(model: Model, batch: Batch) -> torch.Tensor:
    """Return −log p of every answer token of `batch` in nats, float32, in row-major order: shape (len(batch),)."""
    return cross_entropy(*answer_logits(model, batch), reduction="none")


def answer_logits(model: Model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the answers' logits, float32 (len(batch), vocabulary), and their tokens, int64 (len(batch),)."""
    answered = batch.targets != IGNORED
    network = model.module.get_base_model()
    # Only positions that predict an answer token go through the output layer: on long prompts and large vocabularies
    # that layer and its logits are most of the cost.
    only_answers = network.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: (given[0][answered.to(given[0].device)],)
    )
    with model.autocast(), only_answers:
        if batch.entering is None or model.lower_blocks is None:
            logits = network(input_ids=batch.tokens, position_ids=batch.positions, use_cache=False).logits
        else:
            with model.lower_blocks.skipped():
                output = network(inputs_embeds=batch.entering, position_ids=batch.positions, use_cache=False)
            logits = output.logits
    return logits.float(), batch.targets[answered]
