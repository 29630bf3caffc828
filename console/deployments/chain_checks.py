"""The public chain as `foedus doctor` sees it: whether it answers, whose contract is there, and what it costs."""

import time
from collections.abc import Callable, Iterator

from console.deployments.checkup import Check, check
from core.canonical import Address, Digest

LARGEST_SKEW = 60.0
"""Seconds that clocks may differ: a SuperNode ends at 300, without a word."""
FEWEST_ROUNDS = 100
"""Rounds that a coordinator's balance should pay."""


def chain_checks(url: str, contract: Address) -> Iterator[Check]:
    """A chain behind a URL, and the public contract on it."""
    from chain.survey import Survey  # noqa: PLC0415 - web3, which nothing else here needs

    survey = Survey(url, contract)
    yield check(
        "chain", "an Ethereum node", "name an endpoint that answers", lambda: (True, f"chain {survey.chain_id}")
    )

    def code() -> tuple[bool, str]:
        return survey.genuine, contract if survey.genuine else "other code, or none"

    advice = "name an endpoint of the kit's chain; else ask the coordinator which contract it uses"
    yield check("contract", f"a PublicLedger at {contract}", advice, code)

    def skew() -> tuple[bool, str]:
        late = time.time() - survey.time
        # A chain without transactions may have made no block for long: only one from the future says something.
        return late > -LARGEST_SKEW, f"newest block {late:.0f} s ago"

    yield check("clock of the chain", "no block from the future", "set this machine's clock (NTP)", skew)


def registration_check(
    url: str, contract: Address, organisation: Callable[[], Address], node_key: Digest | None
) -> Check:
    """Whether the contract knows an organisation with this node key."""
    from chain.survey import Survey  # noqa: PLC0415 - web3

    def registered() -> tuple[bool, str]:
        found = Survey(url, contract).registered(organisation())
        if found is None:
            return False, "not registered"
        if found.revoked_at:
            return False, f"revoked in block {found.revoked_at}"
        return node_key in (None, found.node_key), f"registered with node key {found.node_key}"

    expected = f"its address, with node key {node_key}"
    return check("registered", expected, "send request.json to the coordinator (foedus deploy admit)", registered)


def balance_check(url: str, contract: Address, account: Address) -> Check:
    """How many rounds an account's balance pays at today's price."""
    from chain.survey import Survey  # noqa: PLC0415 - web3

    def rounds() -> tuple[bool, str]:
        survey = Survey(url, contract)
        paid = survey.rounds_paid(account)
        return paid >= FEWEST_ROUNDS, f"{paid:,} rounds"

    return check("balance", f"{FEWEST_ROUNDS} rounds or more", f"send {account} funds on the chain", rounds)
