"""JSON-RPC 2.0 (https://www.jsonrpc.org/specification) over an embedded chain: requests, batches, errors."""

import threading
import traceback
from collections.abc import Callable
from typing import Any, Final

from eth_utils.exceptions import ValidationError

from chain.devnet.eth import UnknownBlockError, hexadecimal, methods_of
from chain.devnet.evm import EmbeddedChain, InvalidTransactionError, RevertedError

Json = Any
PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
REFUSED: Final = -32000
REVERTED: Final = 3
MAX_BATCH: Final = 100


class RpcError(Exception):
    """An error object of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.body: dict[str, Json] = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data


class JsonRpc:
    """The methods of one chain, one request at a time."""

    def __init__(self, chain: EmbeddedChain) -> None:
        self._chain = chain
        self._lock = threading.Lock()
        self._methods: dict[str, Callable[..., Json]] = {
            **methods_of(chain),
            "net_version": lambda: str(chain.chain_id),
            "web3_clientVersion": lambda: "foedus/embedded",
        }

    def answer(self, request: Json) -> Json:
        """The answer to one request object, or the list of answers to a batch of them."""
        if isinstance(request, list):
            if not 0 < len(request) <= MAX_BATCH:
                fault = f"expected a batch of 1 to {MAX_BATCH} requests, got {len(request)}"
                return failure(None, RpcError(INVALID_REQUEST, fault))
            return [self._answer_one(item) for item in request]
        return self._answer_one(request)

    def close(self) -> None:
        """Close the chain behind the request in progress.

        A later request gets no answer, rather than a wrong one: when the process ends, its sender asks the next.
        """
        self._lock.acquire()  # for good
        self._chain.close()

    def _answer_one(self, request: Json) -> Json:
        if not isinstance(request, dict):
            return failure(None, RpcError(INVALID_REQUEST, f"expected a JSON object, got {type(request).__name__}"))
        identity = request.get("id")
        try:
            result = self._dispatch(request.get("method"), request.get("params", []))
        except RpcError as error:
            return failure(identity, error)
        except RevertedError as error:
            return failure(identity, RpcError(REVERTED, str(error), hexadecimal(error.data)))
        except (InvalidTransactionError, UnknownBlockError) as error:
            return failure(identity, RpcError(REFUSED, str(error)))
        except OSError:
            # The disk refused a block that memory already has: the server ends, and reads it anew.
            raise
        except Exception:  # noqa: BLE001 - the boundary: our own fault is logged, and answered as such
            traceback.print_exc()
            return failure(identity, RpcError(INTERNAL_ERROR, "internal error, see the log"))
        return {"jsonrpc": "2.0", "id": identity, "result": result}

    def _dispatch(self, name: Json, params: Json) -> Json:
        method = self._methods.get(name) if isinstance(name, str) else None
        if method is None:
            raise RpcError(METHOD_NOT_FOUND, f"the method {name} does not exist")
        if not isinstance(params, list):
            raise RpcError(INVALID_PARAMS, f"{name}: expected a list of params, got {type(params).__name__}")
        try:
            with self._lock:
                return method(*params)
        except (TypeError, ValueError, LookupError, AttributeError, ValidationError) as error:
            # Methods take params as they come: whatever does not fit shows as one of these.
            raise RpcError(INVALID_PARAMS, f"{name}: {error}") from error


def failure(identity: Json, error: RpcError) -> dict[str, Json]:
    """An answer that carries an error."""
    return {"jsonrpc": "2.0", "id": identity, "error": error.body}
