r"""The organisations' contributions to the served adapter, in factors, never as a matrix of the model's size.

At a module whose output is W x + s δ(x), s the adapter's scale, organisation k contributes s δ_k(x), and Σ_k δ_k = δ up
to rounding (svd: up to what the rule could not represent). The factors of each δ_k follow from the rounds
(`provenance/factors.py`); the terms are kept in memory where all of them are small, else in a file that is read a chunk
of organisations at a time (`provenance/terms.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES
from core.canonical import Address
from core.composition import shares
from core.errors import IntegrityError, UsageError
from core.storage.run_folder import RunFolder
from provenance.factors import TERMS, Make, bytes_each, client_terms
from provenance.history import History, stored_rounds
from provenance.terms import Chunk, Contraction, Terms, chunks, keep

Tensors = Mapping[str, torch.Tensor]

_KEPT_BYTES = 32 * 2**20
"""Factors stay in memory from one attribution to the next where those of all organisations take no more."""
_CHUNK_BYTES = 32 * 2**20
"""Else they lie in a file, and so much of it is in memory at a time."""
_PROBES = 16


@dataclass(frozen=True, eq=False)
class Contributions(History):
    """The contributions of all organisations; `scale` is s, `device` where the terms are needed."""

    scale: float
    device: torch.device
    _kept: dict[tuple[Make, tuple[str, ...]], list[Chunk]] = field(default_factory=dict, init=False)

    def position(self, organisation: Address) -> int:
        """The index of an organisation among the contributors; raises UsageError when it is none of them."""
        if organisation not in self.organisations:
            raise UsageError(f"{organisation} has contributed nothing to what is served")
        return self.organisations.index(organisation)

    def chunks(self, size: int | None = None) -> Iterator[tuple[slice, Terms]]:
        """All organisations' terms, at most `size` organisations at a time."""
        yield from chunks(self._kept_terms(TERMS[self.rule.name], self.organisations, self.modules), size)

    def clients(self, modules: Sequence[str], size: int | None = None) -> Iterator[tuple[slice, Terms]]:
        """The adapters that the candidates trained themselves in the last round, at `modules` only."""
        yield from chunks(self._kept_terms(client_terms, self.candidates, tuple(modules)), size)

    def together(self) -> Terms:
        """The terms of all organisations at once, however large: for few of them."""
        return self._on_device(TERMS[self.rule.name](self, self.organisations, self.modules))

    def contract(self, *asked: tuple[Tensors, Tensors], size: int | None = None) -> torch.Tensor:
        """Return s Σ_modules Σ_positions ⟨g, δ_k(x)⟩, float64 (Σ n, K), of inputs x and gradients g by module.

        Several questions are answered in one reading of the contributions; each has rows of its own.
        """
        counts = [len(next(iter(inputs.values()))) for inputs, _ in asked]
        scores = torch.zeros(sum(counts), len(self.organisations), dtype=torch.float64)
        # Of a few modules the terms are few, and stay in memory: a stream asks for them with every token.
        modules = tuple(name for name in self.modules if name in asked[0][0])
        contractions: dict[str, list[list[Contraction]]] = {}
        for part, terms in chunks(self._kept_terms(TERMS[self.rule.name], self.organisations, modules), size):
            sums = torch.zeros(sum(counts), part.stop - part.start, device=self.device)
            rows = torch.split(sums, counts)
            # Those of a chunk serve all that follow, unless it is of one organisation: its factors may be its own.
            reused = contractions if part.stop - part.start > 1 else {}
            for name in asked[0][0]:
                if name not in reused:
                    reused[name] = [[term.contraction(x[name], g[name]) for x, g in asked] for term in terms[name]]
                for term, questions in zip(terms[name], reused[name], strict=True):
                    for total, contract in zip(rows, questions, strict=True):
                        total.add_(contract(term))
            scores[:, part] = self.scale * sums.double().cpu()
        return scores

    def gap(self, adapter: AdapterState) -> float:
        """‖Σ_k δ_k − B A‖ / ‖B A‖ over all modules of the served adapter, estimated with Gaussian probes."""
        # E ‖M z‖² = ‖M‖² for Gaussian z: the matrices themselves, as large as the model's, are never computed.
        source = np.random.default_rng(0)
        shapes = {name: adapter[f"{name}.lora_A"].shape[1] for name in self.modules}
        probes = {name: source.normal(size=(_PROBES, width)) for name, width in shapes.items()}
        missing = {
            name: probes[name] @ adapter[f"{name}.lora_A"].T.astype(np.float64) @ adapter[f"{name}.lora_B"].T
            for name in self.modules
        }
        total = sum(float(np.sum(output**2)) for output in missing.values())
        for _, terms in self.chunks():
            for name in self.modules:
                for left, right in terms[name]:
                    inner = torch.from_numpy(probes[name]) @ right.double().cpu().transpose(1, 2)
                    missing[name] -= (inner @ left.double().cpu().transpose(1, 2)).sum(0).numpy()
        lost = sum(float(np.sum(output**2)) for output in missing.values())
        return float(np.sqrt(lost / total)) if total else float(np.sqrt(lost))

    def _kept_terms(self, make: Make, organisations: Sequence[Address], modules: tuple[str, ...]) -> list[Chunk]:
        """The terms of organisations at modules: made when they are first asked for, and kept."""
        if (make, modules) not in self._kept:
            each = bytes_each(self, modules)
            fits = len(organisations) * each <= _KEPT_BYTES
            most = len(organisations) if fits else max(1, _CHUNK_BYTES // each)
            made = keep(
                len(organisations), most, lambda part: self._on_device(make(self, organisations[part], modules))
            )
            self._kept[make, modules] = made
        return self._kept[make, modules]

    def _on_device(self, terms: Terms) -> Terms:
        return {name: tuple(term.to(self.device) for term in some) for name, some in terms.items()}


def of_run(
    run: RunFolder, modules: Mapping[str, tuple[int, int]], device: torch.device, lane: int | None = None
) -> Contributions:
    """The contributions to what a run serves on a base with these `modules` (in, out features by name).

    With `lane`, those to the state of that lane alone.

    Raises UsageError when there are none, IntegrityError when the base is another one.
    """
    genesis = run.genesis
    fresh = lora.fresh(lora.Layout.of(modules, genesis.rank), seeds.shared(genesis.shared_seed))
    if lora.factor(fresh, "A").digest != genesis.shared_a:
        raise IntegrityError(f"run {run.name}: the base here gives another shared A than the genesis names")
    members = [run.members(index) for index in range(len(genesis.lanes))]
    weighed = enumerate(shares(genesis, members)) if lane is None else [(lane, 1.0)]
    lanes = tuple(stored_rounds(run, index, share, fresh) for index, share in weighed)
    return Contributions(RULES[genesis.rule], fresh, lanes, genesis.scale, device)
