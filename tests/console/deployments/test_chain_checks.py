"""The chain: a node that answers, a contract that is ours, a registration, and what a balance pays."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import control
from chain.devnet.accounts import administrator
from chain.membership import request_membership
from chain.nodes import embedded_service
from chain.registry import registry_of
from chain.survey import Survey
from console.deployments.chain_checks import balance_check, chain_checks, registration_check
from console.deployments.checkup import Check
from core.canonical import Address, Digest
from core.keys import Domain, derive

pytestmark = pytest.mark.chain
NODE_KEY = Digest("0x" + "ab" * 32)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Domain, Path]]:
    state = tmp_path_factory.mktemp("chain")
    domain = control.public_contract("embedded", state, derive(1, "coordinator"))
    yield f"{embedded_service(state).url()}/public", domain, state
    embedded_service(state).stop()


def test_a_chain_with_the_contract_is_well(chain: tuple[str, Domain, Path]) -> None:
    url, domain, _ = chain
    found = list(chain_checks(url, domain.contract))
    assert [one.ok for one in found] == [True] * 3, found
    assert found[0].got == f"chain {domain.chain_id}"


def test_another_contract_or_no_chain_is_found(chain: tuple[str, Domain, Path]) -> None:
    url, _, _ = chain
    other = {one.name: one for one in chain_checks(url, Address(administrator().address))}
    assert (other["chain"].ok, other["contract"].ok) == (True, False)
    gone = list(chain_checks("http://127.0.0.1:9", Address(administrator().address)))
    assert not any(one.ok for one in gone)
    assert "nothing answers" in gone[0].got


def test_a_registration_is_compared_with_the_node_key(chain: tuple[str, Domain, Path]) -> None:
    url, domain, state = chain
    key = derive(1, "medical")

    def registered(node_key: Digest | None) -> Check:
        return registration_check(url, domain.contract, lambda: key.address, node_key)

    assert registered(NODE_KEY).got == "not registered"
    registry = registry_of("embedded", state, None, derive(1, "coordinator"))
    registry.register(request_membership(key, registry.domain, NODE_KEY, 0, 2**40))
    assert registered(NODE_KEY).ok
    assert registered(None).ok
    assert not registered(Digest("0x" + "cd" * 32)).ok
    registry_of("embedded", state, None, administrator()).revoke(key.address)
    assert registered(NODE_KEY).got.startswith("revoked in block")


def test_a_balance_is_counted_in_rounds(chain: tuple[str, Domain, Path]) -> None:
    url, domain, _ = chain
    assert balance_check(url, domain.contract, derive(1, "coordinator").address).ok
    poor = balance_check(url, domain.contract, derive(1, "poor").address)
    assert (poor.ok, poor.got) == (False, "0 rounds")
    assert derive(1, "poor").address in poor.advice
    assert Survey(url, domain.contract).time > 0
