"""Questions to a chain behind a URL, by whoever only watches: in a moment, and without web3."""

import re
from contextlib import suppress

import httpx

from core.canonical import Address, parse_json
from core.errors import FormatError

_PATIENCE_SECONDS = 3.0
_WEI = 10**18


def asked(url: str, method: str, *parameters: str) -> str | None:
    """The hexadecimal number that a chain answers; None when it answers none."""
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    with suppress(httpx.HTTPError, httpx.InvalidURL, FormatError, AttributeError):
        answer = parse_json(httpx.post(url, json=question, timeout=_PATIENCE_SECONDS).content).get("result")
        return answer if isinstance(answer, str) and re.fullmatch(r"0x[0-9a-f]{1,64}", answer) else None
    return None


def balance(url: str, account: Address) -> float | None:
    """What an account holds, in ether; None when the chain does not answer."""
    held = asked(url, "eth_getBalance", account, "latest")
    return int(held, 16) / _WEI if held else None
