"""The roots of trust of a file that is checked: what the reader knows about its federation from elsewhere."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from console.options import contract_of
from core.canonical import Address, Digest, address, raw
from core.errors import FormatError, UsageError
from core.genesis import GenesisHeader
from core.storage.state_folder import State

GenesisOption = Annotated[str, typer.Option(metavar="DIGEST", help="The genesis digest, as you know it.")]
AddressOption = Annotated[str, typer.Option(metavar="CONTRACT", help="The contract's address, as you know it.")]

ROOTLESS = "nothing shows whose it is: give --genesis DIGEST or --address CONTRACT, which you know from elsewhere"


@dataclass(frozen=True)
class Roots:
    """A genesis digest, a contract, a server's address, and the runs of a state folder, where they are known."""

    genesis: str
    address: str
    state: State
    signer: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no digest or address; raises UsageError."""
        if self.address:
            contract_of(self.address)
        try:
            address(self.signer or "0x" + "00" * 20)
        except FormatError as error:
            raise UsageError(f"--signer: {error}") from error
        try:
            raw(Digest(self.genesis or "0x" + "00" * 32))
        except FormatError as error:
            raise UsageError(f"--genesis: {error}") from error

    def unsigned(self, server: Address) -> list[str]:
        """Why it does not hold that the server that is meant has signed."""
        if not self.signer:
            return [f"nothing shows whose server it is: give --signer ADDRESS, got one of {server}"]
        expected = f"expected the signature of {self.signer}, got that of {server}"
        return [expected] if self.signer.lower() != server.lower() else []

    def failures(self, federation: GenesisHeader) -> list[str]:
        """Why it does not hold that a file which is consistent in itself is of the federation that is meant."""
        got = {"genesis": federation.digest, "contract": federation.chain.contract}
        expected = {"genesis": self.genesis, "contract": self.address}
        wrong = [
            f"expected {name} {root}, got {got[name]}"
            for name, root in expected.items()
            if root and root.lower() != got[name].lower()
        ]
        rooted = any(expected.values()) or federation.digest in self._own()
        return wrong if rooted else [ROOTLESS]

    def _own(self) -> set[Digest]:
        """The federations whose runs lie in the state folder."""
        return {run.genesis.digest for run in self.state.runs()}


def judged(failures: list[str], content: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a file that is consistent in itself."""
    return {"ok": not failures, "consistent": True, "failures": failures, **content}
