"""Federated averaging as Flower has it: the same base, records and steps, and nothing that Foedus adds.

One organisation is one SuperNode, as in any Flower simulation. B of every module travels as one array, is trained for
the same steps by the same function, and is averaged by FedAvg; nothing is signed, checked, stored or recorded.
`benchmarks.scale` stages it as a Flower app: the run-config names the data, the base and the settings.
"""

import json
import shutil
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from core import lora
from core.adapter import AdapterState
from core.config import RunConfig
from llm.data import read_data
from llm.model import Model
from llm.records import Collection
from llm.served import shared_adapter
from llm.sources import base_of_settings
from llm.train import TrainConfig, train

server = ServerApp()
client = ClientApp()

APP = """\
[project]
name = "plain"
version = "0"
dependencies = []

[tool.flwr.app]
publisher = "foedus"
fab-include = ["*.py"]

[tool.flwr.app.components]
serverapp = "plain:server"
clientapp = "plain:client"

[tool.flwr.app.config]
"""


def stage(folder: Path, config: RunConfig, times: Path) -> Path:
    """Write the app, with these settings and the file for the seconds of each round, and return its folder."""
    folder.mkdir(parents=True)
    # This very file: Flower looks for the two apps among the assignments of a module of its own.
    shutil.copy(__file__, folder / "plain.py")
    settings = config.to_flat() | {"times": str(times)}
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())
    (folder / "pyproject.toml").write_text(APP + lines, encoding="utf-8")
    return folder


class TimedFedAvg(FedAvg):
    """FedAvg that notes the seconds of each round of training, and those that the organisations trained."""

    def __init__(self, times: Path, **options: Any) -> None:
        super().__init__(**options)
        self.times, self.begun = times, 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """See `FedAvg.configure_train`."""
        self.begun = time.time()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """See `FedAvg.aggregate_train`."""
        came = list(replies)
        # Looked at first: FedAvg takes the metrics away that it averages.
        training = sum(cast(float, reply.content.metric_records["metrics"]["seconds"]) for reply in came)
        found = super().aggregate_train(server_round, came)
        noted = {"seconds": time.time() - self.begun, "training": training, "trained": len(came)}
        with self.times.open("a", encoding="utf-8") as file:
            file.write(json.dumps(noted) + "\n")
        return found


def _settings(context: Context) -> RunConfig:
    return RunConfig.from_flat({name: value for name, value in context.run_config.items() if name != "times"})


@lru_cache(maxsize=1)
def _loaded(config: RunConfig) -> tuple[Collection, Model, AdapterState]:
    """Data, base and the adapter before any training, once a process."""
    model = base_of_settings(config)
    return read_data(config), model, shared_adapter(model, config.rank, config.seed)


@client.train()
def answer(message: Message, context: Context) -> Message:
    """Train B for the settings' steps on the records of this node's organisation."""
    config = _settings(context)
    collection, model, fresh = _loaded(config)
    records = collection.organisations[int(context.node_config["partition-id"])].train
    sent = message.content.array_records["arrays"].to_torch_state_dict()
    start = AdapterState({**fresh.arrays, **{name: tensor.numpy() for name, tensor in sent.items()}})
    steps = TrainConfig(config.local_steps, config.batch_size, config.max_length, total_steps=config.local_steps)
    began = time.monotonic()
    trained = lora.factor(train(model, records, start, steps, config.seed).adapter, "B")
    metrics = MetricRecord({"num-examples": len(records), "seconds": time.monotonic() - began})
    arrays = ArrayRecord({name: torch.from_numpy(array.copy()) for name, array in trained.arrays.items()})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Average for the settings' rounds."""
    config = _settings(context)
    _, _, fresh = _loaded(config)
    state = lora.factor(fresh, "B")
    strategy = TimedFedAvg(
        Path(cast(str, context.run_config["times"])),
        fraction_train=config.fraction,
        fraction_evaluate=0.0,
        # Flower rounds the fraction down, `foedus run` up: with this both ask as many.
        min_train_nodes=config.quorum,
        min_available_nodes=config.organisations,
    )
    arrays = ArrayRecord({name: torch.from_numpy(array.copy()) for name, array in state.arrays.items()})
    strategy.start(grid, arrays, num_rounds=config.rounds)
