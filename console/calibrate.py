"""`foedus calibrate`: the weights of verdicts, fitted on records that organisations have published."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from console.options import (
    BaseOption,
    JsonOption,
    ReaderKeyOption,
    RunArgument,
    StateOption,
    command_app,
    readable_run,
    state_of,
)
from console.settings import absolute
from console.views.progress import working
from console.views.tables import answer
from core.canonical import Address
from core.errors import DataError, UsageError
from core.genesis import Genesis
from core.storage.lock import locked
from llm.data import read_published
from llm.records import Record

app = command_app()


@app.command(epilog="Example: foedus calibrate --data published --key coordinator.key")
def calibrate(
    data: Annotated[str, typer.Option(help="Folder of NAME.jsonl: records that organisations have published.")],
    run: RunArgument = "",
    base: BaseOption = "",
    key: ReaderKeyOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit the weights of verdicts on records that organisations have published, and sign them."""
    from provenance.calibrating import calibrate as fitted  # noqa: PLC0415 - torch, which --help must not wait for
    from provenance.confidence import weights_of  # noqa: PLC0415 - likewise
    from provenance.served import subject  # noqa: PLC0415 - likewise

    folder = state_of(state)
    found = readable_run(folder, run, key)
    genesis, signing = found.genesis, found.key
    if signing is None or signing.address != (expected := genesis.signing(genesis.coordinator)):
        got = signing.address if signing else "none"
        raise UsageError(f"--key: expected the key file of the coordinator, {expected}, got {got}")
    published = members_records(genesis, Path(absolute("data", data)))
    with locked(folder.lock(found.name)), working("calibrating verdicts"):
        calibration = fitted(subject(found, base), genesis, published)
        if calibration is None:
            raise DataError(f"{data}: expected records of an organisation among several that are scored, got none")
        found.calibrate(calibration.sign(signing, genesis.chain))
    weights = weights_of(calibration)._asdict()
    result = {
        "run": found.name,
        "aggregate": calibration.aggregate,
        "method": calibration.method,
        "weights": weights,
        "records": len(calibration.records),
        "digest": calibration.digest,
    }
    shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
    lines = [f"Calibrated verdicts by {calibration.method} on {result['records']} records", f"Weights  {shown}"]
    answer(result, lines, as_json=as_json)


def members_records(genesis: Genesis, folder: Path) -> Mapping[Address, Sequence[Record]]:
    """The records of a folder by their organisations' addresses; raises DataError for one that is no member's."""
    addresses = {member.name: member.address for member in genesis.everyone}
    read = read_published(folder)
    if strange := [name for name in read if name not in addresses]:
        raise DataError(f"{folder}: expected files of {', '.join(sorted(addresses))}, got one of {strange[0]}")
    return {addresses[name]: records for name, records in read.items()}
