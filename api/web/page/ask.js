// The form: a question, its budget with what it may cost, and one or two answers.

import { resultCard, run } from "/page/answer.js";
import { byId, empty, h, show } from "/page/dom.js";
import { count, percent, plural, seconds, usd } from "/page/numbers.js";
import { measured, most, naive, nearest, steps } from "/page/price.js";
import { changes, chosen, may, settled, state } from "/page/state.js";
import { trace } from "/page/trace.js";

const PARTS = ["question", "budget", "price", "hint", "selector", "model", "deadline", "filters", "rewriter", "anew", "extracts", "compare", "cancel", "submit", "progress", "results"];
const LARGEST_STOP = 4096;

export function startAsk() {
  const on = Object.fromEntries(PARTS.map((id) => [id, byId(id)]));
  const exact = byId("budget-exact");
  const maxCost = byId("max-cost");
  let stops = steps(LARGEST_STOP);
  let instructions = null;        // tokens around the context, as the last answer counted them
  let running = null;
  let set = false;                // whether a person has moved the budget

  const budget = () => Math.max(1, Math.round(Number(exact.value)) || 1);

  const tell = () => {
    const { settings } = state;
    if (!settings) return;
    const found = most(budget(), { question: on.question.value, settings, instructions, maxCost: Number(maxCost.value) });
    const fill = naive(chosen(), settings.ask);
    show(on.price, "At most about ", h("b", {}, `${plural(found.tokens, "token")}`), " for this answer, ",
      found.usd === null ? "$0 as no prices are set" : h("b", {}, usd(found.usd)),
      fill === null ? "." : `. The top ${settings.ask.naive_k} passages would be about ${count(fill)} tokens of context.`);
    const told = measured(state.frontier, budget(), on.selector.value || settings.ask.selector);
    show(on.hint, told ? hint(told) : null);
    on.budget.setAttribute("aria-valuetext", plural(budget(), "token"));
  };

  const fill = () => {
    const { settings } = state;
    if (!settings) return;
    const { ask } = settings;
    stops = steps(Math.min(LARGEST_STOP, ask.max_budget_tokens));
    on.budget.max = stops.length - 1;
    exact.max = ask.max_budget_tokens;
    if (!set) exact.value = ask.budget_tokens;
    on.budget.value = nearest(stops, budget());
    options(on.selector, ask.selectors, ask.selector);
    options(on.model, ask.models, ask.models[0]);
    options(on.rewriter, ask.rewriters, ask.rewriter);
    on.anew.parentElement.hidden = !ask.memory;
    on.extracts.parentElement.hidden = ask.fallback === "extracts";
    on.deadline.placeholder = String(ask.deadline_s);
    on.deadline.max = ask.max_deadline_s;
    byId("naive-k").textContent = ask.naive_k;
    if (ask.max_cost_usd) maxCost.placeholder = String(ask.max_cost_usd);
    if (!on.results.childElementCount || on.results.firstElementChild.classList.contains("empty")) show(on.results, welcome());
    tell();
  };

  on.budget.addEventListener("input", () => { set = true; exact.value = stops[on.budget.value]; tell(); });
  exact.addEventListener("input", () => { set = true; on.budget.value = nearest(stops, budget()); tell(); });
  for (const field of [on.question, on.selector, maxCost]) field.addEventListener("input", tell);
  changes.addEventListener("changed", fill);
  on.question.addEventListener("input", () => complain(""));
  on.question.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("ask-form").requestSubmit();
  });
  on.cancel.addEventListener("click", () => running?.abort());

  byId("ask-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    try {
      await settled();
      const body = asked(on, { budget: budget(), maxCost: Number(maxCost.value) });
      if (body === null) return;
      on.submit.disabled = true;
      on.cancel.hidden = false;
      const answer = await both(on, body, running.signal);
      const row = answer?.receipt;
      if (row?.prompt_tokens > row?.context_tokens) instructions = Math.max(0, row.prompt_tokens - row.context_tokens - Math.ceil(body.question.length / 4));
      tell();
    } finally {
      if (document.activeElement === on.cancel) on.submit.focus();
      running = null;
      on.submit.disabled = false;
      on.cancel.hidden = true;
    }
  });
}

function complain(message) {
  byId("question-error").textContent = message;
  byId("question").setAttribute("aria-invalid", message ? "true" : "false");
  if (message) byId("question").focus();
}

