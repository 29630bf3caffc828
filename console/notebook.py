"""A run in a notebook: its records as data frames, its answers traced, and its pictures.

    from console import notebook

    run = notebook.open_run()
    run.losses
    run.attribute("What does a beta blocker do?")

Frames are pandas'; what has a picture or a page shows it where a notebook asks for HTML.
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

import assets
from agents.rewards import cumulative
from console.options import readable_run, state_of
from console.views.report import report
from console.web import pictures
from core.canonical import Address
from core.errors import RunError
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from provenance.colours import colours

if TYPE_CHECKING:
    from provenance.trace import TokenTrace

_WIDEST = 400
"""Of a bar, in the picture's units."""


def open_run(name: str = "", *, state: Path | str | None = None, key: Path | None = None, base: str = "") -> "OpenRun":
    """The run `name`, or the newest, of a state folder, by default $FOEDUS_HOME or .foedus.

    `key` is the file of a reader's key, where the run is sealed for readers; `base` the place of the base model, where
    that is not where the run had it. Raises UsageError when there is no such run, or no key to it.
    """
    folder = state_of(Path(state) if state is not None else None)
    return OpenRun(folder, readable_run(folder, name, key), base)


@dataclass(frozen=True)
class Picture:
    """An SVG, which a notebook shows."""

    svg: str = field(repr=False)

    def _repr_html_(self) -> str:
        style = assets.page("notebook.css").read_text(encoding="utf-8")
        return f'<style>{style}</style><div class="foedus">{self.svg}</div>'


@dataclass(frozen=True)
class Attribution:
    """A traced answer: `trace` as computed, `scores` as a frame, and the page of `foedus attribute --html`."""

    trace: "TokenTrace"
    names: Mapping[Address, str]

    def __repr__(self) -> str:
        return f"Attribution(verdict={self.verdict!r}, text={self.trace.text!r})"

    @property
    def verdict(self) -> str | None:
        """The organisation that taught the answer, by name; None where the method abstains."""
        found = self.trace.response.verdict
        return self.names[found] if found else None

    @property
    def scores(self) -> pd.DataFrame:
        """A row a token: its text, a column of scores in nats for each organisation, base and residual."""
        named = [self.names[address] for address in self.trace.organisations]
        rows = [
            {"token": t.text, **dict(zip(named, t.scores, strict=True)), "base": t.base, "residual": t.residual}
            for t in self.trace.tokens
        ]
        return pd.DataFrame(rows, columns=["token", *named, "base", "residual"])

    def _repr_html_(self) -> str:
        from provenance.page import page  # noqa: PLC0415 - with the trace, whose modules are loaded by then

        # A page of its own, with its own policy: a token may well be markup.
        shown = html.escape(page(self.trace, self.names))
        return f'<iframe srcdoc="{shown}" sandbox="allow-scripts" style="width:100%;height:28rem;border:0"></iframe>'


@dataclass(frozen=True)
class OpenRun:
    """A run, as its files are now."""

    state: State
    run: RunFolder
    base: str = ""

    @property
    def name(self) -> str:
        """The run id."""
        return self.run.name

    @property
    def records(self) -> pd.DataFrame:
        """A row for each update that a round of the served line admitted, by lane and round."""
        names = self.run.genesis.names
        rows = [
            {
                "lane": record.lane, "generation": record.generation, "round": record.round,
                "organisation": names[a.organisation], "weight": a.weight, "factor": a.factor, "norm": a.norm,
                "tokens": a.signed.value.tokens, "update": a.signed.value.update, "aggregate": record.aggregate,
            }
            for lane in range(len(self.run.genesis.lanes))
            for record in (signed.value for signed in self.run.lineage(lane))
            for a in record.admitted
        ]  # fmt: skip
        return pd.DataFrame(rows)

    @property
    def losses(self) -> pd.DataFrame:
        """Nats per answer token on held-out records: a row a round, 0 for the base, a column an organisation."""
        told = self._report
        rounds = {entry["round"]: entry["losses"] for entry in told["rounds"] if entry["losses"]}
        return pd.DataFrame.from_dict({0: told["base_loss"], **rounds}, orient="index").rename_axis("round")

    @property
    def credits(self) -> pd.Series:
        """What each organisation was paid for its measured credit, over all rounds; empty where none is measured."""
        names = self.run.genesis.names
        return pd.Series({names[a]: value for a, value in cumulative(self.run).items()}, dtype=float, name="paid")

    def attribute(
        self, prompt: str, response: str | None = None, *, method: str = "", max_new_tokens: int = 64
    ) -> Attribution:
        """Trace a response, or the model's own greedy answer; the base is loaded at the first question.

        Raises UsageError as `foedus attribute` does.
        """
        from provenance.attribution import DEFAULT, attribute  # noqa: PLC0415 - torch: whoever reads frames need not wait

        traced = attribute(self._subject, prompt, response, method or DEFAULT, max_new_tokens)
        return Attribution(traced, self.run.genesis.names)

    def plot_losses(self) -> Picture:
        """The losses by round; raises RunError before anything was measured."""
        if (chart := pictures.curves(self._report)) is None:
            raise RunError(f"run {self.name}: expected losses, got none: nothing was measured yet")
        return Picture(_drawn("losses", chart))

    def plot_credits(self) -> Picture:
        """The same as bars."""
        found = self.credits
        most = max(found.max(), 0.0) or 1.0 if len(found) else 1.0
        shades = colours([Address(name) for name in found.index], {Address(name): name for name in found.index})
        rows = [
            {"name": name, "text": f"{value:.4g}", "colour": shades[Address(str(name))],
             "width": round(_WIDEST * max(value, 0.0) / most, 1)}
            for name, value in found.items()
        ]  # fmt: skip
        return Picture(_drawn("bars", rows, "Paid"))

    def plot_lineage(self) -> Picture:
        """Rounds, generations and erasures of each lane."""
        return Picture("".join(_drawn("lineage", lane) for lane in pictures.lineage(self.run)))

    @property
    def _report(self) -> dict[str, Any]:
        return report(self.state, self.run)

    @cached_property
    def _subject(self) -> Any:
        from provenance.served import subject  # noqa: PLC0415 - torch

        return subject(self.run, self.base)


def _drawn(macro: str, *values: Any) -> str:
    """A picture of the console."""
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(assets.page("console")), autoescape=True)
    return str(getattr(environment.get_template("pictures.html").module, macro)(*values))
