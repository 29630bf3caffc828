"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tokens = [...document.querySelectorAll(".token")];
const detail = document.getElementById("detail");
const percent = (share) => `${Math.round(100 * share)} %`;
const shown = (score) => (score === null ? "–" : score.toFixed(2).replace("-0.00", "0.00"));

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function row(name, colour, share, score) {
  const heading = element("th", "", { scope: "row" });
  const swatch = element("span", "", { class: "swatch" });
  swatch.style.setProperty("--c", colour);
  heading.append(swatch, name);
  const track = element("td", "", { class: "track" });
  const bar = element("span", "", { class: "bar" });
  bar.style.setProperty("--c", colour);
  bar.style.width = `${100 * share}%`;
  track.append(bar);
  const made = element("tr", "");
  made.append(heading, track, element("td", percent(share)), element("td", shown(score)));
  return made;
}

function show(index) {
  const token = data.tokens[index];
  const title = element("p", "");
  const text = `p = ${Math.exp(token.logprob).toPrecision(2)}, residual ${shown(token.residual)}`;
  title.append(element("strong", JSON.stringify(token.text)), "  ", element("span", text, { class: "quiet" }));
  const table = element("table", "", { class: "bars" });
  const body = element("tbody", "");
  for (const [which, share, score] of token.ranked) {
    body.append(row(data.organisations[which].name, data.organisations[which].colour, share, score));
  }
  body.append(row("base model", data.base, token.baseShare, token.base));
  table.append(body);
  detail.replaceChildren(title, table);
  for (const other of tokens) other.removeAttribute("aria-current");
  tokens[index].setAttribute("aria-current", "true");
}

function colourBy(view) {
  tokens.forEach((token, index) => {
    const { best, shares } = data.tokens[index];
    const which = view < 0 ? best : data.listed[view];
    token.style.setProperty("--c", data.organisations[which].colour);
    token.style.setProperty("--s", shares[which]);
  });
}

function go(index) {
  const next = tokens[Math.max(0, Math.min(index, tokens.length - 1))];
  for (const token of tokens) token.tabIndex = token === next ? 0 : -1;
  next.focus();
}

const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
tokens.forEach((token, index) => {
  for (const event of ["mouseenter", "focus", "click"]) token.addEventListener(event, () => show(index));
  token.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    go(index + steps[event.key]);
  });
});
for (const radio of document.querySelectorAll("input[name=view]")) {
  radio.addEventListener("change", () => colourBy(Number(radio.value)));
}
