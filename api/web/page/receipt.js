// The receipt as a small chart: where tokens and seconds went, and what was saved against rank-order fill.

import { h, svg } from "/page/dom.js";
import { count, number, percent, plural, seconds, usd } from "/page/numbers.js";

const WIDTH = 1000;
// Stages of less than this share of the time are told together.
const SMALL = 0.015;
// A stage has one colour in every receipt, so that two side by side can be compared.
const COLOURS = { retrieve: "s0", read: "s1", generate: "s2", rewrite: "s3", select: "s4", trigger: "s6", filter: "s7" };
const OTHER = "s5";

export function receipt(row, { naiveK, of }) {
  return h("section", { class: "receipt", "aria-label": `Receipt: ${of}` },
    h("h3", {}, "Receipt"), headline(row, naiveK), tokens(row, naiveK), time(row), facts(row));
}

function headline(row, naiveK) {
  const against = `against filling in the top ${naiveK} passages`;
  if (row.naive_tokens <= 0) return h("p", { class: "headline" }, "No prompt was needed.");
  if (row.saved_tokens > 0) {
    return h("p", { class: "headline" }, h("b", {}, `${percent(row.saved_tokens / row.naive_tokens)} fewer prompt tokens`), ` ${against}`);
  }
  if (row.saved_tokens === 0) return h("p", { class: "headline" }, `As many prompt tokens as the top ${naiveK} passages`);
  return h("p", { class: "headline more-spent" }, h("b", {}, `${count(-row.saved_tokens)} more prompt tokens`), ` ${against.replace("against", "than")}`);
}

function tokens(row, naiveK) {
  const saved = Math.max(0, row.saved_tokens);
  const parts = [
    { name: "context", value: row.context_tokens, kind: "context" },
    { name: "instructions and question", value: Math.max(0, row.prompt_tokens - row.context_tokens), kind: "around" },
    { name: "answer", value: row.completion_tokens, kind: "answer" },
    { name: `saved of ${count(row.naive_tokens)}`, value: saved, kind: "saved" },
  ];
  return [
    h("p", { class: "chart-title" }, h("span", {}, "Tokens"), h("span", {}, `${count(row.context_tokens)} of ${count(row.budget_tokens)} in the budget`)),
    stack(parts, (part) => `${part.name} ${count(part.value)}`, `Tokens against the top ${naiveK} passages`),
  ];
}

function time(row) {
  const { total, ...stages } = row.seconds;
  const all = total || Object.values(stages).reduce((sum, value) => sum + value, 0);
  const large = Object.entries(stages).filter(([, value]) => value >= SMALL * all);
  const named = large.reduce((sum, [, value]) => sum + value, 0);
  const parts = large.map(([name, value]) => ({ name, value, kind: COLOURS[name] ?? OTHER }));
  if (all - named > 0.0005) parts.push({ name: "other", value: all - named, kind: OTHER });
  return [
    h("p", { class: "chart-title" }, h("span", {}, "Time"), h("span", {}, seconds(all))),
    stack(parts, (part) => `${part.name} ${seconds(part.value)}`, "Seconds by stage"),
  ];
}

/** A stacked bar with its legend, which says the same in words. */
function stack(parts, told, label) {
  const shown = parts.filter((part) => part.value > 0);
  const total = shown.reduce((sum, part) => sum + part.value, 0);
  let x = 0;
  const rects = shown.map((part) => {
    const width = (part.value / total) * WIDTH;
    const rect = svg("rect", { x, y: 0, width: Math.max(0, width - (part === shown.at(-1) ? 0 : 3)), height: 20, class: part.kind }, svg("title", {}, told(part)));
    x += width;
    return rect;
  });
  return [
    svg("svg", { class: "stack", viewBox: `0 0 ${WIDTH} 20`, preserveAspectRatio: "none", role: "img", "aria-label": `${label}: ${shown.map(told).join(", ")}` }, rects),
    h("ul", { class: "legend", "aria-hidden": "true" }, shown.map((part) => h("li", {}, swatch(part.kind), part.name, h("b", {}, told(part).slice(part.name.length + 1))))),
  ];
}

function swatch(kind) {
  return svg("svg", { class: "key stack", viewBox: "0 0 10 10" }, svg("rect", { width: 10, height: 10, class: kind }));
}

function facts(row) {
  const estimated = `≈ ${number(row.energy_wh)} Wh, ${number(row.water_ml)} mL water, ${number(row.co2_g)} g CO₂`;
  const cached = row.cached_tokens > 0 ? `, ${plural(row.cached_tokens, "token")} from the cache` : "";
  return h("dl", { class: "facts" },
    h("dt", {}, "Cost"), h("dd", {}, usd(row.cost_usd)),
    h("dt", {}, "Reader"), h("dd", {}, `${row.model}, ${plural(row.llm_calls, "call")}${cached}`),
    h("dt", {}, "Encoder"), h("dd", {}, plural(row.encoder_passes, "pass", "passes")),
    h("dt", {}, "Footprint"), h("dd", { title: "Estimates from the time that models ran; see the settings pue, water and carbon." }, estimated));
}
