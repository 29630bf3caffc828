"""The stream of a run's events."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from console.web import live
from core.storage.events import EventLog
from core.storage.lock import take
from core.storage.state_folder import State
from tests.commands import World

pytestmark = pytest.mark.chain


class Elsewhere:
    """A run's name and genesis, and no more of it."""

    def __init__(self, run: Any) -> None:
        self.name, self.genesis = run.name, run.genesis


def test_what_happens_is_told_in_words_until_the_run_has_ended(
    finished: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, state = State.at(finished.state).existing(), State.at(tmp_path / "state")
    monkeypatch.setattr(live, "_POLL_SECONDS", 0.01)
    log, lock = EventLog(state.events(run.name)), state.lock(run.name)
    lock.parent.mkdir(parents=True)
    address = run.genesis.organisations[0].address
    log.write("step", doing="this was before")
    after = EventLog.read(log.path)[1]

    async def told() -> list[str]:
        found, writing = [], take(lock)
        async for part in live.told(state, Elsewhere(run), lambda _: False, after):  # type: ignore[arg-type] # of a run
            found.append(part.decode())
            if len(found) == 1:
                log.write("round-started", round=1, rounds=2, asked=[address])
                log.write("admitted", organisation=address, loss=1.5)
                log.write("evaluated", round=1, losses={address: {"base": 4.0, "global": 2.0}})
                log.write("finished")
                writing.close()
        return [part.partition("\n")[2] for part in found if not part.startswith(":")]

    name = run.genesis.names[address]
    assert asyncio.run(told()) == [
        'event: line\ndata: "round 1 of 2: 1 organisations asked"\n\n',
        f'event: line\ndata: "round 1 of 2: {name} trained, loss 1.500"\n\n',
        'event: line\ndata: "round 1 of 2: evaluated, loss 2.000 (base 4.000)"\n\n',
        'event: changed\ndata: "evaluated"\n\n',
        'event: changed\ndata: "finished"\n\n',
        'event: ended\ndata: "done"\n\n',
    ]


def test_an_erasure_at_work_keeps_the_stream_open(finished: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_POLL_SECONDS", 0.01)
    state, left = State.at(finished.state), iter([True, True, False])

    async def told() -> list[bytes]:
        return [part async for part in live.told(state, state.existing(), lambda _: next(left), 10**9)]

    assert asyncio.run(told()) == [b": still here\n\n"] * 3 + [b'id: 1000000000\nevent: ended\ndata: "done"\n\n']
