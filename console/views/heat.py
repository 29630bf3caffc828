"""A token trace in a terminal: every token in the colour of its organisation, the stronger the more it was taught.

Where there are no colours, a line of letters stands under the text: the organisation's, large where more than half of
the token is its own, and a dot where the base model's share is larger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from core.canonical import Address
from core.escape import visible
from provenance.colours import colours, mixed
from provenance.shares import Shares, response_shares, token_shares
from provenance.trace import TokenScores, TokenTrace

_ROWS = 12
"""Organisations in the table: those with the highest scores."""
_SEEN = 0.05
"""Below this share a token keeps the terminal's own colours."""
_SUMMARISED = 4
"""Organisations in a summary of one line."""
_BAR = 24
"""Width of a bar of 100 %."""
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Heat:
    """How the organisations of a trace look on a console; they go by their index in the trace.

    Tokens are coloured by the strongest organisation, or by `only` one.
    """

    console: Console
    organisations: tuple[Address, ...]
    names: Mapping[Address, str]
    only: Address | None = None

    @cached_property
    def coloured(self) -> bool:
        """Whether the console shows colours."""
        return self.console.color_system is not None and not self.console.no_color

    @cached_property
    def colours(self) -> tuple[str, ...]:
        """By organisation, #rrggbb."""
        by_address = colours(self.organisations, self.names)
        return tuple(by_address[organisation] for organisation in self.organisations)

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """By organisation, in order of name; those after the 26th share a plus."""
        order = {o: i for i, o in enumerate(sorted(self.organisations, key=self.names.__getitem__))}
        return tuple(_LETTERS[order[o]] if order[o] < len(_LETTERS) else "+" for o in self.organisations)

    def legend(self) -> list[Text]:
        """The organisations' names in order, each behind its colour or letter."""
        ordered = sorted(range(len(self.organisations)), key=lambda k: self.names[self.organisations[k]])
        return [self._key(k) + Text(visible(self.names[self.organisations[k]])) for k in ordered]

    def token(self, token: TokenScores) -> Text:
        """One token, coloured where the console shows colours."""
        shares = token_shares(token)
        which = self._chosen(shares)
        share = shares.organisations[which]
        ground = mixed(self.colours[which], 0.7 * share)
        style = f"black on {ground}" if self.coloured and share >= _SEEN else ""
        return Text(visible(token.text), style)

    def mark(self, token: TokenScores) -> str:
        """The letter of a token's organisation, or a dot."""
        shares = token_shares(token)
        which = self._chosen(shares)
        share = shares.organisations[which]
        if share < shares.base or not share:
            return "·"
        return self.letters[which] if share >= 0.5 else self.letters[which].lower()

    def response(self, trace: TokenTrace) -> Text:
        """The response: coloured text, or text over letters, in lines no wider than the console."""
        if self.coloured:
            return Text().join(self.token(token) for token in trace.tokens)
        lines, text, marks = list[str](), "", ""
        for token in trace.tokens:
            mark = self.mark(token)
            for character in visible(token.text):
                if character == "\n" or cell_len(text + character) > self.console.width:
                    lines += [text, marks]
                    text, marks = "", ""
                if character != "\n":
                    text, marks = text + character, marks + mark * cell_len(character)
        return Text("\n".join([*lines, text, marks]))

    def table(self, trace: TokenTrace) -> Table:
        """Shares and scores of the response."""
        shares, response = response_shares(trace), trace.response
        ranked = sorted(range(len(self.organisations)), key=lambda k: -response.scores[k])
        table = Table(box=None, pad_edge=False, show_edge=False)
        for heading, width in (("taught by", 16), ("", _BAR)):
            table.add_column(heading, min_width=width)
        for heading, width in (("share", 6), ("score", 9), ("familiar", 9)):
            table.add_column(heading, justify="right", min_width=width)
        for k in ranked[:_ROWS]:
            name = self.names[self.organisations[k]]
            share = self._share(shares.organisations[k], self.colours[k], response.scores[k])
            table.add_row(self._key(k) + Text(name), *share, f"{response.familiarity[k]:+z.2f}")
        if len(ranked) > _ROWS:
            table.add_row(f"  and {len(ranked) - _ROWS} with less")
        table.add_row("· base model", *self._share(shares.base, "", response.base))
        table.add_row("  residual", "", "", "–" if response.residual is None else f"{response.residual:z.2f}")
        return table

    def _key(self, k: int) -> Text:
        return Text("■ ", self.colours[k]) if self.coloured else Text(f"{self.letters[k]} ")

    def _chosen(self, shares: Shares) -> int:
        return shares.strongest if self.only is None else self.organisations.index(self.only)

    def _share(self, share: float, colour: str, score: float) -> tuple[Text, str, str]:
        bar = "█" * round(_BAR * share) if share else ""
        return Text(bar, colour if self.coloured else ""), f"{100 * share:.0f} %", f"{score:z.2f}"


def parts(
    console: Console, trace: TokenTrace, names: Mapping[Address, str], only: Address | None = None
) -> tuple[RenderableType, ...]:
    """A trace for `console`: the prompt, the response, the shares, and the verdict."""
    heat = Heat(console, trace.organisations, names, only)
    weights = "" if trace.response.calibrated else "; constants, not calibrated for this base"
    told = f"{verdict(trace, names)}; {trace.method}, {trace.seconds:.2f} s{weights}"
    return Text(visible(trace.prompt), "dim"), "", heat.response(trace), "", heat.table(trace), "", told


def verdict(trace: TokenTrace, names: Mapping[Address, str]) -> str:
    """The organisation that taught the response, and the confidence of that verdict."""
    response = trace.response
    if response.verdict is None:
        return f"Verdict  none: the method abstains at a confidence of {100 * response.confidence:.0f} %"
    return f"Verdict  {names[response.verdict]}, {100 * response.confidence:.0f} % confident"


def summary(trace: TokenTrace, names: Mapping[Address, str]) -> str:
    """Shares of the response and the verdict, in one line."""
    shares = response_shares(trace)
    by_name = {names[o]: share for o, share in zip(trace.organisations, shares.organisations, strict=True)}
    ranked = sorted(by_name.items(), key=lambda item: -item[1])[:_SUMMARISED]
    parts = [f"{name} {100 * share:.0f} %" for name, share in [*ranked, ("base model", shares.base)]]
    return f"{' · '.join(parts)}; {verdict(trace, names)}"
