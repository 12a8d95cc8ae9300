// What quality each budget bought, where it was measured: the collection's own tuning, and the last evaluation.

import { byId, empty, h, problem, show, svg } from "/page/dom.js";
import { count, day, number } from "/page/numbers.js";
import { changes, state } from "/page/state.js";

const [WIDEST, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [760, 380, 36, 96, 12, 44];
const OURS = ["thrift", "greedy"];
const NAIVE = ["topk", "topk_whole"];

export function startFrontier() {
  const draw = () => {
    const place = byId("frontier-body");
    if (state.failure) return show(place, problem(state.failure));
    const tables = [state.frontier?.tuning, state.frontier?.evaluation].filter(Boolean);
    show(place, tables.length ? tables.map(section) : none());
  };
  changes.addEventListener("changed", draw);
  return draw;
}

function none() {
  const name = state.collection || "NAME";
  return empty("Nothing was measured yet", "This makes questions from the documents of this collection, answers them under several budgets, and shows here what each budget buys:",
    h("div", {}, h("pre", {}, `thriftrag tune -c ${name}`)), h("p", {}, "Or compare systems on labelled data sets:"), h("pre", {}, "thriftrag eval run DATASET_FOLDER --out runs/mine"));
}

function section(table) {
  const title = table.kind === "tuning" ? `On questions from ${table.groups[0]?.name ?? "this collection"}` : "Last evaluation";
  const body = h("div");
  const draw = (group) => show(body, plot(group, Math.min(WIDEST, byId("frontier-body").clientWidth || WIDEST)), rows(group));
  const pick = h("select", { "aria-label": "Data set", on: { change: () => draw(table.groups[pick.value]) } }, table.groups.map((group, at) => h("option", { value: at }, group.name)));
  if (table.groups.length) draw(table.groups[0]);
  return h("section", {}, h("h2", {}, title),
    h("p", { class: "soft small" }, [day(table.made), table.reader, table.command].filter(Boolean).join(" · ")),
    table.recommended?.sentence ? h("p", { class: "recommended" }, table.recommended.sentence) : null,
    table.groups.length > 1 ? h("p", {}, pick) : null, body);
}

function kind(system) {
  const name = system.split(",")[0];
  return OURS.includes(name) ? "ours" : NAIVE.includes(name) ? "naive" : "";
}

function plot(group, room) {
  const curves = group.curves.map((curve) => ({ ...curve, points: curve.points.filter((point) => point.tokens > 0).sort((a, b) => a.tokens - b.tokens) })).filter((curve) => curve.points.length);
  const points = curves.flatMap((curve) => curve.points);
  if (!points.length) return null;
  const [least, most] = [Math.min(...points.map((one) => one.tokens)), Math.max(...points.map((one) => one.tokens))];
  const top = Math.min(100, Math.ceil((Math.max(...points.map((one) => one.f1)) + 4) / 10) * 10);
  const x = (tokens) => LEFT + (most > least ? Math.log(tokens / least) / Math.log(most / least) : 0.5) * (room - LEFT - RIGHT);
  const y = (f1) => HEIGHT - BOTTOM - (f1 / top) * (HEIGHT - TOP - BOTTOM);
  const ticks = [8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096].filter((tick) => tick >= least && tick <= most && (room > 500 || Math.log2(tick) % 2 === 0));
  // What matters is drawn last, over the rest.
  const order = curves.toSorted((a, b) => Number(kind(a.system) !== "") - Number(kind(b.system) !== ""));
  return h("figure", {}, h("figcaption", {}, "F1 in percent against context tokens a question (logarithmic). Higher and further left is better."),
    svg("svg", { class: "plot", viewBox: `0 0 ${room} ${HEIGHT}`, role: "img", "aria-label": `F1 against context tokens of ${curves.length} systems; the table below has the figures.` },
      [0, 0.25, 0.5, 0.75, 1].map((share) => [svg("path", { class: "grid", d: `M${LEFT} ${y(share * top)}H${room - RIGHT}` }), svg("text", { x: LEFT - 8, y: y(share * top) + 4, "text-anchor": "end" }, number(share * top))]),
      ticks.map((tick) => svg("text", { x: x(tick), y: HEIGHT - BOTTOM + 20, "text-anchor": "middle" }, count(tick))),
      svg("text", { x: (LEFT + room - RIGHT) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "context tokens"),
      order.map((curve) => series(curve, x, y)), labels(curves, x, y)));
}

function series(curve, x, y) {
  const line = curve.points.map((point) => `${x(point.tokens).toFixed(1)} ${y(point.f1).toFixed(1)}`).join("L");
  return svg("g", { class: `series ${kind(curve.system)}` }, svg("path", { class: "line", d: `M${line}` }),
    curve.points.map((point) => [
      kind(curve.system) && point.f1_ci ? svg("path", { class: "reach", d: `M${x(point.tokens)} ${y(Math.max(0, point.f1_ci[0]))}V${y(point.f1_ci[1])}` }) : null,
      svg("circle", { class: "dot", cx: x(point.tokens), cy: y(point.f1), r: kind(curve.system) ? 3.6 : 2.4 }, svg("title", {}, `${curve.system}: F1 ${point.f1.toFixed(1)} with ${count(point.tokens)} tokens, n = ${count(point.n)}`))]));
}

/** Names at the ends of the lines that matter, pushed apart where they would meet. */
function labels(curves, x, y) {
  const placed = curves.filter((curve) => kind(curve.system) || curves.length <= 6)
    .map((curve) => ({ curve, at: y(curve.points.at(-1).f1), x: x(curve.points.at(-1).tokens) })).sort((a, b) => a.at - b.at);
  placed.forEach((one, i) => { if (i && one.at - placed[i - 1].at < 15) one.at = placed[i - 1].at + 15; });
  return placed.map((one) => svg("g", { class: kind(one.curve.system) }, svg("text", { class: "name", x: one.x + 9, y: one.at + 4 }, one.curve.system)));
}

function rows(group) {
  const heads = ["System", "Budget", "Context tokens", "F1", "95 % interval", "n"];
  return h("table", { class: "stacking" }, h("thead", {}, h("tr", {}, heads.map((head, at) => h("th", { scope: "col", class: at ? "right" : null }, head)))),
    h("tbody", {}, group.curves.flatMap((curve) => curve.points.map((point) => h("tr", {}, h("th", { scope: "row", class: "whole" }, curve.system),
      [["Budget", point.budget === null ? "none" : count(point.budget)], ["Context tokens", count(point.tokens)], ["F1", point.f1.toFixed(1)],
        ["95 % interval", point.f1_ci ? point.f1_ci.map((end) => end.toFixed(1)).join(" to ") : "–"], ["n", count(point.n)]].map(([label, value]) => h("td", { class: "right", "data-label": label }, value)))))));
}
