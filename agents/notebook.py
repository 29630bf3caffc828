"""An agent's saved states, so that a round can be repeated and an erased one be taken back."""

from pathlib import Path

from agents.agent import Agent, Terms
from core.storage.checkpoints import Checkpoints


class Notebook(Checkpoints):
    """The agent as it was once the message of each round was worked off; the start is (0, 0)."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ".json")

    def note(self, generation: int, number: int, agent: Agent) -> None:
        """Save the agent; raises RunError."""
        self.save(generation, number, agent.to_bytes())

    def agent_before(self, generation: int, number: int, terms: Terms) -> Agent | None:
        """The agent as it was before the message of a round; None when it has not begun. Raises FormatError."""
        path = self.before(generation, number)
        return Agent.from_bytes(path.read_bytes(), terms) if path else None

    def newest(self, terms: Terms) -> Agent | None:
        """The agent as it is now. Raises FormatError."""
        return self.agent_before(2**32, 2**32, terms)
