"""The server's routes, behind its guard."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from console.web.completions import Completions, refused
from console.web.engine import Engine
from console.web.pages import Pages
from console.web.security import Guard, Token
from core.errors import FoedusError
from core.signed import SigningKey
from core.storage.state_folder import State


@dataclass(frozen=True)
class Site:
    """What is served: a state folder's runs, or those that are named, with the key that signs receipts."""

    state: State
    engine: Engine
    key: SigningKey
    token: Token
    names: tuple[str, ...] = ()

    def runs(self) -> dict[str, float]:
        """Run ids, oldest first, and when each began."""
        found = {run.name: run.started_at for run in self.state.runs()}
        return {name: began for name, began in found.items() if not self.names or name in self.names}


def application(site: Site, hosts: Iterable[str]) -> ASGIApp:
    """The ASGI application, for requests to `hosts` (HOST:PORT)."""
    completions = Completions(site.engine, site.runs, site.key)
    pages = Pages(site.state, site.runs, site.token, completions.traces)
    app = Starlette(
        routes=[
            Route("/v1/models", completions.models),
            Route("/v1/models/{model}", completions.model),
            Route("/v1/chat/completions", completions.create, methods=["POST"]),
            *pages.routes(),
        ],
        exception_handlers={FoedusError: partial(_failed, pages), OSError: partial(_failed, pages), 404: pages.missing},
    )
    return Guard(app, hosts)


async def _failed(pages: Pages, request: Request, error: Any) -> Response:
    """An error as who asked can read it: JSON for programs, a page for people."""
    return refused(error) if request.url.path.startswith("/v1/") else pages.failed(request, error)
