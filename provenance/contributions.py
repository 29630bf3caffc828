r"""What each organisation contributed to the adapter that is served, in factors, never as a matrix of the model's size.

At a module whose output is W x + s δ(x), with s = alpha / rank, organisation k contributes s δ_k(x), and Σ_k δ_k = δ up
to rounding (svd: up to what the rule could not represent). Every δ_k is a sum of few terms L R x with L of shape
(out, r) and R of shape (r, in), one of which all organisations may share. p is the weight of an update in its round,
times the lane's share where lanes learn apart; D_k = Σ_t p_k^t δ_k^t over the rounds that admitted k.

    frozen-a   D^B_k A                                                    the shared A
    fedavg     ½ D^B_k (A_0 + A_R) + ½ B_R D^A_k                          sums exactly to B_R A_R, for B_0 = 0
    stack      Σ_t p_k^t B_k^t A_k^t                                      a block a round
    svd        Σ_t p_k^t [(B^t + δB_k)(A^t + δA_k) − B^t A^t]             as [p δB, p (B + δB)] · [A; δA]

Organisations absent from rounds, unequal weights and ranks need nothing more. The records say what was admitted, the
store has the updates. They are read once, and summed one organisation after the other; the terms are kept in memory
where all of them are small, else in a file that is read a chunk of organisations at a time (`provenance/terms.py`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, Rule, by_address
from core.canonical import Address
from core.composition import shares
from core.errors import IntegrityError, UsageError
from core.rounds import RoundRecord
from core.storage.run_folder import RunFolder
from provenance.terms import Chunk, Term, Terms, chunks, keep

Float64 = NDArray[np.float64]
Tensors = Mapping[str, torch.Tensor]

_KEPT_BYTES = 32 * 2**20
"""Factors stay in memory from one attribution to the next where those of all organisations take no more."""
_CHUNK_BYTES = 16 * 2**20
"""Else they lie in a file, and so much of it is in memory at a time."""
_PROBES = 16
_Make = Callable[[Sequence[Address], Sequence[str]], Terms]


class Part(NamedTuple):
    """One admitted update: whose, its weight in the served adapter, and how to read it."""

    organisation: Address
    weight: float
    read: Callable[[], AdapterState]


class Step(NamedTuple):
    """One round: how to read the state that it started from and the state that it led to, and what it admitted."""

    before: Callable[[], AdapterState]
    after: Callable[[], AdapterState]
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Contributions:
    """The lineage of what is served: for each lane its rounds in order. `fresh` is the adapter before any training.

    Raises UsageError when no round admitted an update.
    """

    rule: Rule
    fresh: AdapterState
    lanes: tuple[tuple[Step, ...], ...]
    scale: float
    device: torch.device

    def __post_init__(self) -> None:
        """Refuse a run without contributions."""
        if not self.organisations:
            raise UsageError("no round of this run has admitted an update: there are no contributions to attribute to")

    @cached_property
    def organisations(self) -> tuple[Address, ...]:
        """Everybody who contributed, in order of address."""
        found = {part.organisation for lane in self.lanes for step in lane for part in step.parts}
        return tuple(sorted(found, key=by_address))

    @cached_property
    def candidates(self) -> tuple[Address, ...]:
        """Who was admitted to the last round of a lane, in order of address."""
        found = {part.organisation for lane in self.lanes if lane for part in lane[-1].parts}
        return tuple(sorted(found, key=by_address))

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """The adapted modules, in order of name."""
        return tuple(name.removesuffix(".lora_A") for name in self.fresh if name.endswith(".lora_A"))

    def position(self, organisation: Address) -> int:
        """The place of an organisation among those who contributed; raises UsageError when it is none of them."""
        if organisation not in self.organisations:
            raise UsageError(f"{organisation} has contributed nothing to what is served")
        return self.organisations.index(organisation)

    def chunks(self, size: int | None = None) -> Iterator[tuple[slice, Terms]]:
        """All organisations' terms, at most `size` organisations at a time."""
        yield from chunks(self._kept, size)

    def together(self) -> Terms:
        """The terms of all organisations at once, however large: for few of them."""
        return self._terms(self.organisations, self.modules)

    def clients(self, modules: Sequence[str], size: int | None = None) -> Iterator[tuple[slice, Terms]]:
        """The adapters that the candidates trained themselves in the last round, at `modules` only.

        Of an organisation with several slices it is the mean of theirs.
        """
        key = tuple(modules)
        if key not in self._kept_clients:
            self._kept_clients[key] = self._keep(self._clients, self.candidates, key)
        yield from chunks(self._kept_clients[key], size)

    def contract(self, *asked: tuple[Tensors, Tensors], size: int | None = None) -> torch.Tensor:
        """Return s Σ_modules Σ_positions ⟨g, δ_k(x)⟩, float64 (Σ n, K), of inputs x and gradients g by module.

        Several questions are answered in one reading of the contributions; each has rows of its own.
        """
        counts = [len(next(iter(inputs.values()))) for inputs, _ in asked]
        scores = torch.zeros(sum(counts), len(self.organisations), dtype=torch.float64)
        for part, terms in self.chunks(size):
            found = torch.zeros(sum(counts), part.stop - part.start, device=self.device)
            questions = list(zip(torch.split(found, counts), asked, strict=True))
            for name in asked[0][0]:
                for term in terms[name]:
                    for rows, (inputs, gradients) in questions:
                        rows.add_(term.contract(inputs[name], gradients[name]))
            scores[:, part] = self.scale * found.double().cpu()
        return scores

    def gap(self, adapter: AdapterState) -> float:
        """‖Σ_k δ_k − B A‖ / ‖B A‖ over all modules of the served adapter, estimated with Gaussian probes."""
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

    @cached_property
    def _kept(self) -> list[Chunk]:
        return self._keep(self._terms, self.organisations, self.modules)

    @cached_property
    def _kept_clients(self) -> dict[tuple[str, ...], list[Chunk]]:
        """The candidates' own adapters, by the modules that were asked for."""
        return {}

    @cached_property
    def _parts_of(self) -> Mapping[Address, Sequence[Part]]:
        """Every organisation's admitted updates, in order of lane and round."""
        found: dict[Address, list[Part]] = {organisation: [] for organisation in self.organisations}
        for _, _, part in self.parts(self.organisations):
            found[part.organisation].append(part)
        return found

    def _keep(self, make: _Make, who: Sequence[Address], modules: Sequence[str]) -> list[Chunk]:
        each = self._bytes_each(modules)
        most = len(who) if len(who) * each <= _KEPT_BYTES else max(1, _CHUNK_BYTES // each)
        return keep(len(who), most, lambda part: make(who[part], modules))

    def _bytes_each(self, modules: Sequence[str]) -> int:
        """Bytes of one organisation's factors, at most."""
        rounds = max(len(lane) for lane in self.lanes) if self.rule.name in _BLOCKS else 1
        own = _only(self.fresh if self.rule.trains_a else lora.factor(self.fresh, "B"), modules)
        return own.nbytes * rounds * (2 if self.rule.name == "svd" else 1)

    def _terms(self, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
        terms = _BLOCKS.get(self.rule.name, _summed_terms)(self, organisations, modules)
        return {name: tuple(term.to(self.device) for term in found) for name, found in terms.items()}

    def _clients(self, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
        own: dict[Address, list[AdapterState]] = {}
        fresh = _only(self.fresh, modules)
        for lane in self.lanes:
            asked = [part for part in (lane[-1].parts if lane else ()) if part.organisation in organisations]
            before = _only(lane[-1].before(), modules) if asked else fresh
            for part in asked:
                trained = self.rule.trained(before, _only(part.read(), modules))
                own.setdefault(part.organisation, []).append(self.rule.adapter(trained, fresh))
        found: dict[str, tuple[Term, ...]] = {}
        for name in modules:
            left = _tensor(np.stack([_mean(own[o], f"{name}.lora_B").T for o in organisations])).mT
            rights = [own[o][0][f"{name}.lora_A"] for o in organisations]
            right = _tensor(np.stack(rights if self.rule.trains_a else rights[:1]))
            found[name] = (Term(left, right).to(self.device),)
        return found

    def total(self, organisation: Address, names: Sequence[str]) -> dict[str, Float64]:
        """D_k of one organisation: its weighted updates of these arrays, summed over all rounds."""
        found: dict[str, Float64] = {}
        for part in self._parts_of[organisation]:
            update = part.read()
            for name in names:
                found[name] = part.weight * update[name].astype(np.float64) + found.get(name, 0.0)
        return found

    def parts(self, organisations: Sequence[Address]) -> Iterator[tuple[int, Step, Part]]:
        """The admitted updates of `organisations`, each with its organisation's place among them and its round."""
        places = {organisation: i for i, organisation in enumerate(organisations)}
        for lane in self.lanes:
            for step in lane:
                for part in step.parts:
                    if part.organisation in places:
                        yield places[part.organisation], step, part


def of_run(
    run: RunFolder, modules: Mapping[str, tuple[int, int]], device: torch.device, lane: int | None = None
) -> Contributions:
    """The contributions to what a run serves on a base with these `modules` (in, out features by name).

    With `lane`, those to the state of that lane alone.

    Raises UsageError when there are none, ModelError when the base is another one.
    """
    genesis = run.genesis
    fresh = lora.fresh(lora.Layout.of(modules, genesis.rank), seeds.shared(genesis.seed))
    if lora.factor(fresh, "A").digest != genesis.shared_a:
        raise IntegrityError(f"run {run.name}: the base here gives another shared A than the genesis names")
    weighed = enumerate(_shares(run)) if lane is None else [(lane, 1.0)]
    lanes = tuple(_lane(run, index, share, fresh) for index, share in weighed)
    return Contributions(RULES[genesis.rule], fresh, lanes, genesis.alpha / genesis.rank, device)


def _shares(run: RunFolder) -> tuple[float, ...]:
    """The part of each lane in what is served."""
    return shares(run.genesis, [run.members(lane) for lane in range(len(run.genesis.lanes))])


def _lane(run: RunFolder, index: int, share: float, fresh: AdapterState) -> tuple[Step, ...]:
    before: Callable[[], AdapterState] = partial(RULES[run.genesis.rule].initial, fresh)
    steps = []
    for signed in run.lineage(index):
        steps.append(_step(run, signed.value, share, before))
        before = steps[-1].after
    return tuple(steps)


def _step(run: RunFolder, record: RoundRecord, share: float, before: Callable[[], AdapterState]) -> Step:
    parts = tuple(
        Part(a.organisation, a.weight * share, partial(run.artifacts.open, a.signed.value.update))
        for a in record.admitted
    )
    return Step(before, partial(run.artifacts.open, record.aggregate), parts)


def _summed_terms(contributions: Contributions, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
    """Terms of frozen-a and fedavg, whose updates add up, factor by factor."""
    trains_a, fresh = contributions.rule.trains_a, contributions.fresh
    own = _only(fresh if trains_a else lora.factor(fresh, "B"), modules)
    # B transposed: see Term.
    sums = {n: np.zeros((len(organisations), *_upright(n, own[n]).shape), np.float32) for n in own}
    for place, organisation in enumerate(organisations):
        for name, total in contributions.total(organisation, tuple(own)).items():
            sums[name][place] = _upright(name, total)
    factors = {name: torch.from_numpy(array) for name, array in sums.items()}
    if not trains_a:
        return {m: (Term(factors[f"{m}.lora_B"].mT, _tensor(fresh[f"{m}.lora_A"][None])),) for m in modules}
    last = contributions.lanes[0][-1].after()
    return {m: _bilinear(m, factors, fresh[f"{m}.lora_A"].astype(np.float64), last) for m in modules}


def _bilinear(module: str, sums: Mapping[str, torch.Tensor], start: Float64, last: AdapterState) -> tuple[Term, ...]:
    """½ D^B (A_0 + A_R) and ½ B_R D^A."""
    a, b = f"{module}.lora_A", f"{module}.lora_B"
    return Term(sums[b].mT, _tensor(0.5 * (start + last[a])[None])), Term(_tensor(0.5 * last[b][None]), sums[a])


def _upright(name: str, array: NDArray[np.floating]) -> NDArray[np.floating]:
    """A as it is, B transposed: the rank first."""
    return array if name.endswith(".lora_A") else array.T


def _stacked_terms(contributions: Contributions, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
    """A block p B, A for each round."""
    blocks = _Blocks.of(organisations, modules)
    for place, _, part in contributions.parts(organisations):
        update = part.read()
        for m in modules:
            blocks.add(m, place, part.weight * update[f"{m}.lora_B"].astype(np.float64), update[f"{m}.lora_A"])
    return blocks.terms()


def _product_terms(contributions: Contributions, organisations: Sequence[Address], modules: Sequence[str]) -> Terms:
    """[p δB, p (B + δB)] and [A; δA] for each round."""
    blocks = _Blocks.of(organisations, modules)
    current, before = None, contributions.fresh
    for place, step, part in contributions.parts(organisations):
        if step is not current:
            current, before = step, step.before()
        update = part.read()
        for m in modules:
            a, b = f"{m}.lora_A", f"{m}.lora_B"
            change = update[b].astype(np.float64)
            blocks.add(m, place, part.weight * change, before[a])
            blocks.add(m, place, part.weight * (before[b] + change), update[a])
    return blocks.terms()


_BLOCKS = {"stack": _stacked_terms, "svd": _product_terms}


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Blocks of factors by module and organisation."""

    found: Mapping[str, list[list[tuple[NDArray[np.floating], NDArray[np.floating]]]]]

    @classmethod
    def of(cls, organisations: Sequence[Address], modules: Sequence[str]) -> "_Blocks":
        return cls({name: [[] for _ in organisations] for name in modules})

    def add(self, module: str, place: int, left: NDArray[np.floating], right: NDArray[np.floating]) -> None:
        self.found[module][place].append((left.astype(np.float32), right))

    def terms(self) -> Terms:
        """One term a module, ranks padded with zeros to the largest."""
        return {name: (_padded(blocks),) for name, blocks in self.found.items()}


def _padded(organisations: list[list[tuple[NDArray[np.floating], NDArray[np.floating]]]]) -> Term:
    rank = max(sum(left.shape[1] for left, _ in blocks) for blocks in organisations)
    example = next(blocks[0] for blocks in organisations if blocks)
    left = np.zeros((len(organisations), rank, example[0].shape[0]), np.float32)
    right = np.zeros((len(organisations), rank, example[1].shape[1]), np.float32)
    for place, blocks in enumerate(organisations):
        start = 0
        for one, other in blocks:
            stop = start + one.shape[1]
            left[place, start:stop], right[place, start:stop] = one.T, other
            start = stop
    return Term(torch.from_numpy(left).mT, torch.from_numpy(right))


def _mean(states: Sequence[AdapterState], name: str) -> NDArray[np.float32]:
    """An array's mean over the slices of an organisation, which share A: lanes of other rules are not summed."""
    return states[0][name] if len(states) == 1 else np.mean([state[name] for state in states], 0, np.float32)


def _only(state: AdapterState, modules: Sequence[str]) -> AdapterState:
    return AdapterState({name: array for name, array in state.arrays.items() if name.rpartition(".")[0] in modules})


def _tensor(array: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.array(array, np.float32))
