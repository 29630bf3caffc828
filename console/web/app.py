"""The server's routes, behind its guard."""

import socket
from dataclasses import dataclass
from functools import partial
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from console.web.completions import Completions, missing_endpoint, refused
from console.web.engine import Engine
from console.web.pages import Pages
from console.web.proxy import Proxy
from console.web.security import Guard, Token
from core.errors import FoedusError
from core.signed import SigningKey
from core.storage.state_folder import State

MOST_CONNECTIONS = 256
_LAST_SECONDS = 3
"""For answers that are under way when the server is told to end."""


@dataclass(frozen=True)
class Site:
    """What is served: a state folder's runs, or those that are named, with the key that signs receipts."""

    state: State
    engine: Engine
    key: SigningKey
    token: Token
    names: tuple[str, ...] = ()
    proxy: Proxy | None = None
    """The reverse proxy before it, past which nobody is let."""

    def runs(self) -> dict[str, float]:
        """Run ids, oldest first, and when each began."""
        found = {run.name: run.started_at for run in self.state.runs()}
        return {name: began for name, began in found.items() if not self.names or name in self.names}


def application(site: Site, port: int) -> ASGIApp:
    """The ASGI application, for requests to a port of this machine, or of the proxy."""
    completions = Completions(site.engine, site.runs, site.key)
    proxy = site.proxy
    may_erase = proxy.settings.may_erase if proxy else ()
    pages = Pages(site.state, site.runs, site.token, completions.traces, site.engine, may_erase)
    app = Starlette(
        routes=[
            Route("/v1/models", completions.models),
            Route("/v1/models/{model}", completions.model),
            Route("/v1/chat/completions", completions.create, methods=["POST"]),
            *pages.routes(),
        ],
        exception_handlers={
            FoedusError: partial(_failed, pages),
            OSError: partial(_failed, pages),
            404: partial(_missing, pages),
            405: partial(_missing, pages),
        },
    )
    if proxy:
        return Guard(app, [proxy.origin], proxy.user)
    return Guard(app, [f"http://{host}:{port}" for host in ("127.0.0.1", "localhost")])


def answer_on(listening: socket.socket, site: Site) -> None:
    """Answer what comes to a socket until the process is told to end."""
    app = application(site, listening.getsockname()[1])
    settings = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="off", log_level="warning",
        access_log=False, server_header=False, limit_concurrency=MOST_CONNECTIONS, proxy_headers=False,
        timeout_graceful_shutdown=_LAST_SECONDS,
    )  # fmt: skip
    site.engine.start()
    try:
        uvicorn.Server(settings).run(sockets=[listening])
    finally:
        site.engine.close()


async def _failed(pages: Pages, request: Request, error: Any) -> Response:
    """An error as who asked can read it: JSON for programs, a page for people."""
    return refused(error) if request.url.path.startswith("/v1/") else pages.failed(request, error)


async def _missing(pages: Pages, request: Request, error: HTTPException) -> Response:
    """A place that is none, or that does not take such a request, likewise."""
    missing = missing_endpoint if request.url.path.startswith("/v1/") else pages.missing
    response = missing(request, error.status_code)
    response.headers.update(error.headers or {})
    return response
