"""Checkpoints: what an organisation keeps of each round, so that one can be repeated and an erased one taken back.

One file for each generation and round, in a folder of the organisation's own. It holds what was known once the round
was worked off; a generation goes on from the round of an earlier one that it forks from.
"""

from pathlib import Path

from core.storage.blobs import Folder, write


class Checkpoints:
    """The files of one folder, all with this suffix."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self._suffix = folder, suffix

    def save(self, generation: int, number: int, *parts: bytes | memoryview) -> None:
        """Write whole or not at all; raises RunError."""
        write(self.folder / f"G{generation:05}-R{number:05}{self._suffix}", *parts)

    def before(self, generation: int, number: int) -> Path | None:
        """The newest file of the rounds before one; None when there is none."""
        saved = self.saved()
        earlier = [(g, n) for g, n in saved if g <= generation and n < number]
        return saved[max(earlier)] if earlier else None

    def delete_after(self, number: int, generation: int) -> int:
        """Delete the files of generations before `generation` that are later than round `number`; returns how many.

        So nothing is known any longer of rounds that an erasure took back. Raises RunError.
        """
        gone = [path for (g, n), path in self.saved().items() if g < generation and n > number]
        for path in gone:
            Folder(self.folder).remove(path.name)
        return len(gone)

    def saved(self) -> dict[tuple[int, int], Path]:
        """The files, by generation and round."""
        paths = {path: path.stem.split("-") for path in self.folder.glob(f"G*-R*{self._suffix}")}
        return {(int(generation[1:]), int(number[1:])): path for path, (generation, number) in paths.items()}
