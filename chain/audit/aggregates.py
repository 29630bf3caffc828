"""The states of a lane, computed again from the updates.

frozen-a, fedavg and stack must come out bit for bit. svd depends on the machine's LAPACK: its claimed factors must be
as near to the exact product as the best of rank r, up to their rounding to float32. A factor pair of rank r with
evenly shared singular values that is rounded elementwise (2⁻²⁴) moves its product by at most 2⁻²³ √r ‖product‖_F;
twice that is allowed.

When a round does not hold, the next one is computed from what the record claims, so that one bad round is one finding.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from chain.audit.erasures import ErasureAudit
from chain.audit.files import Files
from chain.audit.reading import Members, Opened, Read
from chain.audit.report import Findings, What
from core import lora, seeds
from core.adapter import AdapterState
from core.aggregation import RULES, Aggregate, Rule, Svd, WeightedUpdate
from core.canonical import Address, Digest
from core.clipping import clipping
from core.errors import DestroyedError, FoedusError
from core.genesis import Genesis
from core.lora import Layout
from core.model_selection import Measures
from core.pruned import Pruned
from core.robust import MEASURED_WITHIN, counted, rounding, scaled, wrong
from core.rounds import RoundRecord
from core.storage.artifacts import KEYS, SEALED, Artifacts
from core.storage.run_folder import PRUNED
from core.wire import MOST_NUMBERS, Packed, Rounded, numbers_of


@dataclass
class StateAudit:
    """Reads artifacts and computes states; `fresh` is the adapter before any training, None when it is unknown."""

    artifacts: Artifacts
    files: Files
    genesis: Genesis
    findings: Findings
    readers_known: bool = True
    erasures: ErasureAudit | None = None
    served: frozenset[Digest] = frozenset()
    """The states of the served lineage, which no erasure may destroy."""
    fresh: AdapterState | None = None
    measures: Measures | None = None
    """What is measured on the shared validation set, where that and the base are."""
    pruned: frozenset[Digest] = frozenset()
    """The aggregates that need not be there, since the updates give them."""
    read: Read | None = None
    """What reads artifacts, where it is not done here."""
    _wrapped: set[tuple[str, Members]] = field(default_factory=set)

    @property
    def rule(self) -> Rule:
        """The federation's rule."""
        return RULES[self.genesis.rule]

    @property
    def initial(self) -> AdapterState | None:
        """The state of every lane before round 1."""
        if origin := self.genesis.origin:
            return self.open(What.ORIGIN, origin.state, "genesis.json")
        return self.rule.initial(self.fresh) if self.fresh else None

    def open(
        self, what: What, name: Digest, where: str, members: Members = None, most: int = MOST_NUMBERS
    ) -> AdapterState | None:
        """An artifact with its digest checked, sealed for `members` (None is everybody); None after a failure.

        Few bytes may say that they are many numbers: more than `most` are never decompressed.
        """
        blob = self.artifacts.place(name)
        self.files.take_sealed(blob)
        opened = self.read(name, members) if self.read else Opened.of(self.artifacts, name, members)
        keys = f"{where}, artifacts/{blob}{KEYS}"
        file = f"{where}, artifacts/{blob}{SEALED}" if opened.unlocked else keys
        try:
            if opened.error:
                raise opened.error
            state = (packed := Packed(opened.data, most_numbers=most)).state
        except DestroyedError as error:
            if name in self.served or self.erasures is None or not self.erasures.excuses(name):
                self.findings.fail(What.DESTROYED, file, error, "a key to open it, or an erasure that lists it")
        except (FoedusError, OSError) as error:
            self.findings.fail(what, file, error, f"an AdapterState of digest {name}")
        else:
            # A signature binds the bytes, and not that they have the form that it names.
            self.findings.expect(What.WIRE, file, packed.form, self.genesis.wire if what == What.UPDATE else "fp32")
            if self.erasures and name in self.erasures.destroyed and name not in self.served:
                self.findings.fail(What.DESTROYED, file, "a state that can be read", "one that the erasure destroyed")
            # Every reader can read; each key is looked at once.
            if self.readers_known and (blob, members) not in self._wrapped:
                self._wrapped.add((blob, members))
                with self.findings.guard(What.WRAPS, keys, "a key that everyone who may read can open"):
                    if opened.wraps:
                        raise opened.wraps
                    self.findings.checked["sealed keys"] += 1
            return state
        return None

    def draw_fresh(self, updates: Iterable[Digest], layout: Layout | None) -> None:
        """Draw the adapter before any training again and compare its A with the genesis.

        The layers' sizes are those of `layout`, else of the first readable update and, with frozen-a, of the stored A;
        when that is missing, the rounds can be computed all the same.
        """
        shared = None
        if not self.rule.trains_a:
            shared = self.open(What.SHARED_A, self.genesis.shared_a, "genesis.json")
        update = next((shapes for shapes in map(self._shapes, updates) if shapes is not None), None)
        with self.findings.guard(What.SHARED_A, "genesis.json", "layers that an adapter of this rank fits"):
            if shared is None and layout is None and update and not self.rule.trains_a:
                self.fresh = AdapterState({name: np.zeros(shape, np.float32) for name, shape in update.items()})
            elif layout := layout or _layout(self.genesis.rank, shared, update):
                self.fresh = lora.fresh(layout, seeds.shared(self.genesis.shared_seed))
                drawn = lora.factor(self.fresh, "A").digest
                self.findings.expect(What.SHARED_A, "genesis.json", self.genesis.shared_a, drawn)
                self.findings.checked["shared A"] += 1

    def open_aggregate(self, record: RoundRecord, where: str, members: Members) -> AdapterState | None:
        """The state that a record claims; None where it is pruned, too."""
        if self._is_pruned(record.aggregate):
            self.findings.checked["pruned aggregates"] += 1
            return None
        return self.open(What.AGGREGATE, record.aggregate, where, members)

    def summable(self, name: Digest, before: AdapterState | None, where: str, members: Members) -> AdapterState | None:
        """An update that can be summed, else None: its artifact, arrays, numbers and norm are checked."""
        shapes = self.rule.shapes(before, self.fresh) if before and self.fresh else None
        most = numbers_of(shapes) if shapes else MOST_NUMBERS
        update = self.open(What.UPDATE, name, where, members, most)
        self.findings.checked["updates"] += 1
        if update is None or shapes is None:
            return None
        where = self._file(where, name)
        if not self._has_arrays(update, shapes, where):
            return None
        if update.norm > self.genesis.norm_bound:
            self.findings.fail(What.NORM, where, f"{update.norm:.6g}", f"at most {self.genesis.norm_bound:g}")
        return update

    def counted(
        self,
        record: RoundRecord,
        line: Sequence[RoundRecord],
        before: AdapterState | None,
        updates: list[WeightedUpdate],
        where: str,
    ) -> list[WeightedUpdate]:
        """What the robust rule leaves of a round's updates, each with its weight; the factors are computed again.

        `line` holds the rounds of its line.
        """
        robust, recorded, names = self.genesis.robust, record.factors, self.genesis.names
        self._check_norms(record, updates, where)
        line = [earlier for earlier in line if earlier.round < record.round]
        # Behind a gap, which is a finding of its own, nobody knows by which norms was clipped.
        whole = len(line) == record.round - 1
        clip = clipping(self.genesis, line, record.round, record.admitted) if whole else recorded
        harms = None
        if robust.rule == "validation" and self.measures and before:
            harms = self.measures.harms(before, scaled(updates, clip), robust.bound)
        for organisation, factor in wrong(robust, updates, recorded, clip, harms).items():
            got = recorded[organisation]
            self.findings.fail(What.FACTOR, f"{where}, {names.get(organisation, organisation)}", got, factor)
        if robust.rule == "validation" and harms is None:
            self.findings.checked["effects on the validation loss, not measured again"] += len(updates)
        return counted(robust, updates, recorded, self.genesis.membership.most_weight)

    def _check_norms(self, record: RoundRecord, updates: Iterable[WeightedUpdate], where: str) -> None:
        """The recorded norms are those of the updates, up to rounding, where the rule clips, and 0 elsewhere."""
        recorded = {admitted.organisation: admitted.norm for admitted in record.admitted}
        for update in updates:
            norm = update.state.norm if self.genesis.robust.clips else 0.0
            if abs((got := recorded[update.organisation]) - norm) > rounding([update]) * norm:
                name = self.genesis.names.get(update.organisation, update.organisation)
                self.findings.fail(What.NORM, f"{where}, {name}", got, norm)

    def after(
        self,
        record: RoundRecord,
        before: AdapterState | None,
        updates: list[WeightedUpdate] | None,
        where: str,
        members: Members,
    ) -> AdapterState | None:
        """The state after a round that admitted something; `updates` is None when one of them cannot be summed."""
        claimed, recomputed = self.open_aggregate(record, where, members), self.findings.recomputed
        self.findings.checked["aggregates"] += 1
        self.measure_again(record, claimed, where)
        where = self._file(where, record.aggregate)
        state = self._continued(record, before, updates, claimed, where)
        # Whatever became of the updates: a state that is not there and not computed was never checked.
        unchecked = claimed is None and self.findings.recomputed == recomputed and self._is_pruned(record.aggregate)
        if unchecked and not (self.erasures and self.erasures.excuses(record.aggregate)):
            self.findings.fail(What.PRUNED, where, "a pruned state", "one that the updates give")
        return state

    def _continued(
        self,
        record: RoundRecord,
        before: AdapterState | None,
        updates: list[WeightedUpdate] | None,
        claimed: AdapterState | None,
        where: str,
    ) -> AdapterState | None:
        """The state that the next round is computed from."""
        if before is None or self.fresh is None:
            return claimed if claimed and self.initial and claimed.shapes == self.initial.shapes else None
        with self.findings.guard(What.AGGREGATE, where, "updates that the rule can sum"):
            if updates is not None:
                computed = self.rule.aggregate(before, updates)
                return self._compared(record, before, updates, computed, claimed, where)
            if claimed is None:
                return None
            # The sum is unknown, but not its arrays: those of as many updates of zeros.
            shapes = self.rule.shapes(before, self.fresh)
            blank = AdapterState({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
            blanks = [WeightedUpdate(Address(hex(index)), 0.0, blank) for index in range(len(record.admitted))]
            expected = self.rule.aggregate(before, blanks).state.shapes
            return claimed if self._has_arrays(claimed, expected, where) else None
        return None

    def check_rounded(self, record: RoundRecord, state: AdapterState | None, where: str) -> None:
        """What is sent out is the rounding of the state, and loses what the record says; without the state unknown."""
        if state is None:
            return
        expected = Rounded.of(state, self.genesis.wire)
        self.findings.expect(What.ROUNDED, where, record.rounded, expected.rounded)
        # Norms are sums, which machines round apart.
        if not math.isclose(record.rounding, expected.rounding, rel_tol=1e-9):
            self.findings.fail(What.ROUNDED, where, record.rounding, expected.rounding)

    def measure_again(self, record: RoundRecord, state: AdapterState | None, where: str) -> None:
        """Compare the recorded loss of a round with its state's, as it is measured here."""
        if record.validation_loss is None:
            return
        if self.measures is None or state is None:
            self.findings.checked["validation losses, not measured again"] += 1
        elif abs((loss := self.measures.loss(state)) - record.validation_loss) <= MEASURED_WITHIN:
            self.findings.checked["validation losses"] += 1
        else:
            self.findings.fail(What.LOSS, where, record.validation_loss, f"{loss:.6f} ± {MEASURED_WITHIN}")

    def _compared(
        self,
        record: RoundRecord,
        before: AdapterState,
        updates: list[WeightedUpdate],
        computed: Aggregate,
        claimed: AdapterState | None,
        where: str,
    ) -> AdapterState | None:
        """The claimed state if it can be continued from; counts the round when the computed one equals it."""
        tolerance = 0.0
        if claimed and not self._has_arrays(claimed, computed.state.shapes, where):
            return None
        if isinstance(self.rule, Svd):
            if claimed is None:
                return None
            tolerance = svd_tolerance(self.genesis.rank)
            error = self.rule.error(before, updates, claimed)
            good = error <= computed.residual + tolerance
            if not good:
                limit = f"at most {computed.residual:.9g} + {tolerance:.3g}"
                self.findings.fail(What.AGGREGATE, where, f"factors at distance {error:.9g} from the product", limit)
        else:
            good = self.findings.expect(What.AGGREGATE, where, record.aggregate, computed.state.digest)
            claimed = claimed or (computed.state if good else None)
        if abs(record.residual - computed.residual) > tolerance:
            self.findings.fail(What.RESIDUAL, where, record.residual, f"{computed.residual} ± {tolerance:.3g}")
            good = False
        self.findings.recomputed += good
        return claimed

    def _has_arrays(self, state: AdapterState, shapes: Mapping[str, tuple[int, ...]], where: str) -> bool:
        """Whether a state has these float32 arrays and no others, all finite."""
        findings = self.findings
        if odd := sorted(set(state) ^ set(shapes)):
            kind = "without" if odd[0] in shapes else "with"
            findings.fail(
                What.TENSORS, where, f"{len(state.arrays)} tensors, {kind} {odd[0]}", f"{len(shapes)} tensors"
            )
            return False
        for name, array in state.arrays.items():
            own = f"{where}, {name}"
            if not findings.expect(What.SHAPE, own, array.shape, tuple(shapes[name])):
                return False
            if not findings.expect(What.DTYPE, own, array.dtype, np.dtype(np.float32)):
                return False
            if not np.isfinite(array).all():
                findings.fail(What.FINITE, own, "NaN or Inf", "finite numbers")
                return False
        return True

    def _is_pruned(self, name: Digest) -> bool:
        # Its keys go first: what a crash leaves of it can be read by nobody.
        return name in self.pruned and f"artifacts/{self.artifacts.place(name)}{KEYS}" not in self.files

    def _file(self, where: str, name: Digest) -> str:
        return f"{where}, artifacts/{self.artifacts.place(name)}{SEALED}"

    def _shapes(self, name: Digest) -> Mapping[str, tuple[int, ...]] | None:
        """The arrays that an update says it has, of which nothing is decompressed; None where it cannot be read."""
        with suppress(FoedusError):  # its own round reports it
            return self.artifacts.open_packed(name).shapes
        return None


def read_pruned(files: Files, findings: Findings) -> frozenset[Digest]:
    """The aggregates that a run says were removed."""
    if PRUNED in files:
        with findings.guard(What.PRUNED, PRUNED, "the canonical form of a list of aggregates"):
            return frozenset(files.read(PRUNED, Pruned.from_dict).aggregates)
    return frozenset()


def svd_tolerance(rank: int) -> float:
    """The relative distance from the product that rounding factors of this rank to float32 may add: 2⁻²² √r."""
    return float(2.0**-22 * np.sqrt(rank))


def _layout(rank: int, shared: AdapterState | None, update: Mapping[str, tuple[int, ...]] | None) -> Layout | None:
    """The modules that have both factors; raises ConfigError when the rank does not fit them."""
    if update is None:
        return None
    shapes = {**update, **(shared.shapes if shared else {})}
    modules = {}
    for name in update:
        module = name.removesuffix(".lora_B")
        a, b = shapes.get(f"{module}.lora_A", ()), shapes.get(f"{module}.lora_B", ())
        if len(a) == len(b) == 2:
            modules[module] = a[1], b[0]
    return Layout.of(modules, rank)
