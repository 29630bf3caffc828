"""What development chains share: ids, and an administrator whose key anybody can compute.

The embedded chain and a managed anvil give this administrator all the funds; it deploys the contracts, pays the
coordinators and grants them their role. It protects nothing and is never used on a chain behind a URL.
"""

import hashlib
from typing import Final, Literal

from core.canonical import domain
from core.keys import Key

ChainName = Literal["public", "private"]

CHAIN_IDS: Final[dict[ChainName, int]] = {"public": 6710387, "private": 6710388}
"""The letters "fds" as a number, and the next: in use by no public network."""

FUNDS: Final = 10**30
"""Wei of the administrator at genesis."""

ALLOWANCE: Final = 10**21
"""Wei that a coordinator is topped up to."""


def administrator() -> Key:
    """The key that owns every development chain."""
    return Key(hashlib.sha256(domain("development-administrator")).digest(), derived=True)
