// What was spent, from the ledger.

import { call, path } from "/page/api.js";
import { button, byId, empty, h, problem, show, svg, waiting } from "/page/dom.js";
import { count, number, plural, usd } from "/page/numbers.js";

const DAYS = 30;
const [WIDEST, HEIGHT, FOOT] = [720, 190, 24];

export function startUsage() {
  const [since, until, group] = ["since", "until", "group"].map(byId);
  const day = (ago) => new Date(Date.now() - ago * 86400000).toISOString().slice(0, 10);
  since.value = day(DAYS - 1);
  until.value = day(0);
  const load = async () => {
    const place = byId("usage-body");
    show(place, waiting("Adding up"));
    const query = new URLSearchParams({ group_by: group.value });
    if (since.value) query.set("since", since.value);
    if (until.value) query.set("until", until.value);
    try {
      const found = await call("GET", `${path("usage")}?${query}`);
      show(place, found.total.requests ? [totals(found.total), found.group_by[0] === "day" ? plot(found.rows, Math.min(WIDEST, place.clientWidth)) : null, table(found)]
        : empty("Nothing was asked in this time", "Every question and search is counted here, with its tokens and its price."));
    } catch (error) {
      show(place, problem(error, button("Try again", load)));
    }
  };
  for (const field of [since, until, group]) field.addEventListener("change", load);
  return load;
}

function totals(total) {
  const facts = [["requests", count(total.requests)], ["prompt tokens", count(total.prompt_tokens)], ["answer tokens", count(total.completion_tokens)],
    ["prompt tokens saved", count(total.saved_tokens)], ["cost", usd(total.cost_usd)]];
  return h("dl", { class: "totals" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** Prompt tokens a day, and above them what rank-order fill would have taken more. */
function plot(rows, room) {
  const tops = rows.map((row) => row.prompt_tokens + Math.max(0, row.saved_tokens));
  const most = Math.max(...tops, 1);
  const width = Math.min(56, room / rows.length);
  const up = (value) => (value / most) * (HEIGHT - FOOT - 14);
  const bars = rows.map((row, at) => {
    const [x, base] = [at * width + width * 0.14, HEIGHT - FOOT];
    const [spent, saved] = [up(row.prompt_tokens), up(Math.max(0, row.saved_tokens))];
    const told = `${row.day}: ${count(row.prompt_tokens)} prompt tokens, ${count(row.saved_tokens)} saved`;
    return svg("g", {}, svg("title", {}, told),
      svg("rect", { class: "spent", x, y: base - spent, width: width * 0.72, height: spent }),
      saved > 0 ? svg("rect", { class: "saved", x: x + 0.5, y: base - spent - saved, width: width * 0.72 - 1, height: saved }) : null,
      at % Math.ceil((rows.length * 60) / room) === 0 ? svg("text", { x: x + width * 0.36, y: HEIGHT - 8, "text-anchor": "middle" }, row.day.slice(5)) : null);
  });
  return h("figure", {}, h("figcaption", {}, `Prompt tokens a day (filled), and what the top passages would have cost more (dashed). The largest day: ${count(Math.max(...tops))}.`),
    svg("svg", { class: "plot", viewBox: `0 0 ${room} ${HEIGHT}`, role: "img", "aria-label": `Tokens of ${plural(rows.length, "day")}; the table below has the figures.` },
      svg("path", { class: "grid", d: `M0 ${HEIGHT - FOOT + 0.5}H${room}` }), bars));
}

function table({ group_by: groups, rows }) {
  const columns = [["requests", "Requests"], ["prompt_tokens", "Prompt tokens"], ["completion_tokens", "Answer tokens"], ["saved_tokens", "Saved"], ["cost_usd", "Cost"], ["seconds", "Seconds"]];
  const told = (name, value) => (name === "cost_usd" ? usd(value) : name === "seconds" ? number(value) : count(value));
  return h("table", { class: "stacking" },
    h("thead", {}, h("tr", {}, groups.map((group) => h("th", { scope: "col" }, group[0].toUpperCase() + group.slice(1))), columns.map(([, label]) => h("th", { scope: "col", class: "right" }, label)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, groups.map((group) => h("th", { scope: "row", class: "whole" }, row[group] || "none")),
      columns.map(([name, label]) => h("td", { class: "right", "data-label": label }, told(name, row[name])))))));
}