/** The body of the request; null, and a word about it, where something cannot be sent. */
function asked(on, { budget, maxCost }) {
  const question = on.question.value.trim();
  if (!question) return complain("Type a question first."), null;
  if (!state.collection) return complain("There is no collection to ask: make one under Documents."), null;
  const body = { question, collection: state.collection, budget_tokens: budget, selector: on.selector.value, model: on.model.value };
  if (on.rewriter.value !== state.settings.ask.rewriter) body.rewriter = on.rewriter.value;
  if (on.anew.checked) body.memory = false;
  if (on.extracts.checked) body.fallback = "extracts";
  if (maxCost > 0) body.max_cost_usd = maxCost;
  if (Number(on.deadline.value) > 0) body.deadline_s = Number(on.deadline.value);
  if (on.filters.value.trim()) {
    try {
      body.filters = JSON.parse(on.filters.value);
    } catch {
      return complain("The filter is no JSON: write it like {\"year\": {\"gte\": 2020}}."), null;
    }
  }
  return body;
}

/** One answer, or ours and then the rank-order fill of the same question: the same reader, whole passages, as many as `naive_k`. */
async function both(on, body, signal) {
  const { naive_k: naiveK } = state.settings.ask;
  const say = (text) => { if (on.progress.textContent !== text) on.progress.textContent = text; };
  const ours = resultCard(on.compare.checked ? "ThriftRAG" : "Answer");
  const theirs = on.compare.checked ? resultCard(`Naive top-${naiveK}`) : null;
  const below = h("div", { class: "below" });
  show(on.results, h("div", { class: theirs ? "results-of-two" : "alone" }, ours.element, theirs?.element), below);
  ours.element.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  const answer = await run(ours, body, { signal, say, naiveK });
  if (answer === null) {
    say(signal.aborted ? "Cancelled." : "That failed.");
    theirs?.element.remove();
    return null;
  }
  show(below, trace(answer, body.collection));
  say(summary(answer));
  if (theirs) {
    const other = await run(theirs, { ...body, selector: "topk_whole", budget_tokens: fillBudget(answer, body), rewriter: "off", memory: false }, { signal, say: () => {}, naiveK });
    if (other) {
      show(below, difference(answer, other, naiveK), trace(answer, body.collection));
      say(`${summary(answer)} Naive top-${naiveK}: ${other.answer || other.verdict}, ${plural(other.receipt.prompt_tokens, "prompt token")}.`);
    }
  }
  return answer;
}

/** The context tokens of the fill that the receipt counted: its prompt without what stands around the context. */
function fillBudget({ receipt: row }, body) {
  const around = row.prompt_tokens > 0 ? row.prompt_tokens - row.context_tokens : 0;
  return Math.min(Math.max(row.naive_tokens - around, body.budget_tokens, 1), state.settings.ask.max_budget_tokens);
}

function difference({ receipt: ours }, { receipt: theirs }, naiveK) {
  const tokens = [ours, theirs].map((row) => row.prompt_tokens + row.completion_tokens);
  const less = tokens[1] > 0 ? 1 - tokens[0] / tokens[1] : 0;
  return h("p", { class: "compared card" }, "ThriftRAG took ", h("b", {}, plural(tokens[0], "token")), ` and ${seconds(ours.seconds.total)}`,
    ours.cost_usd || theirs.cost_usd ? ` for ${usd(ours.cost_usd)}` : "", `; filling in the top ${naiveK} passages whole took `, h("b", {}, plural(tokens[1], "token")),
    ` and ${seconds(theirs.seconds.total)}`, ours.cost_usd || theirs.cost_usd ? ` for ${usd(theirs.cost_usd)}` : "",
    less > 0 ? `: ${percent(less)} fewer tokens.` : ".", h("span", { class: "soft" }, " The second answer finds the model already loaded and may reuse what the first had read, so compare seconds with care."));
}

function summary({ answer, verdict, receipt: row, citations }) {
  return `${answer || verdict}. ${plural(citations.length, "citation")}, ${count(row.context_tokens)} of ${count(row.budget_tokens)} context tokens, ${seconds(row.seconds.total)}.`;
}

function hint({ kind, group, system, point }) {
  const where = kind === "tuning" ? "on questions from these documents" : `in the last evaluation (${group})`;
  return `Measured ${where}: ${system} at ${plural(point.budget, "token")} reaches F1 ${point.f1.toFixed(1)}${point.f1_ci ? ` [${point.f1_ci.map((end) => end.toFixed(0)).join(", ")}]` : ""}, n = ${count(point.n)}.`;
}

function options(select, names, standard) {
  const before = select.value || standard;
  show(select, names.map((name) => h("option", { value: name, selected: name === (names.includes(before) ? before : standard) }, name === standard ? `${name} (default)` : name)));
}

function welcome() {
  const collection = chosen();
  if (collection?.documents) return null;
  const add = may("write") ? h("p", {}, h("a", { href: "#documents" }, "Add documents")) : null;
  return collection ? empty(`The collection ${collection.name} is empty`, "There is nothing to answer from yet.", add)
    : empty("No collection yet", "Make one and put documents in it; then ask.", may("write") ? h("p", {}, h("a", { href: "#documents" }, "Make a collection")) : null);
}
