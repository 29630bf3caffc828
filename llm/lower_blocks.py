"""The blocks below the first adapted one: what leaves them is computed once a text and kept.

The base never changes and nothing below the first adapted block carries an adapter, so the hidden states that enter
that block are the same in every step, epoch and round. A step then passes through the upper blocks alone: with the last
third of the blocks adapted, about a third of the work. Every text goes through the lower blocks alone and unpadded, so
that its hidden states are the same bits whether they were kept or are computed again.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from llm.batches import Batch

_MOST_BYTES = 2**29
"""Of the hidden states that are kept; those used least recently are dropped first."""
_PROBE = (1, 2, 3, 4)


@dataclass(frozen=True, eq=False)
class LowerBlocks:
    """The first `count` blocks of a decoder."""

    decoder: Any
    count: int
    _kept: OrderedDict[tuple[int, ...], torch.Tensor] = field(default_factory=OrderedDict)

    def passed(self, batch: Batch) -> Batch:
        """The batch with the hidden states that leave the lower blocks; zero for padding."""
        width = self.decoder.config.hidden_size
        entering = torch.zeros((*batch.tokens.shape, width), dtype=self.dtype, device=batch.tokens.device)
        for row, owners in enumerate(batch.owners):
            for owner in owners[owners >= 0].unique():
                own = owners == owner
                entering[row, own] = self._hidden(tuple(batch.tokens[row, own].tolist())).to(entering)
        return replace(batch, entering=entering)

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the upper blocks take what enters them: their own, or float32 where autocast casts."""
        own: torch.dtype = self.decoder.embed_tokens.weight.dtype
        return torch.float32 if torch.is_autocast_enabled(self.decoder.device.type) else own

    def skipped(self) -> AbstractContextManager[None]:
        """Inside, the decoder is its upper blocks: it takes the hidden states that enter them for embeddings."""
        return _made_of(self.decoder, self.decoder.layers[self.count :], self.decoder.norm)

    def _hidden(self, tokens: tuple[int, ...]) -> torch.Tensor:
        """The hidden states (positions, width) of a text, float32."""
        if tokens not in self._kept:
            self._kept[tokens] = self.leaving(tokens)
            while sum(states.nbytes for states in self._kept.values()) > _MOST_BYTES and len(self._kept) > 1:
                self._kept.popitem(last=False)
        self._kept.move_to_end(tokens)
        return self._kept[tokens]

    def leaving(self, tokens: tuple[int, ...]) -> torch.Tensor:
        """The hidden states (positions, width), float32, that leave the lower blocks, computed."""
        decoder, blocks = self.decoder, self.decoder.layers[: self.count]
        ids = torch.tensor([tokens], device=decoder.embed_tokens.weight.device)
        with torch.no_grad(), _made_of(decoder, blocks, torch.nn.Identity()), _without_dropout(decoder):
            hidden: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state[0].float()
        return hidden


def lower_blocks(network: Any, first: int) -> LowerBlocks | None:
    """The blocks below block `first`, the first adapted one; None where there are none, or it can't be split.

    It can where a probe shows that the upper blocks go on where the lower ones ended. Blocks of several kinds, such as
    those with sliding attention, are told apart by their numbers, which a split would shift.
    """
    decoder = getattr(network, "model", None)
    kinds = getattr(network.config.get_text_config(), "layer_types", None) or ()
    if first < 1 or len(set(kinds)) > 1 or not all(hasattr(decoder, n) for n in ("embed_tokens", "layers", "norm")):
        return None
    lower = LowerBlocks(decoder, first)
    ids = torch.tensor([_PROBE], device=network.device)
    entering = lower.leaving(_PROBE)[None].to(ids.device, lower.dtype)
    with torch.no_grad():
        whole = network(input_ids=ids, use_cache=False).logits
        with lower.skipped():
            split = network(inputs_embeds=entering, use_cache=False).logits
    return lower if torch.allclose(whole, split, rtol=1e-2, atol=1e-2 * float(whole.abs().max())) else None


@contextmanager
def _made_of(decoder: Any, layers: torch.nn.ModuleList, norm: torch.nn.Module) -> Iterator[None]:
    """Inside, a decoder has these blocks and this last norm."""
    before = decoder.layers, decoder.norm
    decoder.layers, decoder.norm = layers, norm
    try:
        yield
    finally:
        decoder.layers, decoder.norm = before


@contextmanager
def _without_dropout(decoder: Any) -> Iterator[None]:
    """Inside, a decoder evaluates.

    Training asks for dropout, which some bases have in their attention: kept states must not hang on a draw. To change
    what a decoder does takes as long as a block, so that one that evaluates already is left as it is.
    """
    if not decoder.training:
        yield
        return
    decoder.eval()
    try:
        yield
    finally:
        decoder.train()
