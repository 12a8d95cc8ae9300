// How the context was chosen: every candidate with its scores, its price, and why it was kept or dropped; then the stages.

import { button, h, svg } from "/page/dom.js";
import { count, number, plural, seconds } from "/page/numbers.js";
import { openCandidate } from "/page/source.js";

const LONGEST = 160;
const SHOWN = 8;

export function trace(answer, collection) {
  const select = answer.trace.find((step) => step.stage === "select");
  return [select?.considered?.length ? considered(select, collection) : null, stages(answer.trace)];
}

function considered(select, collection) {
  const rows = select.considered;
  const kept = rows.filter((row) => row.kept).length;
  const most = Math.max(...rows.map((row) => row.tokens), 1);
  const chances = rows.some((row) => row.chance !== null);
  // All that was kept, and the best of what was dropped; the rest is a press away.
  const first = rows.filter((row, at) => row.kept || at < SHOWN);
  const rest = rows.filter((row) => !first.includes(row));
  const drawn = (row) => candidate(row, { most, chances, collection });
  const body = h("tbody", {}, first.map(drawn));
  const heads = ["", "Passage", "Relevance", ...(chances ? ["Chance"] : []), "Tokens", "Verdict"];
  return h("details", { class: "card trace", open: true },
    h("summary", {}, "How the context was chosen ", h("span", {}, `${plural(rows.length, "passage")} considered, ${count(kept)} kept, ${count(rows.length - kept)} dropped`)),
    h("table", { class: "stacking" },
      h("caption", {}, `${select.selector}, at most ${plural(select.limit_tokens, "token")}. A passage opens in its document.`),
      h("colgroup", {}, h("col", { class: "rank" }), h("col"), heads.slice(2, -1).map(() => h("col", { class: "measure" })), h("col", { class: "verdict" })),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head || h("span", { class: "unseen" }, "Rank"))))),
      body), rest.length ? h("p", { class: "all" }, button(`Show the other ${plural(rest.length, "passage")}`, (event) => {
      body.append(...rest.map(drawn));
      body.children[rows.length - rest.length].querySelector("button").focus();
      event.target.parentElement.remove();
    })) : null);
}

function candidate(row, { most, chances, collection }) {
  const { source, part } = named(row);
  return h("tr", { class: row.kept ? "kept" : "dropped" },
    h("td", { "data-label": "Rank" }, count(row.rank)),
    h("th", { scope: "row", class: "whole" },
      h("button", { type: "button", class: "link", on: { click: () => openCandidate(collection, row) } }, source), part,
      h("span", { class: "why" }, row.why)),
    measured("Relevance", row.relevance.toFixed(2), row.relevance),
    chances ? (row.chance === null ? h("td", { "data-label": "Chance" }, "–") : measured("Chance", chance(row.chance), row.chance)) : null,
    measured("Tokens", count(row.tokens), row.tokens / most),
    h("td", { "data-label": "" }, row.kept ? h("span", { class: "verdict-kept" }, "kept") : "dropped"));
}

function named(row) {
  const ordinal = row.chunk_id.split(":").at(-2) ?? "";
  return { source: row.source.split("/").at(-1) || row.source, part: /^\d+$/.test(ordinal) ? h("span", { class: "soft" }, ` passage ${Number(ordinal) + 1}`) : null };
}

function chance(value) {
  const shown = value * 100;
  return shown < 0.1 ? "under 0.1 %" : `${shown < 10 ? shown.toFixed(1) : Math.round(shown)} %`;
}

function measured(name, told, share) {
  const width = Math.max(0, Math.min(1, share)) * 100;
  return h("td", { "data-label": name }, told,
    svg("svg", { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 100, height: 6 }), svg("rect", { class: "full", width, height: 6 })));
}

function stages(steps) {
  return h("details", { class: "card steps" },
    h("summary", {}, "Every stage ", h("span", {}, plural(steps.length, "step"))),
    h("ol", {}, steps.map(({ stage, seconds: took, considered: _, ...facts }) => h("li", {},
      h("strong", {}, stage), h("span", { class: "figure" }, seconds(took)), h("span", {}, Object.entries(facts).map(fact).filter(Boolean).join(" · "))))));
}

/** Plain facts in words; what is nested is told by its size, for the whole trace is in the JSON of the answer. */
function fact([name, value]) {
  const label = name.replaceAll("_", " ");
  if (value === null || value === "" || value === undefined) return null;
  if (typeof value === "number") return `${label} ${number(value)}`;
  if (typeof value === "string" || typeof value === "boolean") return `${label} ${String(value).slice(0, LONGEST)}`;
  if (Array.isArray(value) && value.length && value.every((one) => typeof one !== "object")) return `${label} ${value.join(", ").slice(0, LONGEST)}`;
  return Array.isArray(value) ? (value.length ? `${label} ${value.length}` : null) : null;
}
