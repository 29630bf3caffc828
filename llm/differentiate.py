"""One forward pass of an example, from which gradients at every module can be asked more than once.

Scores of contributions need, for each module that computes W x + s Σ_k δ_k(x), the input x and the gradient g of what
is explained at the module's output: then ⟨g, s δ_k(x)⟩ is the part of contribution k. The adapter's own weights get
no gradient, so that the backward pass costs about as much as the forward pass.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from core.errors import ModelError
from llm.attention import Paths, switchable_attention
from llm.data import Batch
from llm.loss import answer_logits
from llm.model import Model

Hook = Callable[[torch.nn.Module, tuple[Any, ...], Any], Any]


@dataclass(frozen=True, eq=False)
class Forward:
    """Logits of the answers (answers, vocabulary), their tokens, and what went in and out of the modules.

    `inputs` (rows, positions, in) are plain values, `outputs` (rows, positions, out) parts of the graph.
    """

    logits: torch.Tensor
    wanted: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    _paths: Paths

    @property
    def scores(self) -> torch.Tensor:
        """The logit of every answer token: shape (answers,)."""
        return self.logits.gather(-1, self.wanted.unsqueeze(-1)).squeeze(-1)

    @property
    def logprobs(self) -> torch.Tensor:
        """The log probability of every answer token in nats: shape (answers,)."""
        return self.scores - self.logits.logsumexp(-1)

    def gradients(self, of: torch.Tensor, own: bool = False) -> dict[str, torch.Tensor]:
        """Gradient of the scalar `of` at every output; with `own` only along each position's own path."""
        self._paths.own = own
        found = torch.autograd.grad(of, list(self.outputs.values()), retain_graph=True)
        return dict(zip(self.outputs, found, strict=True))


def forward(
    model: Model, batch: Batch, modules: Mapping[str, torch.nn.Module], entry: torch.nn.Module | None = None
) -> Forward:
    """Run `batch` and keep what goes in and out of `modules`; the graph begins at the output of `entry`.

    `entry` is the input embedding when it is None. Raises ModelError for attention that cannot be differentiated so.
    """
    seen = Seen()
    begin = model.module.get_base_model().get_input_embeddings() if entry is None else entry
    hooks = [(begin, _begin), *((module, seen.hook(name)) for name, module in modules.items())]
    with switchable_attention(model) as paths, frozen(model), torch.enable_grad(), hooked(hooks):
        logits, wanted = answer_logits(model, batch)
    if not paths.calls:
        raise ModelError(f"attribution: {type(model.module.get_base_model()).__name__} brings its own attention")
    return Forward(logits, wanted, seen.inputs, seen.outputs, paths)


@dataclass
class Seen:
    """What went in and out of modules during forward passes."""

    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)

    def hook(self, name: str) -> Hook:
        """A forward hook that keeps a module's input and output under `name`."""

        def keep(_module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.inputs[name], self.outputs[name] = inputs[0].detach(), output

        return keep


@contextmanager
def hooked(hooks: list[tuple[torch.nn.Module, Hook]]) -> Iterator[None]:
    """Inside, forward hooks are in place, those of one module in the order given."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """Inside, the adapter asks for no gradient; the base never does."""
    asking = [linear.weight for _, linear in model.factors() if linear.weight.requires_grad]
    for parameter in asking:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


def _begin(_module: torch.nn.Module, _inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    return output.requires_grad_()
