import weakref
from collections.abc import Iterator

import pytest
import torch

from provenance.terms import Chunk, Term, Terms, chunks, keep


@pytest.mark.parametrize("positions", [1, 4])
@pytest.mark.parametrize("shared", ["right", "left", "neither", "both"])
def test_contraction_is_the_inner_product_with_the_dense_matrix(shared: str, positions: int) -> None:
    torch.manual_seed(0)
    term = Term(
        torch.randn(1 if shared in {"left", "both"} else 5, 6, 3),
        torch.randn(1 if shared in {"right", "both"} else 5, 3, 7),
    )
    x, g = torch.randn(2, positions, 7), torch.randn(2, positions, 6)
    wanted = torch.einsum("npo,koi,npi->nk", g, term.left @ term.right, x)
    assert torch.allclose(term.contraction(x, g)(term), wanted, atol=1e-4)


def terms(count: int, source: torch.Generator) -> Terms:
    own, shared = torch.randn(count, 3, 6, generator=source), torch.randn(1, 3, 7, generator=source)
    return {"one": (Term(own.mT, shared),), "two": (Term(shared.mT, own), Term(own.mT, own))}


@pytest.mark.parametrize("most", [1, 2, 3, 7, 9])
def test_what_is_kept_comes_back(most: int) -> None:
    whole = terms(7, torch.Generator().manual_seed(0))
    asked: list[slice] = []

    def make(part: slice) -> Terms:
        asked.append(part)
        return {name: tuple(term.of(part) for term in found) for name, found in whole.items()}

    kept = keep(7, most, make)
    assert len(asked) == len(kept) == -(-7 // most)
    for size in (1, 2, None):
        places: list[int] = []
        for part, found in both(kept, size):
            places += range(part.start, part.stop)
            for name, some in found.items():
                for term, wanted in zip(some, whole[name], strict=True):
                    assert torch.equal(term.left, wanted.of(part).left)
                    assert torch.equal(term.right, wanted.of(part).right)
        assert places == list(range(7)) * 2
    assert len(asked) == len(kept)  # made once


def both(kept: list[Chunk], size: int | None) -> Iterator[tuple[slice, Terms]]:
    """Everything twice: reading moves a file's place."""
    yield from chunks(kept, size)
    yield from chunks(kept, size)


def test_what_lies_in_a_file_is_not_in_memory() -> None:
    made = []

    def make(part: slice) -> Terms:
        left = torch.ones(part.stop - part.start, 2, 3)
        made.append(weakref.ref(left))
        return {"one": (Term(left.mT, left),)}

    in_a_file = keep(4, 2, make)
    assert len(in_a_file) == 2
    assert [one() for one in made] == [None, None]
    in_memory = keep(4, 4, make)
    assert len(in_memory) == 1
    assert made[2]() is not None
