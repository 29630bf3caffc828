"""A federation is founded by those who may and who agree; an offender is dropped, and the founding goes on."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from chain.registry import RegisteredOrganisation
from client_app.agreement import Pins
from core.canonical import ZERO_DIGEST, Address
from core.config import RunConfig
from core.errors import RunError
from core.founding import Founding
from core.genesis import Genesis
from core.keys import derive
from core.messages.queries import BIND, CONSENT, REVEAL, Bind, Bound
from core.seeds import from_nonces
from core.update import Organisation
from server_app.binding import Bindings
from server_app.founders import Founders
from server_app.founding import agree
from tests import federation as f
from tests.server_app.agreeing import AgreeingGrid, Member, members, others_nonce, own_key, refuse, registered
from tests.server_app.test_founding import CONFIG, INPUTS

NAMES = ("medical", "coding", "financial")


def found(grid: AgreeingGrid, founders: Founders = Founders(), **changes: Any) -> tuple[Genesis, Founding, Bindings]:  # noqa: B008 - frozen
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, "one", founders)
    bindings.refresh(grid)
    config = replace(CONFIG, coordinator_key="/its/key", **changes)
    return (*agree(config, "one", f.COORDINATOR.address, INPUTS, bindings, grid), bindings)


def names(genesis: Genesis) -> set[str]:
    return set(genesis.names.values())


def test_members_draw_the_seed_together_and_agree_to_the_genesis(tmp_path: Path) -> None:
    genesis, founding, _ = found(AgreeingGrid(*members(tmp_path, *NAMES)))
    founding.check(genesis)
    assert names(genesis) == set(NAMES)
    assert genesis.seed == from_nonces(genesis.nonces)
    again, *_ = found(AgreeingGrid(*members(tmp_path / "again", *NAMES)))
    assert again.seed != genesis.seed  # another challenge, so other nonces
    for member in members(tmp_path, *NAMES):
        member.agreement.check(genesis)
        with pytest.raises(Exception, match="agreed to found"):
            member.agreement.check(replace(genesis, norm_bound=50.0))


OFFENCES: dict[str, Any] = {
    "shows no nonce": {"behave": {REVEAL: refuse}},
    "shows another nonce": {"behave": {REVEAL: others_nonce}},
    "does not consent": {"behave": {CONSENT: refuse}},
    "has other pins": {"pins": Pins(members="0x" + "12" * 20)},
    "waits for another coordinator": {"pins": Pins(coordinator="0x" + "12" * 20)},
    "has a name that is taken": {"name": "MEDICAL"},
}


@pytest.mark.parametrize("offence", OFFENCES)
def test_an_offender_is_dropped_and_the_others_found(tmp_path: Path, offence: str) -> None:
    honest = members(tmp_path, *NAMES)
    offender = Member(tmp_path, own_key(7), **({"name": "offender"} | OFFENCES[offence]))
    genesis, founding, bindings = found(AgreeingGrid(*honest, offender))
    founding.check(genesis)
    assert names(genesis) == set(NAMES)
    assert offender.key.address not in bindings.nodes
    assert bindings.failure


class ChangingGrid(AgreeingGrid):
    """`absent` says which node is not connected, one time after another."""

    absent: Iterator[int] = iter(())

    def get_node_ids(self) -> list[int]:
        absent = next(self.absent, 0)
        return [node for node in super().get_node_ids() if node != absent]


def test_the_place_of_whoever_is_dropped_is_kept_for_another(tmp_path: Path) -> None:
    # An offender that filled the last place would keep the member out that comes a moment later.
    offender = Member(tmp_path, own_key(7), "offender", behave={REVEAL: refuse})
    grid = ChangingGrid(offender, *members(tmp_path, *NAMES))
    grid.absent = iter([4, 4])
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, "one")
    bindings.wait(grid, expected=3, timeout=60.0)
    assert offender.key.address in bindings.nodes
    config = replace(CONFIG, coordinator_key="/its/key")
    genesis, _ = agree(config, "one", f.COORDINATOR.address, INPUTS, bindings, grid)
    assert names(genesis) == set(NAMES)


def test_an_organisation_whose_node_has_gone_is_no_founder(tmp_path: Path) -> None:
    grid = ChangingGrid(*members(tmp_path, *NAMES))
    grid.absent = chain([0], repeat(1))
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, "one")
    for _ in range(2):
        bindings.refresh(grid)
    config = replace(CONFIG, coordinator_key="/its/key")
    genesis, _ = agree(config, "one", f.COORDINATOR.address, INPUTS, bindings, grid)
    assert names(genesis) == set(NAMES[1:])


def with_keys(*keys: Any) -> Callable[[Member, Message], RecordDict]:
    def answer(_member: Member, message: Message) -> RecordDict:
        query = Bind.from_content(message.content)
        organisations = [Organisation(k.address, f"hospital-{i}", 10**6, k.derived) for i, k in enumerate(keys)]
        signed = [registered(k, o, query.asked, query.chain) for k, o in zip(keys, organisations, strict=True)]
        return Bound(tuple(signed), 0).to_content()

    return answer


def test_a_node_speaks_for_one_organisation_unless_keys_are_derived(tmp_path: Path) -> None:
    sybil = Member(tmp_path, own_key(7), "sybil", behave={BIND: with_keys(*(own_key(50 + i) for i in range(4)))})
    genesis, _, bindings = found(AgreeingGrid(*members(tmp_path, *NAMES), sybil))
    assert names(genesis) == set(NAMES)
    assert "expected one organisation of a node, got 4" in bindings.failure


def test_a_derived_key_is_none_among_keys_of_their_own(tmp_path: Path) -> None:
    known = Member(tmp_path, own_key(7), "known", behave={BIND: with_keys(derive(7, "hospital-0"))})
    genesis, *_ = found(AgreeingGrid(*members(tmp_path, *NAMES), known))
    assert names(genesis) == set(NAMES)


def test_in_a_deployment_whoever_says_that_its_key_is_derived_founds_nothing(tmp_path: Path) -> None:
    # Nobody but the organisation says that its key is derived, and whoever says so speaks for many and need not agree.
    keys = [replace(own_key(50 + i), derived=True) for i in range(4)]
    sybil = Member(tmp_path, own_key(7), "sybil", behave={BIND: with_keys(*keys)})
    with pytest.raises(RunError, match="got none: hospital-3 has a derived key, which anybody can compute"):
        found(AgreeingGrid(sybil), Founders(own_keys=True))
    bindings = Bindings(f.CHAIN, f.COORDINATOR.address, "one", Founders(own_keys=True))
    with pytest.raises(RunError, match="1 of 4 organisations answered"):
        bindings.wait(AgreeingGrid(*members(tmp_path, "medical"), sybil), expected=4, timeout=0)


def test_a_coordinator_does_not_draw_again_for_the_same_members_and_run(tmp_path: Path) -> None:
    found(AgreeingGrid(*members(tmp_path, *NAMES)))
    with pytest.raises(RunError, match=r"got none: .* did not show its nonce"):
        found(AgreeingGrid(*members(tmp_path, *NAMES)))


def test_a_registration_that_was_made_for_another_node_is_none(tmp_path: Path) -> None:
    victim = members(tmp_path, "victim")[0]
    stolen: list[RecordDict] = []

    def observe(member: Member, message: Message) -> RecordDict:
        stolen.append(replace(member, behave={}).answer(message))
        return stolen[0]

    thief = Member(tmp_path, own_key(7), "thief", behave={BIND: lambda _member, _message: stolen[0]})
    genesis, _, bindings = found(AgreeingGrid(replace(victim, behave={BIND: observe}), thief))
    assert names(genesis) == {"victim"}
    assert bindings.nodes == {victim.key.address: 1}


def test_only_listed_members_found_each_with_its_cap(tmp_path: Path) -> None:
    medical, coding, financial = members(tmp_path, *NAMES)
    listed = RunConfig(members=f"{medical.key.address}:100, {coding.key.address}:99").listed
    genesis, *_ = found(AgreeingGrid(medical, coding, financial), Founders(listed))
    assert names(genesis) == {"medical"}
    capped, *_ = found(AgreeingGrid(medical, coding), Founders(most_examples=100), most_examples=100, most_weight=0.3)
    assert capped.membership.most_weight == 0.3
    with pytest.raises(RunError, match="got none: medical: expected at most 99 examples, got 100"):
        found(AgreeingGrid(medical), Founders(most_examples=99))


def test_only_registered_organisations_found_with_the_node_key_of_their_registration(tmp_path: Path) -> None:
    medical, coding, financial = members(tmp_path, *NAMES)
    known = {
        medical.key.address: RegisteredOrganisation(ZERO_DIGEST, 1, 0),
        coding.key.address: RegisteredOrganisation(f.other("its node key"), 1, 0),
        financial.key.address: RegisteredOrganisation(ZERO_DIGEST, 1, 2),
    }
    stranger = Member(tmp_path, own_key(7), "stranger")

    def read(organisation: Address) -> RegisteredOrganisation | None:
        return known.get(organisation)

    genesis, *_ = found(AgreeingGrid(medical, coding, financial, stranger), Founders(registry=read))
    assert names(genesis) == {"medical"}
