"""Private training: DP-SGD (Abadi et al., 2016, arXiv 1607.00133) of the factor B alone, with A fixed.

    sample   every record with the same probability, independently of the others (Poisson sampling)
    clip     each record's gradient of its mean answer loss, over all adapted layers, to a norm of at most C
    noise    add N(0, (σ C)²) to every number of their sum
    step     the optimiser's, with that sum over the expected number of records

Whatever follows the noise (the optimiser's state, the step's own clipping) computes with nothing else, and costs no
privacy. Sampling and noise come from a secret stream (core/secret_stream.py): whoever knows the noise can take it off.
A step that draws no record is a step all the same; its noise is what hides that.

B is linear in what enters it: a record's gradient is Σ_t g_t z_tᵀ, with z_t = A x_t at position t and g_t the loss's
gradient there. So one backward pass over rows of one record each gives the gradient of every record (Goodfellow, 2015,
arXiv 1510.01799; Li et al., 2022, arXiv 2110.05679), each as large as B.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from core.adapter import AdapterState
from core.errors import ModelError
from core.secret_stream import SecretStream
from llm.batches import IGNORED, Batch, Example, collate
from llm.determinism import reproducible
from llm.loss import answer_losses
from llm.model import Model
from llm.records import Record
from llm.train import Loop, TrainConfig, TrainResult, answered, training_mode


@dataclass(frozen=True)
class Mechanism:
    """The sampled Gaussian mechanism of one call; its fields decide what it costs, and its secret what it draws."""

    rate: float
    """The probability with which a step draws a record."""
    clip: float
    """C, the largest L2 norm of a record's gradient."""
    noise: float
    """σ, the noise's standard deviation in units of C."""
    expected: float
    """The number of records that a step is scaled for, at least 1."""
    secret: bytes = field(repr=False)
    """32 bytes that decide sampling and noise; for this call alone."""


def train_privately(
    model: Model, records: Sequence[Record], parent: AdapterState, config: TrainConfig, mechanism: Mechanism, seed: int
) -> TrainResult:
    """Train `parent` as `train` does, privately; `seed` decides dropout alone. Loss and counts are not private.

    Raises ModelError when `parent` does not fit the model, or its layers keep no rows apart.
    """
    started = time.perf_counter()
    stream = SecretStream(mechanism.secret)
    with reproducible(model.device, seed), training_mode(model, config):
        model.set_adapter(parent)
        loop = PrivateLoop(model, config, mechanism, stream)
        for step in range(config.steps):
            drawn = stream.uniforms(len(records)) < mechanism.rate
            sample = (records[index] for index in drawn.nonzero()[0].tolist())
            # A record that leaves no answer has a gradient of zero.
            loop.private_step(list(answered(model, sample, config.max_length)), config.rate(step))
    return loop.result(started)


class PrivateLoop(Loop):
    """A loop whose steps are private."""

    def __init__(self, model: Model, config: TrainConfig, mechanism: Mechanism, stream: SecretStream) -> None:
        super().__init__(model, config)
        self.mechanism, self.stream = mechanism, stream

    def private_step(self, examples: Sequence[Example], rate: float) -> None:
        """One optimiser step on the records that were drawn for it."""
        sums = {weight: torch.zeros_like(weight, dtype=torch.float32) for weight in self.masks}
        size = self.config.batch_size
        for first in range(0, len(examples), size):
            rows = range(first, min(first + size, len(examples)))
            for weight, clipped in self._clipped(collate(examples, [(index,) for index in rows])).items():
                sums[weight] += clipped
            self.answers += len(rows)
        deviation = self.mechanism.noise * self.mechanism.clip
        for weight, total in sums.items():
            noise = torch.from_numpy(self.stream.normals(*weight.shape)).to(weight.device)
            weight.grad = ((total + deviation * noise) / self.mechanism.expected).to(weight.dtype)
        self.descend(rate)

    def _clipped(self, batch: Batch) -> dict[torch.nn.Parameter, torch.Tensor]:
        """The sum of the rows' gradients, each scaled down to the clipping norm where it is longer."""
        with gradients_by_row(self.model, len(batch.tokens)) as gradients:
            self.accumulate(batch, mean_of_rows)
        for weight, mask in self.masks.items():
            if mask is not None:
                gradients[weight] *= mask
        squares = [each.flatten(1).square().sum(1).to(self.model.device) for each in gradients.values()]
        norms = torch.stack(squares).sum(0).sqrt()
        scales = (self.mechanism.clip / norms.clamp(min=1e-12)).clamp(max=1.0)
        # A row whose gradient is not finite has no norm to scale it by: it counts as zero.
        scales = torch.where(norms.isfinite(), scales, 0.0)
        return {
            weight: torch.einsum("b,bor->or", scales.to(each.device), each.nan_to_num(0.0, 0.0, 0.0))
            for weight, each in gradients.items()
        }


def mean_of_rows(model: Model, batch: Batch) -> torch.Tensor:
    """The sum over rows of the mean loss of a row's answer tokens, in nats."""
    losses = answer_losses(model, batch)
    rows = (batch.targets != IGNORED).nonzero()[:, 0]
    counts = torch.bincount(rows, minlength=len(batch.tokens))
    return (losses / counts[rows]).sum()


@contextmanager
def gradients_by_row(model: Model, rows: int) -> Iterator[dict[torch.nn.Parameter, torch.Tensor]]:
    """Inside, a backward pass fills the value: the gradient of every B for each row, float32 (rows, out, r).

    Raises ModelError in the forward pass of a layer that does not keep the batch's `rows` apart.
    """
    gradients: dict[torch.nn.Parameter, torch.Tensor] = {}

    def keep(linear: torch.nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> None:
        entering = given[0].detach().float()
        if entering.dim() != 3 or len(entering) != rows:
            raise ModelError(
                f"dp-epsilon: expected layers whose input is ({rows}, positions, width), got {entering.shape}"
            )
        weight = cast(torch.nn.Parameter, linear.weight)

        def add(gradient: torch.Tensor) -> None:
            found = torch.einsum("bto,btr->bor", gradient.float(), entering)
            gradients[weight] = gradients[weight] + found if weight in gradients else found

        # Under gradient checkpointing the first forward pass has no graph, and the one in the backward pass has.
        if output.requires_grad:
            cast(Any, output).register_hook(add)

    factors = [linear for name, linear in model.factors() if name.endswith("lora_B")]
    handles = [linear.register_forward_hook(keep) for linear in factors]
    try:
        yield gradients
    finally:
        for handle in handles:
            handle.remove()
