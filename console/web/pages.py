"""The console's pages: rendered here, with everything escaped, from what the commands' views read."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

import assets
from chain.audit.run import verify_on_chain
from chain.observer import observe
from chain.queue import read_anchors
from console.check import check_of_members
from console.options import readable_run
from console.settings import saved
from console.views import agents, report
from console.views.tables import short
from console.views.watch import current, parts
from console.web import erasing, facts, pictures, sites
from console.web.engine import Engine
from console.web.listing import STATES, ago, answers_of, day, erasable, erasures_of, line_of, speaker
from console.web.live import told
from console.web.security import Token, read_form
from core.canonical import Digest
from core.errors import FoedusError, UsageError
from core.escape import redacted, visible
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from provenance.attribution import DEFAULT, METHODS
from provenance.evidence import Evidence
from provenance.trace import TokenTrace
from unlearning.certificate import read_certificate
from unlearning.requests import derived_request

Json = dict[str, Any]

_LONGEST_OFFSET = 16
"""Digits."""

_FILES = {"style.css": "text/css", "script.js": "text/javascript"}


class Pages:
    """The pages of a state folder's runs."""

    def __init__(
        self,
        state: State,
        runs: Callable[[], Mapping[str, float]],
        token: Token,
        traces: Mapping[str, tuple[RunFolder, TokenTrace]],
        engine: Engine,
        may_erase: Collection[str] = (),
    ) -> None:
        """`runs` are those that are shown, `traces` the last ones of the endpoint by their digest.

        Base and reader's key are those of `engine`. `may_erase` are users of a proxy that need no token.
        """
        self.may_erase = may_erase
        self.state, self.runs, self.token, self.traces, self.key = state, runs, token, traces, engine.key
        self.erasures = erasing.ErasureProcesses(state, engine.base)
        # An audit takes seconds of a core: whoever asks for many waits for his own.
        self._auditing = asyncio.Lock()
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(assets.page("console")), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters |= {"short": short, "visible": visible, "ago": ago, "day": day}

    def routes(self) -> list[Route]:
        """All routes."""
        run = "/runs/{run}"
        return [
            Route("/", self.overview),
            Route(run, self.run),
            Route(f"{run}/events", self.events),
            Route(f"{run}/trust", self.trust),
            Route(f"{run}/trust", self.verify, methods=["POST"]),
            Route(f"{run}/lineage", self.lineage),
            Route(f"{run}/erase", self.erase),
            Route(f"{run}/erase", self.start_erasure, methods=["POST"]),
            Route(f"{run}/preview", self.preview, methods=["POST"]),
            Route(f"{run}/certificate", self.check_certificate, methods=["POST"]),
            Route("/sites/{run}", self.sites),
            Route("/sites/{run}", self.ask_ledger, methods=["POST"]),
            Route("/playground", self.playground),
            Route("/evidence/{digest}", self.evidence),
            *(Route(f"/{name}", self.file) for name in _FILES),
        ]

    # --- pages -----------------------------------------------------------------------------------------------------

    def overview(self, request: Request) -> Response:
        """All runs, the newest first."""
        names = [*self.runs()]
        only_sites = [name for name in sites.federations(self.state) if name not in names]
        shown = [line_of(self.state, name) for name in reversed(names)]
        return self._page(request, "runs.html", runs=shown, only_sites=only_sites)

    def run(self, request: Request) -> Response:
        """One run: its rounds, losses, organisations, agents and transactions."""
        run = self._run(request)
        told, (events, condition) = report.report(self.state, run), current(self.state, run)
        settings = saved(self.state, run.name)
        simulated = all(member.derived for member in run.genesis.organisations)
        anchors = sorted(read_anchors(run.queue).items(), key=lambda item: -item[1].block)
        return self._page(
            request, "run.html", run=run, report=told, condition=STATES[condition],
            moves=condition in ("running", "stalled"),
            chart=pictures.curves(told), answers=answers_of(events), now=time.time(),
            organisations=parts(events, run.genesis.names), market=agents.market(self.state, run),
            learnt=agents.learnt(self.state, run, settings.budget if simulated else None),
            anchors=[(key, asdict(anchor)) for key, anchor in anchors[:12]], chain=redacted(settings.chain),
            after=self._after(run),
        )  # fmt: skip

    def trust(self, request: Request, found: Json | None = None, asked: str = "") -> Response:
        """Every fact of a run and its rung; `found` is what an audit found now."""
        run = self._run(request)
        listed = facts.facts(run, saved(self.state, run.name).chain)
        rungs = [(rung, [fact for fact in listed if fact.rung == rung]) for rung in facts.RUNGS]
        return self._page(request, "trust.html", run=run, rungs=rungs, found=found or {}, asked=asked)

    async def verify(self, request: Request) -> Response:
        """Audit the run now, and show what was found about each fact."""
        run, form = self._run(request), await read_form(request)
        async with self._auditing:
            return await run_in_threadpool(self._verified, request, run, form.get("fact", ""))

    def lineage(self, request: Request) -> Response:
        """Rounds, generations and erasures as a picture."""
        run = self._run(request)
        return self._page(request, "lineage.html", run=run, lanes=pictures.lineage(run), erasures=erasures_of(run))

    def sites(self, request: Request, found: Mapping[str, tuple[bool, str]] = MappingProxyType({})) -> Response:
        """What organisations know whose memory lies here; `found` is what a ledger said of their coordinator."""
        name, known = request.path_params["run"], sites.federations(self.state)
        if name not in known:
            raise UsageError(f"expected a federation of which an organisation here keeps a memory, got {name!r:.80}")
        here = [sites.site(self.state, known[name], one) for one in sites.members(self.state, known[name])]
        return self._page(request, "sites.html", name=name, sites=here, found=found)

    async def ask_ledger(self, request: Request) -> Response:
        """Ask the ledger now whether the coordinator behaved towards one organisation."""
        form = await read_form(request)
        async with self._auditing:
            return await run_in_threadpool(self._asked, request, form.get("organisation", ""))

    def playground(self, request: Request) -> Response:
        """A chat with one run, or two side by side."""
        names = [*reversed([*self.runs()])]
        chosen = [request.query_params.get(field, "") for field in ("run", "beside")]
        known = [name for name in chosen if name in names]
        if not known and names:
            known = names[:1]
        shown = [speaker(self.state, name) for name in names]
        return self._page(
            request,
            "playground.html",
            run=None,
            names=names,
            chosen=known,
            speakers=shown,
            methods=METHODS,
            default=DEFAULT,
        )

    def evidence(self, request: Request) -> Response:
        """The evidence of a verdict as a file."""
        digest = request.path_params["digest"]
        if (found := self.traces.get(digest)) is None:  # once: another thread may forget it meanwhile
            raise UsageError("expected the digest of a trace of this server's last answers, got another: ask again")
        run, trace = found
        name = f'attachment; filename="evidence-{digest[2:14]}.json"'
        data = Evidence.of(run, trace).to_bytes()
        return Response(data, media_type="application/json", headers={"content-disposition": name})

    def erase(self, request: Request) -> Response:
        """The dialogue of an erasure, as far as the query asks."""
        return self._dialogue(request, request.query_params)

    async def preview(self, request: Request) -> Response:
        """The same with records, which are too much for a query."""
        return await run_in_threadpool(self._dialogue, request, await read_form(request))

    def _dialogue(
        self, request: Request, asked: Mapping[str, str], problem: str = "", checked: Json | None = None
    ) -> Response:
        """The dialogue of an erasure: what it comes to, its confirmation, its progress, and its certificate."""
        run = self._run(request)
        organisation, method, records = (asked.get(name, "") for name in ("organisation", "method", "records"))
        members = erasable(run)
        plan, refusal, digests = None, problem, tuple[Digest, ...]()
        if organisation and not self.erasures.running(run.name):
            try:
                address = run.genesis.named(organisation).address
                digests = erasing.digests_in(records)
                plan = erasing.preview(self.state, run, address, method, digests)
            except FoedusError as error:
                refusal = refusal or str(error)
        member = next((o for o in run.genesis.everyone if o.name == organisation), None)
        return self._page(
            request, "erase.html", 400 if problem else 200, path=f"/runs/{run.name}/erase", run=run,
            members=members, methods=erasing.METHODS,
            organisation=organisation, method=method, records=records, count=len(digests), plan=plan,
            problem=refusal, token=self.token.known,
            user=_user(request), may_erase=self._may_erase(request),
            own_key=member is not None and not member.derived, running=self.erasures.running(run.name),
            after=self._after(run),
            outcome=self.erasures.outcome(run.name), erasures=erasures_of(run), checked=checked or {},
        )  # fmt: skip

    async def start_erasure(self, request: Request) -> Response:
        """Start an erasure; needs the organisation's name, typed, and the token or a user who may."""
        run, form = self._run(request), await read_form(request)
        problem = self._refusal(request, run, form)
        if not problem:
            try:
                await run_in_threadpool(self._start, request, run, form)
            except FoedusError as error:
                problem = str(error)
        if problem:
            return await run_in_threadpool(self._dialogue, request, form, problem)
        return RedirectResponse(f"/runs/{run.name}/erase", 303)

    def _refusal(self, request: Request, run: RunFolder, form: Mapping[str, str]) -> str:
        """Why a form starts no erasure; "" where it does."""
        organisation, method = form.get("organisation", ""), form.get("method", "")
        if not (self._may_erase(request) or self.token.allows(form.get("token"))):
            return "token: expected that of --token-file, got another"
        if form.get("typed", "") != organisation:
            return f"confirmation: expected the name {organisation!r}, got {form.get('typed', '')!r:.80}"
        if method not in erasing.METHODS or organisation not in erasable(run):
            methods = ", ".join(erasing.METHODS)
            return f"expected a member and one of {methods}, got {organisation!r:.80}, {method!r:.80}"
        return ""

    def _start(self, request: Request, run: RunFolder, form: Mapping[str, str]) -> None:
        """Start the erasure of a form, as a request that the organisation's derived key signs."""
        settings = replace(saved(self.state, run.name), organisation=form["organisation"], method=form["method"])
        digests = erasing.digests_in(form.get("records", ""))
        opened = derived_request(settings, run.genesis, digests)
        # What cannot be done is refused here, and not by a process that nobody looks at.
        erasing.preview(self.state, run, opened.request.value.organisation, settings.method, digests)
        self.erasures.start(run, opened, _user(request))

    async def check_certificate(self, request: Request) -> Response:
        """Check a certificate of the run now."""
        run, form = self._run(request), await read_form(request)
        async with self._auditing:
            return await run_in_threadpool(self._checked, request, run, form.get("certificate", ""))

    async def events(self, request: Request) -> Response:
        """What happens in a run, in words, as server-sent events, from the offset `after` of its log on."""
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        offset = int(after) if after.isascii() and after.isdigit() and len(after) < _LONGEST_OFFSET else 0
        run = self._run(request)
        names = run.genesis.contributors  # here: once the stream has begun, its status is sent
        happening = told(self.state, run, names, self.erasures.running, offset)
        return StreamingResponse(happening, media_type="text/event-stream")

    def file(self, request: Request) -> Response:
        """The style or the script."""
        name = request.url.path.removeprefix("/")
        return Response(assets.page(f"console/{name}").read_bytes(), media_type=_FILES[name])

    def failed(self, request: Request, error: Exception) -> Response:
        """A page for an error."""
        status = 404 if isinstance(error, UsageError) else 500
        return self._page(request, "error.html", status, message=redacted(str(error)))

    def missing(self, request: Request, status: int) -> Response:
        """A page for a place that is none (404), or that does not take such a request (405)."""
        message = f"expected a page, got {request.method} {request.url.path[:80]}: no such page"
        return self._page(request, "error.html", status, message=message)

    # --- what they show --------------------------------------------------------------------------------------------

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        run = values.get("run")
        name = run.name if run else values.get("name", "")
        place = {"path": values.get("path", request.url.path), "name": name, "run": bool(name) and name in self.runs()}
        return HTMLResponse(self._templates.get_template(template).render(place=place, **values), status)

    def _may_erase(self, request: Request) -> bool:
        """Whether a proxy names a user who may erase, for a page of this server's own."""
        # Behind a proxy's login a foreign page could ride on the browser's cookie: it would come with its own Origin.
        own = request.method == "GET" or "origin" in request.headers
        return own and _user(request) in self.may_erase

    def _run(self, request: Request) -> RunFolder:
        """The run of a request's path; raises UsageError for one that is not served."""
        name = request.path_params["run"]
        if name not in (known := self.runs()):
            raise UsageError(f"expected one of the runs {', '.join(known) or 'none'}, got {name!r:.80}")
        return self.state.existing(name)

    def _after(self, run: RunFolder) -> int:
        """Where the event log ends now: what a page shows is followed by what comes behind it."""
        return EventLog.read(self.state.events(run.name))[1]

    def _verified(self, request: Request, run: RunFolder, asked: str) -> Response:
        settings = saved(self.state, run.name)
        readable = readable_run(self.state, run.name, self.key)
        audit = verify_on_chain(readable, settings.chain, self.state.folder, private=settings.private)
        listed = [fact for fact in facts.facts(run, settings.chain) if fact.kinds]
        return self.trust(request, {fact.id: facts.found_by(fact, audit) for fact in listed}, asked)

    def _asked(self, request: Request, organisation: str) -> Response:
        """The page of sites with what the ledger said."""
        name, known = request.path_params["run"], sites.federations(self.state)
        if name not in known or organisation not in sites.members(self.state, known[name]):
            raise UsageError(f"expected an organisation whose memory lies here, got {organisation!r:.80}")
        if not self.state.settings(name).exists():
            raise UsageError(
                "expected the organisation's chain, got a node's state, which has none: foedus witness --chain"
            )
        where = saved(self.state, name).chain
        ledger = observe(where, self.state.folder, known[name].chain.contract)
        return self.sites(request, {organisation: sites.coordinator(self.state, known[name], organisation, ledger)})

    def _checked(self, request: Request, run: RunFolder, name: str) -> Response:
        """The page with the outcome of a certificate's check."""
        known = {entry["file"] for entry in erasures_of(run) if entry["file"]}
        if name not in known:
            raise UsageError(f"certificate: expected one of {', '.join(sorted(known)) or 'none'}, got {name!r:.80}")
        signed = read_certificate((run.folder / "certificates" / name).read_bytes())
        failures = check_of_members(signed, self.state, None, self.key)
        return self._dialogue(request, {}, "", {name: [str(failure) for failure in failures]})


def _user(request: Request) -> str:
    """Whom a proxy names; "" without one."""
    return str(getattr(request.state, "user", ""))
