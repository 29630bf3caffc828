"""A token trace as one HTML page that loads nothing from elsewhere, and works from a file.

Everything but the details of a token is in the HTML; the script only shows those, and colours by one organisation.
Text is escaped by the template engine, and the page's own policy lets no script run but that one: a token may well be
``<script>``.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import jinja2

import assets
from core.canonical import Address
from provenance.colours import colours
from provenance.shares import response_shares, token_shares
from provenance.trace import TokenScores, TokenTrace

Json = dict[str, Any]

BASE_COLOUR = "#8a94a0"
_LISTED = 12
"""Organisations with a row and a place in the legend: those with the highest scores."""
_STRONGEST = 6
"""Organisations in the details of a token."""


def page(trace: TokenTrace, names: Mapping[Address, str], only: Address | None = None) -> str:
    """The HTML of a trace, coloured at first by the strongest organisations or by `only` one.

    `names` has every organisation of the trace.
    """
    view, script = _View(trace, names, only), _file("trace.js")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": _percent, "score": lambda value: "–" if value is None else f"{value:z.2f}"}
    return environment.from_string(_file("trace.html")).render(
        trace=trace,
        style=_file("trace.css"),
        script=script,
        # The page's policy names the script by its hash: one that slips in through a token has another.
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        verdict=trace.response.verdict and view.organisation(trace.organisations.index(trace.response.verdict)),
        only=only,
        listed=[view.organisation(k) for k in view.listed],
        others=len(trace.organisations) - len(view.listed),
        rows=view.rows(),
        tokens=[view.token(token) for token in trace.tokens],
        data={
            "organisations": [view.organisation(k) for k in range(len(trace.organisations))],
            "base": BASE_COLOUR,
            "listed": view.listed,
            "tokens": [view.details(token) for token in trace.tokens],
        },
    )


@dataclass(frozen=True)
class _View:
    """A trace as plain values for the template and the script; organisations go by their index in the trace."""

    trace: TokenTrace
    names: Mapping[Address, str]
    only: Address | None

    @cached_property
    def colours(self) -> dict[Address, str]:
        return colours(self.trace.organisations, self.names)

    @cached_property
    def listed(self) -> list[int]:
        """The organisations with a row and a place in the legend, the highest score first; `only` among them."""
        scores = self.trace.response.scores
        ranked = sorted(range(len(scores)), key=lambda k: -scores[k])
        chosen = None if self.only is None else self.trace.organisations.index(self.only)
        return [k for rank, k in enumerate(ranked) if rank < _LISTED or k == chosen]

    def organisation(self, k: int) -> Json:
        address = self.trace.organisations[k]
        return {"name": self.names[address], "address": address, "colour": self.colours[address]}

    def rows(self) -> list[Json]:
        """The table of shares: the listed organisations, then the base model."""
        response, shares = self.trace.response, response_shares(self.trace)
        rows = [
            {
                **self.organisation(k),
                "share": shares.organisations[k],
                "score": response.scores[k],
                "familiarity": response.familiarity[k],
            }
            for k in self.listed
        ]
        base = {
            "name": "base model",
            "colour": BASE_COLOUR,
            "share": shares.base,
            "score": response.base,
            "familiarity": None,
        }
        return [*rows, base]

    def token(self, token: TokenScores) -> Json:
        """A token of the heat map: the colour of its organisation, as strong as its share."""
        shares = token_shares(token)
        which = shares.strongest if self.only is None else self.trace.organisations.index(self.only)
        chosen, share = self.organisation(which), shares.organisations[which]
        return {
            "shown": token.text.replace("\n", "↵") or "∅",  # visible in any case, so that it can be pointed at
            "breaks": token.text.count("\n"),
            "colour": chosen["colour"],
            "strength": round(share, 4),
            "label": f"{token.text!r}: {chosen['name']} {_percent(share)}, base model {_percent(shares.base)}",
        }

    def details(self, token: TokenScores) -> Json:
        """The details of a token, which the script shows and colours it by."""
        shares = token_shares(token)
        ranked = sorted(range(len(token.scores)), key=lambda k: -abs(token.scores[k]))[:_STRONGEST]
        return {
            "text": token.text,
            "logprob": token.logprob,
            "base": token.base,
            "baseShare": shares.base,
            "residual": token.residual,
            "best": shares.strongest,
            "shares": {k: round(shares.organisations[k], 4) for k in {shares.strongest, *self.listed}},
            "ranked": [[k, shares.organisations[k], token.scores[k]] for k in ranked],
        }


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@cache
def _file(name: str) -> str:
    return assets.page(name).read_text(encoding="utf-8")
