"""The calibration of a run's verdicts when its training, or an erasure, is done: fitted, signed and stored.

In a simulation organisations publish the first of their held-out records; in a deployment their data stay with them,
and `foedus calibrate` takes what they hand over.
"""

from collections.abc import Mapping, Sequence
from logging import WARNING

from flwr.common.logger import log

from core.canonical import Address
from core.config import RunConfig
from core.errors import FoedusError
from core.escape import one_line
from core.genesis import Genesis
from llm.data import read_data
from llm.model import Model
from llm.records import Record
from provenance.calibrating import calibrate
from provenance.confidence import weights_of
from provenance.served import subject
from server_app.rounds import Rounds


def calibrate_simulation(config: RunConfig, rounds: Rounds, model: Model) -> None:
    """Calibrate what a simulation serves, unless that is done, or `calibration` is 0; a failure is logged alone."""
    run, genesis, events = rounds.run, rounds.genesis, rounds.events
    simulated = not config.coordinator_key and all(member.derived for member in genesis.organisations)
    done = run.calibration
    if not (config.calibration and simulated) or (done and done.value.aggregate == rounds.served.digest):
        return
    try:
        published = held_out(config, genesis, {member for lane in rounds.lanes for member in lane.members})
        events.write("step", doing=f"calibrating verdicts on {sum(map(len, published.values()))} records")
        found = calibrate(subject(run, model), genesis, published)
        if found is None:
            events.write("uncalibrated", detail="no record has its organisation among several that are scored")
            return
        run.calibrate(found.sign(rounds.key, genesis.chain))
    except FoedusError as error:
        # The model is trained and on record whether its answers can be attributed or not.
        log(WARNING, "Verdicts are not calibrated: %s", error)
        events.write("uncalibrated", detail=one_line(str(error)))
    else:
        weights = weights_of(found)._asdict()
        events.write(
            "calibrated", aggregate=found.aggregate, method=found.method, records=len(found.records), **weights
        )


def held_out(config: RunConfig, genesis: Genesis, members: set[Address]) -> Mapping[Address, Sequence[Record]]:
    """The first held-out records of each organisation that still learns."""
    addresses = {member.name: member.address for member in genesis.everyone if member.address in members}
    return {
        addresses[organisation.name]: organisation.dev[: config.calibration]
        for organisation in read_data(config).organisations
        if organisation.name in addresses
    }
