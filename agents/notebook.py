"""An agent's saved states, so that a round can be repeated and an erased one be taken back."""

from pathlib import Path

from agents.agent import Agent, Terms
from core.storage.blobs import Folder, write


class Notebook:
    """One file for each generation and round, in the organisation's own folder.

    A file holds the agent as it was once the message of that round was worked off; the start is (0, 0).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, generation: int, number: int, agent: Agent) -> None:
        """Write whole or not at all; raises RunError."""
        write(self.folder / f"G{generation:05}-R{number:05}.json", agent.to_bytes())

    def before(self, generation: int, number: int, terms: Terms) -> Agent | None:
        """The agent as it was before the message of a round; None when it has not begun. Raises FormatError.

        A generation goes on from the round of an earlier one that it forks from.
        """
        saved = self.saved()
        earlier = [(g, n) for g, n in saved if g <= generation and n < number]
        return Agent.from_bytes(saved[max(earlier)].read_bytes(), terms) if earlier else None

    def newest(self, terms: Terms) -> Agent | None:
        """The agent as it is now. Raises FormatError."""
        return self.before(2**32, 2**32, terms)

    def delete_after(self, number: int, generation: int) -> int:
        """Delete the states of generations before `generation` that are later than round `number`; returns how many.

        So an agent no longer knows the payments of rounds that an erasure took back. Raises RunError.
        """
        gone = [path for (g, n), path in self.saved().items() if g < generation and n > number]
        for path in gone:
            Folder(self.folder).remove(path.name)
        return len(gone)

    def saved(self) -> dict[tuple[int, int], Path]:
        """The files of the saved states, by generation and round."""
        paths = {path: path.stem.split("-") for path in self.folder.glob("G*-R*.json")}
        return {(int(generation[1:]), int(number[1:])): path for path, (generation, number) in paths.items()}
