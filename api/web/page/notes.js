// What was out of the ordinary in an answer, in words: memory, further queries, the choice of a reader, a reader that failed.

import { h } from "/page/dom.js";

const SHOWN = 4;

/** A list, or null where nothing was. */
export function notes(answer) {
  const told = [memory, rewrite, route, extracts].map((one) => one(answer.trace)).filter(Boolean);
  return told.length ? h("ul", { class: "notes", "aria-label": "How this answer came about" }, told.map((line) => h("li", {}, line))) : null;
}

function last(trace, stage) {
  return trace.findLast((step) => step.stage === stage);
}

function memory(trace) {
  const step = last(trace, "trigger");
  if (step?.decision !== "memory") return null;
  return [h("b", {}, step.rule === "answers" ? "Repeated from memory" : "Read from memory, without a search"), because(step.why)];
}

function rewrite(trace) {
  const step = last(trace, "rewrite");
  if (!step) return null;
  const queries = (step.queries ?? []).map((one) => one.query);
  const parts = [quoted("also searched", queries), quoted("looked for what passages mention", step.followed ?? []),
    quoted("put back from the conversation", step.carried ?? [])].filter(Boolean);
  return parts.length ? [h("b", {}, "Rewritten"), `: ${parts.join("; ")}`] : null;
}

function quoted(what, texts) {
  if (!texts.length) return null;
  const more = texts.length > SHOWN ? ` and ${texts.length - SHOWN} more` : "";
  return `${what} ${texts.slice(0, SHOWN).map((text) => `“${text}”`).join(", ")}${more}`;
}

function route(trace) {
  const step = last(trace, "route");
  return step ? [h("b", {}, step.decision === "large" ? "Answered by the large reader" : "Answered by the small reader"), because(step.why)] : null;
}

function extracts(trace) {
  return last(trace, "extract") ? [h("b", {}, "The reader failed"), ": these are sentences of the documents, word for word"] : null;
}

function because(why) {
  return why ? `: ${why}` : "";
}
