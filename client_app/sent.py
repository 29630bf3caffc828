"""What left the site: a log at home of every answer that a deployed node gave its coordinator.

    sent.jsonl      {at, to, run, what, bytes, digest}, one line an answer; of updates {round, lane, records}, too

An entry is on disk before the answer leaves, so there may be one of an answer that was lost on its way. Refusals, which
are a code and a line, stand in the node's log. In a simulation there is no other site, and no log.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import Message, RecordDict

from client_app.hosting import Node
from core.canonical import Address, Digest, digest
from core.storage import jsonl
from core.update import UpdateManifest


class Asking(Protocol):
    """Whoever asks: a genesis, a registration, or the question that one answers."""

    @property
    def coordinator(self) -> Address:
        """The coordinator's address."""

    @property
    def run(self) -> str:
        """The run's name."""


@dataclass(frozen=True)
class Answers:
    """The answers of a node to one coordinator, about one run."""

    node: Node
    asking: Asking

    def answer(self, message: Message, content: RecordDict, manifest: UpdateManifest | None = None) -> Message:
        """The answer to a message, with the `manifest` of an update in it, once the log has an entry of it."""
        if not self.node.known:
            entry: dict[str, Any] = {
                "at": jsonl.stamp(),
                "to": self.asking.coordinator,
                "run": self.asking.run,
                "what": message.metadata.message_type,
                "bytes": sum(record.count_bytes() for record in content.values()),
                "digest": digest_of(content),
            }
            if manifest:
                entry |= {"round": manifest.round, "lane": manifest.lane, "records": manifest.examples}
                entry["digest"] = manifest.update
            jsonl.append(self.node.oversight.state.sent, entry)
        return Message(content, reply_to=message)


def digest_of(content: RecordDict) -> Digest:
    """SHA-256 under ``foedus/sent/v1`` of Flower's own digests of what an answer holds."""
    return digest("sent", *(f"{name} {record.object_id}\n".encode() for name, record in sorted(content.items())))
