"""Feedback: what a sparse form has left out of an organisation's updates so far, which its next one makes up for.

    feedback/GENESIS/ADDRESS/L0000/G00000-R00001.safetensors    what was left out up to a round of a lane

e_t = (δ_t + e_{t−1}) − Q(δ_t + e_{t−1}), and what travels is Q(δ_t + e_{t−1}) (Seide et al., Interspeech 2014; Stich et
al., NeurIPS 2018, arXiv 1809.07599). It never leaves the organisation. A round that is asked for again begins from the
same e_{t−1}, so it gives the same update. An erasure deletes what later rounds left out.
"""

from pathlib import Path

from core.adapter import AdapterState
from core.errors import FormatError, ModelError
from core.round_key import RoundKey
from core.storage.checkpoints import Checkpoints
from core.wire import Packed

FED_BACK = frozenset({"sparse"})
"""The forms that leave so much out that later updates make up for it."""


class Feedback(Checkpoints):
    """What was left out of an organisation's updates to one lane."""

    def __init__(self, folder: Path, wire: str) -> None:
        super().__init__(folder, ".safetensors")
        self._wire = wire

    def pack(self, update: AdapterState, key: RoundKey) -> Packed:
        """An update as it travels, with what was left out before; keeps what is left out now.

        Raises ModelError for an update that has no such form, FormatError for a damaged file, RunError when nothing can
        be kept.
        """
        if self._wire not in FED_BACK:
            return _packed(update, self._wire)
        if path := self.before(key.generation, key.round):
            left = AdapterState.from_bytes(path.read_bytes())
            update = AdapterState({name: array + left[name] for name, array in update.arrays.items()})
        packed = _packed(update, self._wire)
        # On disk before it is sent: what is lost here would never be taught.
        rest = AdapterState({name: array - packed.state[name] for name, array in update.arrays.items()})
        self.save(key.generation, key.round, *rest.parts())
        return packed


def _packed(update: AdapterState, wire: str) -> Packed:
    try:
        return Packed.of(update, wire)
    except FormatError as error:  # no fault of what was sent to the organisation
        raise ModelError(f"training diverged: {error}") from error
