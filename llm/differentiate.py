"""One forward pass of an example, from which gradients at every module can be asked more than once.

Scores of contributions need, for each module that computes W x + s Σ_k δ_k(x), the input x and the gradient g of the
explained scalar at the output: then ⟨g, s δ_k(x)⟩ is the part of contribution k.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from core.errors import ModelError
from llm.attention import Paths, switchable_attention
from llm.batches import Batch
from llm.loss import answer_logits
from llm.model import Model

Hook = Callable[[torch.nn.Module, tuple[Any, ...], Any], Any]


@dataclass(frozen=True, eq=False)
class Forward:
    """Logits of the answers (answers, vocabulary), the answers' tokens, and inputs and outputs of the modules.

    `inputs` (rows, positions, in) are plain values, `outputs` (rows, positions, out) parts of the graph. All but the
    outputs, and gradients as well, lie where the logits do.
    """

    logits: torch.Tensor
    tokens: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    outputs: Mapping[str, torch.Tensor]
    _hidden: torch.Tensor
    _paths: Paths

    @property
    def scores(self) -> torch.Tensor:
        """The logit of every answer token: shape (answers,)."""
        return self.logits.gather(-1, self.tokens.unsqueeze(-1)).squeeze(-1)

    @property
    def logprobs(self) -> torch.Tensor:
        """The log probability of every answer token in nats: shape (answers,)."""
        return self.scores - self.logits.logsumexp(-1)

    def gradients(self, of: torch.Tensor, *, own: bool = False) -> dict[str, torch.Tensor]:
        """Gradient of the scalar `of`, a function of the logits, at every output; `own`: along positions' own paths."""
        return self._gradients(self._at_head(of), own=own)

    def both_gradients(self, of: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The gradient only along each position's own path, and that along all paths."""
        # The head, most of the cost with a large vocabulary, mixes no positions: its backward pass serves both.
        start = self._at_head(of)
        return self._gradients(start, own=True), self._gradients(start, own=False)

    def _at_head(self, of: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(of, self._hidden, retain_graph=True)[0]

    def _gradients(self, start: torch.Tensor, own: bool) -> dict[str, torch.Tensor]:
        self._paths.own = own
        gradients = torch.autograd.grad(self._hidden, list(self.outputs.values()), start, retain_graph=True)
        return {n: each.to(self.logits.device) for n, each in zip(self.outputs, gradients, strict=True)}


def forward(
    model: Model,
    batch: Batch,
    modules: Mapping[str, torch.nn.Module],
    entry: torch.nn.Module | None = None,
    *,
    own_paths: bool = True,
) -> Forward:
    """Run `batch` and keep inputs and outputs of `modules`; the graph begins at the output of `entry`.

    Without an `entry` it begins with what enters the first adapted block, or the input embedding. Without `own_paths`
    the attention is the model's, which is faster, and gradients are along all paths alone. Raises ModelError for a
    model whose attention cannot be replaced.
    """
    seen, network, hidden = Seen(model.device), model.module.get_base_model(), []
    begin = network.get_input_embeddings() if entry is None else entry
    if entry is None and batch.entering is not None:
        batch.entering.requires_grad_()
    hooks = [
        (network.get_output_embeddings(), lambda _head, given, _logits: hidden.append(given[0])),
        # The adapter is added here and not by PEFT: as plain values its weights get no gradient, so that a backward
        # pass costs less than the forward pass.
        *((layer, _adapter_hook(*model.served(name))) for name, layer in model.layers.items()),
        (begin, lambda _module, _inputs, output: output.requires_grad_()),
        *((module, seen.hook(name)) for name, module in modules.items()),
    ]
    attention = switchable_attention(model) if own_paths else nullcontext(Paths())
    with attention as paths, model.without_adapter(), torch.enable_grad(), hooked(hooks):
        logits, tokens = answer_logits(model, batch)
    if own_paths and not paths.calls:
        raise ModelError(f"attribution: expected attention from transformers, got that of {type(network).__name__}")
    return Forward(logits, tokens, seen.inputs, seen.outputs, hidden[0], paths)


@dataclass
class Seen:
    """Inputs and outputs of modules during forward passes; inputs as plain values on one device."""

    device: torch.device
    inputs: dict[str, torch.Tensor] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)

    def hook(self, name: str) -> Hook:
        """A forward hook that keeps a module's input and output under `name`."""

        def keep(_module: torch.nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self.inputs[name], self.outputs[name] = inputs[0].detach().to(self.device), output

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


def _adapter_hook(left: torch.Tensor, right: torch.Tensor) -> Hook:
    """A hook that adds left (out, r) right (r, in) x to a layer's output."""

    def add(_layer: torch.nn.Module, given: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        inner = given[0].to(right.dtype).flatten(0, -2) @ right.T
        wide = output.to(left.dtype).flatten(0, -2)
        return torch.addmm(wide, inner, left.T).view(output.shape).to(output.dtype)

    return add
