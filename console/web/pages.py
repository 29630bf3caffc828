"""The console's pages: rendered here, with everything escaped, from what the commands' views read."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Any

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

import assets
from chain.audit.run import verify_on_chain
from chain.queue import read_anchors
from console.check import check_of_members
from console.settings import saved
from console.views import agents, report
from console.views.progress import words
from console.views.tables import short
from console.views.watch import parts, standing
from console.web import erasing, facts, pictures
from console.web.security import Token, read_form
from core.errors import FoedusError, UsageError
from core.escape import redacted, visible
from core.storage.events import EventLog
from core.storage.run_folder import RunFolder
from core.storage.state_folder import State
from provenance.attribution import DEFAULT, METHODS
from provenance.colours import colours
from provenance.evidence import Evidence
from provenance.trace import TokenTrace
from unlearning.certificate import read_certificate

Json = dict[str, Any]

_FILES = {"console.css": "text/css", "console.js": "text/javascript"}
_POLL_SECONDS = 1.0
_STATES = {"running": "running", "stalled": "stalled", "dead": "stalled", "failed": "failed", "completed": "done"}
"""What a run's condition is called, and coloured by."""


class Pages:
    """The pages of a state folder's runs."""

    def __init__(
        self,
        state: State,
        runs: Callable[[], Mapping[str, float]],
        token: Token,
        traces: Mapping[str, tuple[RunFolder, TokenTrace]],
    ) -> None:
        """`runs` are those that are shown, `traces` the last ones of the endpoint by their digest."""
        self.state, self.runs, self.token, self.traces = state, runs, token, traces
        self.erasures = erasing.Erasures(state)
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(assets.page("console")), autoescape=True, undefined=jinja2.StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters |= {"short": short, "visible": visible, "ago": _ago, "day": _day}

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
            Route(f"{run}/certificate", self.check_certificate, methods=["POST"]),
            Route("/playground", self.playground),
            Route("/evidence/{digest}", self.evidence),
            *(Route(f"/{name}", self.file) for name in _FILES),
        ]

    # --- pages -----------------------------------------------------------------------------------------------------

    def overview(self, request: Request) -> Response:
        """All runs, the newest first."""
        return self._page(request, "runs.html", runs=[self._line(name) for name in reversed([*self.runs()])])

    def run(self, request: Request) -> Response:
        """One run: its rounds, losses, organisations, agents and transactions."""
        run = self._run(request)
        told, (events, condition) = report.report(self.state, run), standing(self.state, run)
        settings = saved(self.state, run.name)
        simulated = all(member.derived for member in run.genesis.organisations)
        anchors = sorted(read_anchors(run.queue).items(), key=lambda item: -item[1].block)
        return self._page(
            request, "run.html", run=run, report=told, condition=_STATES[condition],
            moves=condition in ("running", "stalled"),
            chart=pictures.curves(told), organisations=parts(events, run.genesis.names), now=time.time(),
            market=agents.market(self.state, run),
            learnt=agents.learnt(self.state, run, settings.budget if simulated else None),
            anchors=[(key, asdict(anchor)) for key, anchor in anchors[:12]], chain=redacted(settings.chain),
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
        return await run_in_threadpool(self._verified, request, run, form.get("fact", ""))

    def lineage(self, request: Request) -> Response:
        """Rounds, generations and erasures as a picture."""
        run = self._run(request)
        return self._page(request, "lineage.html", run=run, lanes=pictures.lineage(run), erasures=self._erasures(run))

    def playground(self, request: Request) -> Response:
        """A chat with one run, or two side by side."""
        names = [*reversed([*self.runs()])]
        chosen = [request.query_params.get(field, "") for field in ("run", "beside")]
        known = [name for name in chosen if name in names]
        if not known and names:
            known = names[:1]
        shown = [self._speaker(name) for name in names]
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
        if digest not in self.traces:
            raise UsageError("expected the digest of a trace of this server's last answers, got another: ask again")
        run, trace = self.traces[digest]
        return _download(Evidence.of(run, trace).to_bytes(), f"evidence-{digest[2:14]}.json")

    def erase(self, request: Request, problem: str = "", checked: Json | None = None) -> Response:
        """The dialogue of an erasure: what it comes to, its confirmation, its progress, and its certificate."""
        run, query = self._run(request), request.query_params
        organisation, method = query.get("organisation", ""), query.get("method", "")
        members = report.members_of(run)
        plan, refusal = None, problem
        if organisation and not self.erasures.running(run.name):
            try:
                address = run.genesis.named(organisation).address
                plan = erasing.preview(self.state, run, address, method)
            except FoedusError as error:
                refusal = refusal or str(error)
        member = next((o for o in run.genesis.organisations if o.name == organisation), None)
        return self._page(
            request, "erase.html", 400 if problem else 200, run=run, members=members, methods=erasing.METHODS,
            organisation=organisation, method=method, plan=plan, problem=refusal, token=self.token.known,
            own_key=member is not None and not member.derived, running=self.erasures.running(run.name),
            outcome=self.erasures.outcome(run.name), erasures=self._erasures(run), checked=checked or {},
        )  # fmt: skip

    async def start_erasure(self, request: Request) -> Response:
        """Start an erasure; needs the token and the organisation's name, typed."""
        run, form = self._run(request), await read_form(request)
        organisation, method = form.get("organisation", ""), form.get("method", "")
        problem = ""
        if not self.token.allows(form.get("token")):
            problem = "token: expected that of --token-file, got another"
        elif form.get("typed", "") != organisation:
            problem = f"confirmation: expected the name {organisation!r}, got {form.get('typed', '')!r:.80}"
        elif method not in erasing.METHODS or organisation not in report.members_of(run):
            problem = (
                f"expected a member and one of {', '.join(erasing.METHODS)}, got {organisation!r:.80}, {method!r:.80}"
            )
        if problem:
            return await run_in_threadpool(self.erase, request, problem)
        await run_in_threadpool(self.erasures.start, run, organisation, method)
        return RedirectResponse(f"/runs/{run.name}/erase", 303)

    async def check_certificate(self, request: Request) -> Response:
        """Check a certificate of the run now."""
        run, form = self._run(request), await read_form(request)
        return await run_in_threadpool(self._checked, request, run, form.get("certificate", ""))

    async def events(self, request: Request) -> Response:
        """What happens in a run, in words, as server-sent events."""
        return StreamingResponse(self._tell(self._run(request)), media_type="text/event-stream")

    def file(self, request: Request) -> Response:
        """The style or the script."""
        name = request.url.path.removeprefix("/")
        return Response(assets.page(f"console/{name}").read_bytes(), media_type=_FILES[name])

    def failed(self, request: Request, error: Exception) -> Response:
        """A page for an error."""
        status = 404 if isinstance(error, UsageError) else 500
        return self._page(request, "error.html", status, message=redacted(str(error)))

    async def missing(self, request: Request, _error: Any) -> Response:
        """A page for a place that is none."""
        return self._page(
            request, "error.html", 404, message=f"expected a page, got {request.url.path[:80]}: no such page"
        )

    # --- what they show --------------------------------------------------------------------------------------------

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        run = values.get("run")
        place = {"path": request.url.path, "name": run.name if run else ""}
        return HTMLResponse(self._templates.get_template(template).render(place=place, **values), status)

    def _run(self, request: Request) -> RunFolder:
        """The run of a request's path; raises UsageError for one that is not served."""
        name = request.path_params["run"]
        if name not in (known := self.runs()):
            raise UsageError(f"expected one of the runs {', '.join(known) or 'none'}, got {name!r:.80}")
        return self.state.existing(name)

    def _line(self, name: str) -> Json:
        """A run's line in the list; one that cannot be read says why."""
        try:
            run = self.state.existing(name)
            told, (events, condition) = report.report(self.state, run), standing(self.state, run)
            return {
                "name": name, "condition": _STATES[condition], "problem": "", "base": run.genesis.base.name,
                "round": max((entry["round"] for entry in told["rounds"]), default=0),
                "rounds": run.genesis.training.rounds, "members": report.members_of(run), "erased": len(run.erasures()),
                "before": _mean(told["base_loss"]), "after": _mean(told["final_loss"]), "began": run.started_at,
                "last": time.time() - events[-1]["time"] if events else None,
            }  # fmt: skip
        except (FoedusError, OSError) as error:
            return {"name": name, "condition": "failed", "problem": redacted(str(error))}

    def _speaker(self, name: str) -> Json:
        """A run of the playground, with its organisations' colours."""
        try:
            names = self.state.existing(name).genesis.names
        except FoedusError as error:
            return {"name": name, "problem": redacted(str(error)), "organisations": []}
        shades = colours(names, names)
        listed = [
            {"name": names[address], "colour": shades[address]} for address in sorted(names, key=names.__getitem__)
        ]
        return {"name": name, "problem": "", "organisations": listed}

    def _verified(self, request: Request, run: RunFolder, asked: str) -> Response:
        settings = saved(self.state, run.name)
        audit = verify_on_chain(run, settings.chain, self.state.folder, private=settings.private)
        listed = [fact for fact in facts.facts(run, settings.chain) if fact.kinds]
        return self.trust(request, {fact.id: facts.found_by(fact, audit) for fact in listed}, asked)

    def _erasures(self, run: RunFolder) -> list[Json]:
        """The erasures of a run with their certificates, the newest first."""
        names, found = run.genesis.names, []
        for signed in run.erasures():
            attestation = signed.value
            path = run.certificate(attestation)
            certificate = read_certificate(path.read_bytes()).value if path else None
            asker = attestation.request.value.organisation
            found.append({
                "organisation": names.get(asker, asker), "method": attestation.request.value.method,
                "lane": attestation.lane, "generation": attestation.generation, "file": path.name if path else None,
                "records": attestation.request.value.count, "date": attestation.date,
                "label": certificate.label if certificate else "unfinished",
            })  # fmt: skip
        return found[::-1]

    def _checked(self, request: Request, run: RunFolder, name: str) -> Response:
        """The page with the outcome of a certificate's check."""
        known = {entry["file"] for entry in self._erasures(run) if entry["file"]}
        if name not in known:
            raise UsageError(f"certificate: expected one of {', '.join(sorted(known)) or 'none'}, got {name!r:.80}")
        signed = read_certificate((run.folder / "certificates" / name).read_bytes())
        failures = check_of_members(signed, self.state)
        return self.erase(request, "", {name: [str(failure) for failure in failures]})

    async def _tell(self, run: RunFolder) -> AsyncIterator[bytes]:
        """The events of a run from now on; the last one says how it ended."""
        path, names = self.state.events(run.name), run.genesis.names
        _, offset = await run_in_threadpool(EventLog.read, path)
        where, ended = "", ""
        while not ended:
            events, offset = await run_in_threadpool(EventLog.read, path, offset)
            for event in events:
                if event["event"] == "round-started":
                    where = f"round {event['round']} of {event['rounds']}"
                name = event.get("organisation", "")
                if line := words(event, names.get(name, name), where, all_of_it=True):
                    yield _sent("line", visible(line))
                if event["event"] in ("evaluated", "round-closed", "finished", "failed", "erased"):
                    yield _sent("changed", event["event"])
            _, condition = await run_in_threadpool(standing, self.state, run)
            if condition not in ("running", "stalled") and not self.erasures.running(run.name):
                ended = _STATES[condition]
            yield b": still here\n\n"  # so that a client that has gone is noticed
            await asyncio.sleep(0 if ended else _POLL_SECONDS)
        yield _sent("ended", ended)


def _sent(event: str, data: str) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def _download(data: bytes, name: str) -> Response:
    return Response(
        data, media_type="application/json", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


def _mean(losses: Mapping[str, float]) -> float | None:
    return sum(losses.values()) / len(losses) if losses else None


def _ago(seconds: float | None) -> str:
    """How long ago, in words."""
    if seconds is None:
        return "never"
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))
