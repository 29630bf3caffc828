"""What members signed before round 1 is checked against the genesis."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from core.canonical import from_json, to_json
from core.errors import FormatError, IntegrityError
from core.founding import Consent, Founding, commitment_to
from core.genesis import Genesis
from core.seeds import from_nonces
from core.signed import Signed
from tests import federation as f

NAMES = ("medical", "coding")
MEMBERS = tuple(replace(member, derived=False) for member in f.members(NAMES))
NONCES = tuple(f.other(f"nonce of {member.name}") for member in MEMBERS)
GENESIS = f.genesis(NAMES, organisations=MEMBERS, nonces=NONCES, seed=from_nonces(NONCES))


def founding(genesis: Genesis = GENESIS) -> Founding:
    registrations, consents = [], []
    for member, nonce in zip(genesis.organisations, NONCES, strict=True):
        plain = replace(f.registration(member, f.other("challenge")).value, nonce=commitment_to(nonce))
        registrations.append(plain.sign(f.key(member.name), genesis.chain))
        consents.append(Consent(genesis.digest, member.address).sign(f.key(member.name), genesis.chain))
    return Founding(tuple(registrations), tuple(consents))


def test_an_agreement_survives_its_file_and_holds() -> None:
    again = Founding.from_dict(from_json(to_json(founding().to_dict())))
    assert again == founding()
    again.check(GENESIS)


def test_derived_keys_agree_to_nothing() -> None:
    simulated = f.genesis(NAMES)
    Founding(tuple(f.registration(member, f.other("c")) for member in simulated.organisations)).check(simulated)


def resigned(found: Founding, **changes: object) -> Founding:
    first, *others = found.registrations
    value = replace(first.value, **changes)  # type: ignore[arg-type] # by name
    return replace(found, registrations=(value.sign(f.key(value.organisation.name), GENESIS.chain), *others))


BROKEN: dict[str, Callable[[Founding], Founding]] = {
    "no consent": lambda found: replace(found, consents=()),
    "one consent left out": lambda found: replace(found, consents=found.consents[:1]),
    "consents swapped": lambda found: replace(found, consents=found.consents[::-1]),
    "a consent by another": lambda found: replace(
        found, consents=(Signed(found.consents[0].value, found.consents[1].signatures), found.consents[1])
    ),
    "a registration left out": lambda found: replace(found, registrations=found.registrations[:1]),
    "another coordinator": lambda found: resigned(found, coordinator=f.address("medical")),
    "another run": lambda found: resigned(found, run="another"),
    "another nonce": lambda found: resigned(found, nonce=commitment_to(f.other("nonce"))),
    "another count": lambda found: resigned(
        found, organisation=replace(found.registrations[0].value.organisation, examples=7)
    ),
    "an unsigned registration": lambda found: replace(
        found,
        registrations=(Signed(found.registrations[0].value, found.registrations[1].signatures), found.registrations[1]),
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_an_agreement_that_is_not_the_members_own_is_found(what: str) -> None:
    with pytest.raises(IntegrityError):
        BROKEN[what](founding()).check(GENESIS)


def test_consents_are_to_this_genesis() -> None:
    with pytest.raises(IntegrityError, match="consent: expected federation"):
        founding().check(replace(GENESIS, norm_bound=50.0))


def test_a_malformed_agreement_is_refused() -> None:
    for change in ({"note": 1}, {"consents": 1}, {"registrations": [1]}):
        with pytest.raises(FormatError):
            Founding.from_dict(founding().to_dict() | change)
