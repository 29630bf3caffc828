"""Merkle trees against a second implementation that is written from the definition."""

import pytest
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from core import merkle

LEAVES = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=33)


def reference(nodes: list[bytes]) -> bytes:
    """Pairs from the left, hashed in sorted order; whoever is left over moves up."""
    if len(nodes) == 1:
        return nodes[0]
    above = [
        keccak(b"".join(sorted(nodes[i : i + 2]))) if i + 1 < len(nodes) else nodes[i] for i in range(0, len(nodes), 2)
    ]
    return reference(above)


def openzeppelin(leaf: bytes, proof: tuple[bytes, ...]) -> bytes:
    """MerkleProof.processProof with Hashes.commutativeKeccak256."""
    computed = leaf
    for sibling in proof:
        computed = keccak(computed + sibling) if computed < sibling else keccak(sibling + computed)
    return computed


@given(LEAVES)
def test_the_root_is_that_of_the_definition(leaves: list[bytes]) -> None:
    assert merkle.root(leaves) == reference(leaves)


@given(LEAVES)
def test_every_leaf_has_a_proof_that_openzeppelin_accepts(leaves: list[bytes]) -> None:
    for index, leaf in enumerate(leaves):
        proof = merkle.proof(leaves, index)
        assert merkle.process(leaf, proof) == openzeppelin(leaf, proof) == merkle.root(leaves)


@given(LEAVES, st.binary(min_size=32, max_size=32))
def test_no_other_leaf_has_that_proof(leaves: list[bytes], stranger: bytes) -> None:
    for index, leaf in enumerate(leaves):
        if stranger != leaf:
            assert merkle.process(stranger, merkle.proof(leaves, index)) != merkle.root(leaves)


@given(LEAVES.filter(lambda leaves: len(set(leaves)) == len(leaves) and len(leaves) > 2))
def test_the_order_of_leaves_changes_the_root(leaves: list[bytes]) -> None:
    assert merkle.root(leaves[1:] + leaves[:1]) != merkle.root(leaves) or len(leaves) == 2


def test_a_leaf_is_hashed_twice_so_that_no_inner_node_passes_for_one() -> None:
    assert merkle.leaf(b"data") == keccak(keccak(b"data"))
    left, right = merkle.leaf(b"left"), merkle.leaf(b"right")
    inner = merkle.root([left, right])
    assert merkle.leaf(b"".join(sorted([left, right]))) != inner


def test_a_single_leaf_is_its_own_root_and_needs_no_proof() -> None:
    assert merkle.root([merkle.leaf(b"a")]) == merkle.leaf(b"a")
    assert merkle.proof([merkle.leaf(b"a")], 0) == ()


def test_no_leaves_have_a_root_of_zeros() -> None:
    assert merkle.root([]) == bytes(32) == merkle.EMPTY_ROOT


@pytest.mark.parametrize("index", [-1, 2])
def test_there_is_no_proof_of_a_leaf_that_is_not_there(index: int) -> None:
    with pytest.raises(IndexError, match=f"leaf {index} of 2"):
        merkle.proof([bytes(32), bytes(32)], index)


def test_five_leaves_give_the_root_written_down() -> None:
    leaves = [merkle.leaf(bytes([i])) for i in range(5)]
    assert merkle.root(leaves).hex() == "54f34058613e952c38469575bf9d5f781f2333efdf3cf423ad0e5b9c937c98a8"
