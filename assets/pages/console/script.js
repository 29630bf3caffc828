"use strict";
// Everything that is shown is set as text: nothing that comes from a run or a model is ever read as HTML.

const BASE = "#8a94a0";
const percent = share => `${Math.round(100 * share)} %`;
const number = value => value === null || value === undefined ? "–" : (Math.abs(value) < 0.005 ? 0 : value).toFixed(2);

function made(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

// --- forms that take a while ---

for (const form of document.querySelectorAll("form[data-busy]")) {
  form.addEventListener("submit", event => {
    if (event.submitter) setTimeout(() => { event.submitter.disabled = true; event.submitter.textContent = form.dataset.busy; });
  });
}

for (const input of document.querySelectorAll("input[data-into]")) {
  input.addEventListener("change", async () => { input.form.elements[input.dataset.into].value = await input.files[0].text(); });
}

// --- a run while it goes on ---

const live = document.querySelector("[data-live]");
if (live && live.dataset.moves === "yes") {
  const log = document.getElementById("log"), source = new EventSource(live.dataset.live);
  source.addEventListener("line", event => {
    log.hidden = false;
    log.append(made("li", {}, JSON.parse(event.data)));
    while (log.children.length > 200) log.firstChild.remove();
    log.scrollTop = log.scrollHeight;
  });
  source.addEventListener("changed", async () => {
    const place = document.getElementById("changing");
    if (!place) return;
    const page = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html");
    const fresh = page.getElementById("changing");
    if (fresh && !place.contains(document.activeElement)) place.replaceWith(fresh);
  });
  source.addEventListener("ended", () => { source.close(); location.assign(live.dataset.then || location.pathname); });
  addEventListener("pagehide", () => source.close());
}

// --- the playground ---

class Answer {
  constructor(place, speaker) {
    this.speaker = speaker;
    this.colours = Object.fromEntries(speaker.organisations.map(o => [o.name, o.colour]));
    this.section = document.getElementById("answer").content.cloneNode(true).querySelector("section");
    this.part = name => this.section.querySelector(name);
    this.part(".who").textContent = speaker.name;
    for (const { name, colour } of [...speaker.organisations, { name: "base model: no colour", colour: BASE }].slice(0, 13)) {
      this.part(".legend").append(made("li", {}, this.swatch(colour), name));
    }
    if (speaker.organisations.length > 12) this.part(".legend").append(made("li", {}, `and ${speaker.organisations.length - 12} more`));
    this.part(".tokens").addEventListener("keydown", event => this.walk(event));
    place.append(this.section);
  }

  swatch(colour) {
    const found = made("span", { class: "swatch", "aria-hidden": "true" });
    found.style.setProperty("--c", colour);
    return found;
  }

  state(text) { this.part(".state").textContent = text; }

  token(text, scores) {
    const button = made("button", { type: "button", class: "token", tabindex: this.part(".token") ? "-1" : "0", "aria-pressed": "false" }, text);
    this.part(".tokens").append(button);
    if (scores) this.colour(button, scores);
  }

  colour(button, scores) {
    const [name, share] = this.strongest(scores.shares);
    button.style.setProperty("--c", this.colours[name] || BASE);
    button.style.setProperty("--s", share.toFixed(3));
    button.setAttribute("aria-label", `${JSON.stringify(button.textContent)}: ${name} ${percent(share)}, base model ${percent(scores.base_share)}`);
    button.onmouseenter = button.onfocus = button.onclick = () => this.detail(button, scores);
  }

  strongest(shares) {
    return Object.entries(shares).reduce((best, one) => one[1] > best[1] ? one : best, ["", -1]);
  }

  walk(event) {
    const steps = { ArrowRight: 1, ArrowLeft: -1 }[event.key], tokens = [...this.section.querySelectorAll(".token")];
    const at = tokens.indexOf(document.activeElement), next = tokens[at + steps];
    if (!steps || !next) return;
    event.preventDefault();
    tokens[at].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  detail(button, scores) {
    for (const other of this.section.querySelectorAll(".token[aria-pressed=true]")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", "true");
    const rows = Object.keys(scores.scores).map(name => [name, scores.shares[name], scores.scores[name]]);
    rows.sort((a, b) => Math.abs(b[2]) - Math.abs(a[2]));
    const line = made("p", { class: "quiet" }, `log p ${number(scores.logprob)} nats, residual ${number(scores.residual)}`);
    const title = made("p", {}, made("strong", { class: "mono" }, JSON.stringify(scores.text)));
    this.part(".detail").replaceChildren(title, line, this.bars([...rows.slice(0, 6), ["base model", scores.base_share, scores.base]]));
    this.part(".detail").hidden = false;
  }

  bars(rows) {
    const body = made("tbody");
    for (const [name, share, score] of rows) {
      const bar = made("span", { class: "barline" });
      bar.style.setProperty("--c", this.colours[name] || BASE);
      bar.style.width = `${100 * Math.max(share, 0)}%`;
      body.append(made("tr", {}, made("th", { scope: "row" }, name), made("td", {}, bar), made("td", { class: "n" }, percent(share)), made("td", { class: "n" }, number(score))));
    }
    const heads = ["Taught by", "", "Share", "Score"].map((text, i) => made(text ? "th" : "td", text ? { scope: "col", ...(i > 1 && { class: "n" }) } : {}, text));
    return made("table", { class: "bars" }, made("thead", {}, made("tr", {}, ...heads)), body);
  }

  finish({ trace, receipt }) {
    if (trace) {
      this.part(".tokens").replaceChildren();
      for (const token of trace.tokens) this.token(token.text, token);
      const { verdict, confidence, shares, base_share, scores, residual, base } = trace.response;
      const told = verdict === null ? "No verdict: the method abstains" : verdict;
      const rows = Object.keys(scores).map(name => [name, shares[name], scores[name]]).sort((a, b) => b[1] - a[1]).slice(0, 8);
      this.part(".verdict").replaceChildren(
        made("p", {}, made("strong", {}, told), made("span", { class: "quiet" }, ` · ${percent(confidence)} confident, by ${trace.method}${trace.response.calibrated ? "" : ", not calibrated for this method"}`)),
        this.bars([...rows, ["base model", base_share, base]]),
        made("p", { class: "quiet" }, `Residual ${number(residual)}: what the method leaves unexplained.`));
      this.part(".verdict").hidden = false;
      if (verdict !== null) this.part(".exports").append(made("a", { href: `/evidence/${trace.digest}`, download: "" }, "Evidence"));
    }
    const file = URL.createObjectURL(new Blob([JSON.stringify(receipt)], { type: "application/json" }));
    this.part(".exports").append(made("a", { href: file, download: "receipt.json" }, "Receipt"));
    this.part(".exports").hidden = false;
    this.state(trace ? "Point at a token, or walk them with the arrow keys." : "Nothing to attribute.");
  }

  async ask(question, signal) {
    try {
      const response = await fetch("/v1/chat/completions", {
        method: "POST", headers: { "Content-Type": "application/json" }, signal,
        body: JSON.stringify({ ...question, model: this.speaker.name, stream: true }),
      });
      if (!response.ok) throw new Error((await response.json()).error.message);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = ""; ;) {
        const { value, done } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        events.forEach(event => this.take(event.replace(/^data: /, "")));
      }
    } catch (error) {
      this.state(error.name === "AbortError" ? "Stopped." : error.message);
      if (error.name !== "AbortError") this.section.classList.add("problem");
    }
  }

  take(data) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    this.state("Answering…");
    const { delta, finish_reason } = chunk.choices[0];
    const scores = chunk.foedus && chunk.foedus.token;
    if (delta.content || scores) this.token(scores ? scores.text : delta.content, scores);
    if (finish_reason) this.finish(chunk.foedus);
  }
}

const form = document.getElementById("ask");
if (form) {
  const value = id => document.getElementById(id).value, place = document.getElementById("answers");
  const speakers = JSON.parse(place.dataset.speakers), button = name => document.getElementById(name);
  form.addEventListener("submit", async event => {
    event.preventDefault();
    const stopping = new AbortController();
    place.replaceChildren();
    const asked = [value("run"), value("beside")].filter((name, i, all) => name && all.indexOf(name) === i);
    const answers = asked.map(name => new Answer(place, speakers.find(s => s.name === name)));
    button("send").disabled = true;
    button("stop").hidden = false;
    button("stop").onclick = () => stopping.abort();
    const question = {
      messages: [{ role: "user", content: value("prompt") }], max_tokens: Number(value("most")),
      temperature: Number(value("temperature")), provenance: value("method") === "default" ? true : value("method"),
    };
    await Promise.all(answers.map(answer => answer.ask(question, stopping.signal)));
    button("send").disabled = false;
    button("stop").hidden = true;
  });
  document.getElementById("prompt").addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
