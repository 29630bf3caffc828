"""Merkle trees whose proofs OpenZeppelin's `MerkleProof` verifies.

Leaves are Keccak-256 hashed twice, so that no inner node (64 bytes, hashed once) can pass for a leaf; inner nodes
hash their children in sorted order, so a proof needs no left or right. A node without a sibling moves up as it is.
The root of no leaves is 32 zero bytes.
"""

from collections.abc import Sequence

from eth_hash.auto import keccak

EMPTY_ROOT = bytes(32)


def leaf(data: bytes) -> bytes:
    """Keccak-256 of Keccak-256 of the data, 32 bytes."""
    return bytes(keccak(keccak(data)))


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree's root over leaves (32 bytes each) in the given order."""
    if not leaves:
        return EMPTY_ROOT
    return _levels(leaves)[-1][0]


def proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The siblings from leaf `index` to the root; raises IndexError when there is no such leaf."""
    if not 0 <= index < len(leaves):
        raise IndexError(f"leaf {index} of {len(leaves)}")
    siblings = []
    for level in _levels(leaves)[:-1]:
        if (sibling := index ^ 1) < len(level):
            siblings.append(level[sibling])
        index //= 2
    return tuple(siblings)


def process(leaf_hash: bytes, siblings: Sequence[bytes]) -> bytes:
    """The root that a proof leads to: what `MerkleProof.processProof` returns."""
    node = leaf_hash
    for sibling in siblings:
        node = _parent(node, sibling)
    return node


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        level = levels[-1]
        pairs = [_parent(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        # The last node of an odd level has no sibling: it moves up as it is.
        levels.append(pairs + level[len(pairs) * 2 :])
    return levels


def _parent(a: bytes, b: bytes) -> bytes:
    return bytes(keccak(a + b if a < b else b + a))
