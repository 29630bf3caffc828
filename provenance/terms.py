"""Low-rank terms of many organisations: contracted with activations, and kept between questions in bounded memory."""

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from mmap import ACCESS_COPY, ALLOCATIONGRANULARITY, mmap
from typing import NamedTuple

import torch


class Term(NamedTuple):
    """Factors of K organisations: left (K or 1, out, r) and right (K or 1, r, in); 1 where they share one.

    Contracting is fastest where left lies in memory in the order (K, r, out).
    """

    left: torch.Tensor
    right: torch.Tensor

    def to(self, device: torch.device) -> "Term":
        """The same on `device`."""
        return Term(self.left.to(device), self.right.to(device))

    def of(self, part: slice) -> "Term":
        """The same of some organisations."""
        return Term(*(factor if len(factor) == 1 else factor[part] for factor in self))

    def contraction(self, inputs: torch.Tensor, gradients: torch.Tensor) -> "Contraction":
        """What contracts x (n, positions, in) and g (n, positions, out) with terms that share factors as these do.

        What organisations share is multiplied once, however many there are.
        """
        left, right = self
        inputs, gradients = inputs.to(left.dtype), gradients.to(left.dtype)
        # Where organisations share a factor, positions are summed first: a product less for each organisation.
        if inputs.shape[1] > 1 and len(right) == 1:
            inner = ((inputs @ right[0].T).transpose(1, 2) @ gradients).flatten(1)
            return lambda term: inner @ term.left.mT.flatten(1).T
        if inputs.shape[1] > 1 and len(left) == 1:
            inner = ((gradients @ left[0]).transpose(1, 2) @ inputs).flatten(1)
            return lambda term: inner @ term.right.flatten(1).T
        *rows, width = inputs.shape
        shared = (inputs @ right[0].T).unsqueeze(-2) if len(right) == 1 else None

        def contract(term: Term) -> torch.Tensor:
            narrow, rank = shared, term.left.shape[2]  # each chunk's own: it is padded to the largest
            if narrow is None:
                narrow = (inputs.reshape(-1, width) @ term.right.flatten(0, 1).T).view(*rows, -1, rank)
            wide = gradients.reshape(-1, gradients.shape[-1]) @ term.left.mT.flatten(0, 1).T
            return (narrow * wide.view(*rows, -1, rank)).sum((1, -1))

        return contract


Contraction = Callable[[Term], torch.Tensor]
"""Returns Σ_positions ⟨g, L_k R_k x⟩, (n, K), of the terms of K organisations."""
Terms = Mapping[str, tuple[Term, ...]]
"""The terms of a chunk of organisations, by module."""
Chunk = tuple[slice, Callable[[], Terms]]
"""Indices of organisations, and how to get their terms."""


def joined(terms: Sequence[Term]) -> Term:
    """Several terms as one of a larger rank: `[L …]` and `[R; …]`."""
    if len(terms) == 1:
        return terms[0]
    count = max(len(factor) for term in terms for factor in term)
    lefts = [term.left.expand(count, -1, -1) for term in terms]
    rights = [term.right.expand(count, -1, -1) for term in terms]
    return Term(torch.cat(lefts, dim=2), torch.cat(rights, dim=1))


def keep(count: int, most: int, make: Callable[[slice], Terms]) -> list[Chunk]:
    """Make the terms of `count` organisations once; they stay in memory when `count` is at most `most`.

    Else chunks of `most` lie in a file without a name, which is closed with the last chunk.
    """
    if count <= most:
        terms = make(slice(0, count))
        return [(slice(0, count), lambda: terms)]
    file = _Scratch()
    return [(part, file.add(make(part))) for part in slices(count, most)]


def chunks(kept: Sequence[Chunk], size: int | None = None) -> Iterator[tuple[slice, Terms]]:
    """The terms of all chunks, at most `size` organisations at a time."""
    for part, read in kept:
        terms, count = read(), part.stop - part.start
        for inner in slices(count, size or count):
            some = {name: tuple(term.of(inner) for term in module) for name, module in terms.items()}
            yield slice(part.start + inner.start, part.start + inner.stop), some


def slices(count: int, size: int) -> Iterator[slice]:
    """0 to `count`, `size` at a time."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class _Scratch:
    """A file without a name, closed when no reader of it is left."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as its readers
        weakref.finalize(self, self._file.close)

    def add(self, terms: Terms) -> Callable[[], Terms]:
        """Append terms; returns a function that reads them back."""
        # A mapping begins with a page of the file.
        start = self._file.seek(-(-self._file.seek(0, os.SEEK_END) // ALLOCATIONGRANULARITY) * ALLOCATIONGRANULARITY)
        for factor in _stored(terms):
            self._file.write(factor.contiguous().cpu().numpy().data)
        self._file.flush()
        shapes = [factor.shape for factor in _stored(terms)]
        counts = {name: len(some) for name, some in terms.items()}
        return partial(self._read, start, counts, shapes, next(_stored(terms)).device)

    def _read(self, start: int, counts: Mapping[str, int], shapes: Sequence[torch.Size], device: torch.device) -> Terms:
        # Mapped and not read: of a thousand organisations, copying took as long as a third of their scores.
        size = 4 * sum(shape.numel() for shape in shapes)
        data = torch.frombuffer(mmap(self._file.fileno(), size, access=ACCESS_COPY, offset=start), dtype=torch.float32)
        flat = torch.split(data.to(device), [shape.numel() for shape in shapes])
        factors = (factor.view(shape) for factor, shape in zip(flat, shapes, strict=True))
        return {
            name: tuple(Term(next(factors).mT, next(factors)) for _ in range(count)) for name, count in counts.items()
        }


def _stored(terms: Terms) -> Iterator[torch.Tensor]:
    """The factors in the order of the file, left ones as they lie in memory, (K, r, out)."""
    for some in terms.values():
        for left, right in some:
            yield left.mT
            yield right
