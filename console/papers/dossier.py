"""The dossier of a run: what a data-protection officer, a regulator or a board files, as plain data.

It says what the run's files show, where each figure stands, and what they do not show. `render` makes one HTML page of
it, which loads nothing.
"""

import calendar
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import jinja2

import assets
from chain.audit.report import AuditReport
from console.papers.origin import Origin
from console.papers.risks import Circumstances, residual
from console.web.facts import facts, found_by
from core.canonical import Address
from core.escape import redacted, visible
from core.storage.events import EventLog
from core.storage.run_folder import erasure_name
from core.update import UpdateManifest
from llm.bases import licence_of, published
from unlearning.certificate import read_certificate

FORM = "foedus/dossier/v1"
LAW = (
    ("GDPR Art. 17", "erasure", "erasures", "requests, dates, labels, receipts, what is outstanding",
     "whether a request was justified; copies outside the federation"),
    ("GDPR Art. 30", "records of processing", "parties", "parties, recipients, security measures, erasures",
     "contacts, legal basis, categories of data subjects, transfers to third countries, time limits"),
    ("GDPR Art. 35", "impact assessment", "risks", "residual risks, controls, privacy budget",
     "necessity and proportionality; the assessment itself; the views of data subjects"),
    ("AI Act Art. 11, Annex IV 1", "general description", "software", "versions, base model, parties, purpose as typed",
     "forms of distribution, hardware, instructions for use"),
    ("AI Act Annex IV 2", "development", "rounds", "each round, its rule, who taught it, losses on held-out records",
     "where the training data come from and how they were labelled and cleaned; human oversight"),
    ("AI Act Annex IV 3, 5", "monitoring, risk management", "risks", "risks that nothing here defends against",
     "risks of the intended use; the risk management system"),
    ("AI Act Annex IV 6", "changes", "erasures", "erasures and changes of members, each a generation",
     "changes after an export"),
    ("AI Act Art. 12", "record-keeping", "rounds", "a signed record of each round, committed to a chain",
     "logs of the system's use after an export"),
)  # fmt: skip
"""Provision, what it asks for, the section that has something on it, what is there, and what is not."""


@dataclass
class Sources:
    """What figures are shown by: commands, and files of the run with their SHA-256, each under a number."""

    origin: Origin
    known: dict[str, dict[str, str]] = field(default_factory=dict)

    def command(self, text: str) -> str:
        """The id of a command."""
        return self._id({"kind": "command", "text": text, "sha256": ""})

    def document(self, name: str) -> str:
        """The id of a page of the documentation."""
        return self._id({"kind": "document", "text": name, "sha256": ""})

    def file(self, name: str) -> str:
        """The id of a file of the run's folder."""
        data = (self.origin.run.folder / name).read_bytes()
        return self._id({"kind": "file", "text": name, "sha256": hashlib.sha256(data).hexdigest()})

    def _id(self, entry: dict[str, str]) -> str:
        for name, known in self.known.items():
            if known == entry:
                return name
        name = f"source-{len(self.known) + 1}"
        self.known[name] = entry
        return name


@dataclass(frozen=True)
class Section:
    """A table with its heading, what is to be said of it, and the source of each row."""

    id: str
    title: str
    note: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Sequence[Any], str]]


