"""A colour for each organisation: the same in the terminal and on a page, whatever the response.

The first seven are those of Okabe and Ito ("Color Universal Design", 2008), which colour-blind people can distinguish;
more follow around the colour circle by the golden angle.
"""

import colorsys
from collections.abc import Iterable, Mapping

from core.canonical import Address

_FIRST = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
_GOLDEN_ANGLE = 0.381966


def colours(organisations: Iterable[Address], names: Mapping[Address, str]) -> dict[Address, str]:
    """A colour (#rrggbb) by organisation, given out in order of name."""
    ordered = sorted(organisations, key=names.__getitem__)
    chosen = list(_FIRST)
    for index in range(len(_FIRST), len(ordered)):
        # By the golden angle any number of hues lie far from their neighbours, and none moves when one is added.
        channels = colorsys.hls_to_rgb((index * _GOLDEN_ANGLE) % 1, 0.5, 0.6)
        chosen.append("#" + "".join(f"{round(255 * channel):02x}" for channel in channels))
    return dict(zip(ordered, chosen, strict=False))


def mixed(colour: str, share: float, ground: str = "#ffffff") -> str:
    """`share` of a colour on the rest of a ground."""
    pairs = zip(_channels(colour), _channels(ground), strict=True)
    return "#" + "".join(f"{round(share * c + (1 - share) * g):02x}" for c, g in pairs)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