def dossier(
    origin: Origin,
    purpose: str,
    chain: str,
    audit: AuditReport | None,
    logs: Mapping[Address, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """The dossier of a run whose public chain is `chain`, with what an audit found now, where one was made.

    `logs` are the totals of the organisations' own logs of what left them (console/views/sent.py), where given.
    """
    origin = replace(origin, named=True)
    sources = Sources(origin)
    sections = (
        parties(origin, sources, purpose), left(origin, sources, logs), controls(origin, sources, chain),
        risks(origin, sources, chain), standing(origin, sources, chain, audit), rounds(origin, sources),
        privacy(origin, sources), erasures(origin, sources), recipients(origin, sources), software(origin, sources),
        retention(origin, sources), law(sources),
    )  # fmt: skip
    genesis = origin.run.genesis
    return {
        "form": FORM,
        "run": origin.run.name,
        "genesis": genesis.digest,
        "made": datetime.now(UTC).date().isoformat(),
        "foedus": version("foedus"),
        "audit": audit.to_dict() if audit else None,
        "sections": [asdict(s) | {"rows": [{"cells": [*c], "source": at} for c, at in s.rows]} for s in sections],
        "sources": sources.known,
    }


def render(content: dict[str, Any]) -> str:
    """The HTML of a dossier; everything foreign in it is escaped."""

    def plain(value: Any) -> Any:
        return visible(value) if isinstance(value, str) else value

    loader = jinja2.FileSystemLoader(assets.page(""))
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, finalize=plain)
    return environment.get_template("dossier.html").render(**content)


# --- sections ------------------------------------------------------------------------------------------------------


def parties(origin: Origin, sources: Sources, purpose: str) -> Section:
    """Purpose and parties."""
    genesis, at = origin.run.genesis, sources.file("genesis.json")
    rows: list[tuple[Sequence[Any], str]] = [(("coordinator", "", genesis.coordinator, ""), at)]
    here = {member for lane in range(len(genesis.lanes)) for member in origin.run.members(lane)}
    for member in genesis.everyone:
        role = "organisation" if member.address in here else "organisation, no longer a member"
        key = "derived from the seed: a simulation" if member.derived else "its own key"
        rows.append(((role, member.name, member.address, f"{member.examples} examples registered; {key}"), at))
    rows += [(("auditor", "", auditor, ""), at) for auditor in genesis.auditors]
    note = f"Purpose, as typed by who made this dossier: {purpose}" if purpose else "No purpose was given: --purpose."
    return Section("parties", "Purpose and parties", note, ("role", "name", "address", "what is known"), rows)


def left(origin: Origin, sources: Sources, logs: Mapping[Address, Any]) -> Section:
    """What left each site."""
    sent: dict[Address, list[UpdateManifest]] = {member.address: [] for member in origin.run.genesis.everyone}
    for signed in origin.run.records():
        for admitted in signed.value.admitted:
            sent[admitted.organisation].append(admitted.signed.value)
    at, artifacts = sources.command(f"foedus status {origin.run.name} --json"), origin.run.artifacts
    rows = []
    for address, manifests in sent.items():
        updates = {manifest.update for manifest in manifests}
        sizes = [artifacts.size(update) for update in updates]
        gone = sum(not size for size in sizes)
        own = (
            f"{logs[address]['answers']} answers, {logs[address]['bytes']:,} bytes" if address in logs else "not given"
        )
        told = (len(updates), sum(sizes), gone, own, _lane_mates(origin, address))
        rows.append(((origin.called(address), *told), at))
    note = (
        "Updates are differences of adapter weights; training records stay at their organisation. Bytes are those of "
        "the sealed updates that lie in the store. Rejected and late answers, and losses, left sites, too: an "
        "organisation's own log counts them, where it was given (--sent), and is its own word."
    )
    columns = (
        "organisation", "updates admitted", "bytes in the store", "destroyed or removed", "by its own log",
        "who can read them",
    )  # fmt: skip
    return Section("left", "What left each site", note, columns, rows)


def controls(origin: Origin, sources: Sources, chain: str) -> Section:
    """What is in place, by who controls it."""
    genesis = origin.run.genesis
    at, status = sources.file("genesis.json"), sources.command(f"foedus verify {origin.run.name}")
    p = genesis.privacy
    rows = [
        (("each organisation", "its key", "signs each update; nobody else can take part in its name"), status),
        (("each organisation", "differential privacy", f"ε {p.epsilon:g}, δ {p.delta:g}" if p else "off"), at),
        (("each organisation", "site policy, approval by a person", "kept at the site; this run does not show it"), at),
        (("coordinator", "robust rule", genesis.robust.rule), at),
        (("coordinator", "greatest norm of an update", f"{genesis.norm_bound:g}"), at),
        (("coordinator", "greatest weight of an organisation", f"{genesis.membership.most_weight:g}"), at),
        (("coordinator", "sealed store", "each state is encrypted for its readers"), at),
        (("who runs the chain", "commitments", f"{redacted(chain)}, chain {genesis.chain.chain_id}"), status),
        (("auditors", "may read everything", f"{len(genesis.auditors)} named"), at),
    ]
    return Section("controls", "Controls, by who controls them", "", ("who", "control", "in this run"), rows)


def risks(origin: Origin, sources: Sources, chain: str) -> Section:
    """What nothing defends against."""
    genesis = origin.run.genesis
    derived = any(member.derived for member in genesis.everyone)
    apply = Circumstances(genesis, derived, chain in ("embedded", "anvil"), bool(origin.run.erasures()))
    at = sources.document("docs/concepts/threat-model.md")
    rows = [((risk.plain, risk.attack), at) for risk in residual(apply)]
    note = 'The rows of the threat model that it calls "not defended" and that apply to this run.'
    return Section("risks", "Residual risks", note, ("risk", "row of the threat model"), rows)


def standing(origin: Origin, sources: Sources, chain: str, audit: AuditReport | None) -> Section:
    """On what each fact stands, and what an audit found."""
    at, rows = sources.command(f"foedus verify {origin.run.name}"), []
    for fact in facts(origin.run, chain):
        told = "not checked" if fact.kinds else "no audit shows it"
        if audit and fact.kinds:
            found = found_by(fact, audit)
            told = f"{'holds' if found.ok else 'DOES NOT HOLD'}: {found.got}"
        rows.append(((fact.what, fact.rung, fact.why, told), at))
    note = "Audited when this was made." if audit else "No audit was made: facts that it would check are not checked."
    columns = ("fact", "rung", "why", "audit")
    return Section("standing", "What the facts stand on", note, columns, rows)


def rounds(origin: Origin, sources: Sources) -> Section:
    """The log of rounds."""
    told: list[tuple[Sequence[Any], str]] = []
    paths = sorted((origin.run.folder / "records").glob("L*.json"))  # in the order of `records`
    for path, r in zip(paths, (signed.value for signed in origin.run.records()), strict=True):
        admitted = ", ".join(origin.called(a.organisation) for a in r.admitted)
        refused = ", ".join(f"{origin.called(one.organisation)} ({one.reason})" for one in r.rejected)
        place = f"{r.lane} / {r.generation} / {r.round} / {r.attempt}"
        told.append(((place, admitted, refused, r.aggregate), sources.file(f"records/{path.name}")))
    check = f"foedus verify {origin.run.name}"
    note = f"Each record is signed, names the one before it, and is committed to the chain. {check} checks all of it."
    columns = ("lane / generation / round / attempt", "admitted", "rejected", "aggregate")
    return Section("rounds", "Log of rounds", note, columns, told)


def privacy(origin: Origin, sources: Sources) -> Section:
    """The privacy budget, what is spent, and measured leakage."""
    told, at = origin.report["privacy"], sources.command(f"foedus status {origin.run.name} --json")
    spent = told["spent"] if told else {}
    rows = [((name, f"{epsilon:.4g}", f"{told['epsilon']:g}"), at) for name, epsilon in spent.items()]
    bound = f"ε over all rounds, at δ {told['delta']:g}." if told else "No noise was added: no ε bounds it."
    note = f"Leakage of this run (membership inference, canaries) was not measured. {bound}"
    return Section("privacy", "Privacy spent and measured", note, ("organisation", "ε spent", "ε allowed"), rows)


def erasures(origin: Origin, sources: Sources) -> Section:
    """Each request, its deadline, its status, receipts, and what is outstanding."""
    rows = []
    for signed in origin.run.erasures():
        attestation = signed.value
        request, path = attestation.request.value, origin.run.certificate(attestation)
        certificate = read_certificate(path.read_bytes()).value if path else None
        waiting = certificate.outstanding if certificate else attestation.holders
        name = f"certificates/{path.name}" if path else erasure_name(attestation.lane, attestation.generation)
        rows.append((
            (
                origin.called(request.organisation), f"{request.count} records" if request.count else "all",
                request.basis, request.date, month_after(request.date), attestation.date,
                certificate.label if certificate else "UNFINISHED",
                len(certificate.receipts) if certificate else 0,
                ", ".join(map(origin.called, waiting)) or "none",
            ),
            sources.file(name),
        ))  # fmt: skip
    note = (
        "The deadline is one month after the request (GDPR Art. 12(3)); whether it may be extended is not known here. "
        "A request that was handed over and not begun stands in no record."
    )
    columns = ("organisation", "what", "basis", "asked", "deadline", "begun", "label", "receipts", "outstanding")
    return Section("erasures", "Erasures", note, columns, rows)


def recipients(origin: Origin, sources: Sources) -> Section:
    """Who is sent what."""
    at = sources.file("readers.json")
    rows = [
        (("coordinator", "every update and state", origin.run.genesis.coordinator), at),
        (("members of a lane", "the lane's updates and states", "see parties"), at),
        *((("auditor", "everything in the store", auditor), at) for auditor in origin.run.genesis.auditors),
    ]
    note = "Exports, uploads and answers of a served model are not recorded by the run: list their recipients yourself."
    return Section("recipients", "Recipients", note, ("recipient", "of what", "who"), rows)


def software(origin: Origin, sources: Sources) -> Section:
    """Software and base, with licences where they are known."""
    genesis, at = origin.run.genesis, sources.file("genesis.json")
    base = (published(genesis.base.name), genesis.base.digest, licence_of(genesis.base.name) or "not known here")
    signature = ("signature of the base", origin.base_signature or "not looked at", "", "")
    rows: list[tuple[Sequence[Any], str]] = [(("base model", *base), at), (signature, at)]
    rows += [(("environment", name, number, "see make sbom"), at) for name, number in genesis.environment.items()]
    founders = origin.report["versions"].items()
    rows += [((f"client of {name}", "foedus", product, "Apache-2.0"), at) for name, product in founders]
    return Section("software", "Software and base", "", ("what", "name", "version or digest", "licence"), rows)


def retention(origin: Origin, sources: Sources) -> Section:
    """What is kept, and what was destroyed."""
    run, at = origin.run, sources.command(f"foedus verify {origin.run.name}")
    destroyed = {state for signed in run.erasures() for state in signed.value.destroyed}
    events = len(EventLog.read(origin.state.events(run.name))[0])
    rows = [
        (("records of rounds", f"{sum(1 for _ in run.records())}", "kept as long as the run"), at),
        (("events", f"{events}", "at most 16 MiB, the oldest go first"), at),
        (("states whose keys were destroyed", f"{len(destroyed)}", "by erasures; listed in their attestations"), at),
        (("salts destroyed", f"{len(run.salts_destroyed())}", "what they hid on the chain cannot be opened"), at),
        (("aggregates pruned", f"{len(run.pruned.aggregates)}", "computed again from the updates"), at),
    ]
    note = "No time limit is set here: a run is kept until its folder is removed. Commitments on a chain stay."
    return Section("retention", "Retention and destroyed keys", note, ("what", "how many", "what becomes of it"), rows)


def law(sources: Sources) -> Section:
    """Provisions, with what is here on them and what is not."""
    at = sources.document("docs/guides/dossier.md")
    rows = [((which, asks, f"#{section}", here, missing), at) for which, asks, section, here, missing in LAW]
    note = "It does not say that a provision applies, or that it is met: that is for who files this."
    columns = ("provision", "about", "section", "here", "not here")
    return Section("law", "GDPR and AI Act", note, columns, rows)


def month_after(day: str) -> str:
    """The same day of the next month, or its last one, as YYYY-MM-DD."""
    asked = date.fromisoformat(day)
    year, month = (asked.year + asked.month // 12, asked.month % 12 + 1)
    return date(year, month, min(asked.day, calendar.monthrange(year, month)[1])).isoformat()


def _lane_mates(origin: Origin, address: Address) -> str:
    """Who can read an organisation's updates."""
    genesis = origin.run.genesis
    mates = {mate for lane in genesis.lanes_of(address) for mate in genesis.ever_in(lane)} - {address}
    named = ["the coordinator", *sorted(map(origin.called, mates)), *(["auditors"] if genesis.auditors else [])]
    return ", ".join(named)
