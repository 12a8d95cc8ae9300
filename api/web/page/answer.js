// One answer as it comes: stages, words, then citations, receipt and trace.

import { call, events, path } from "/page/api.js";
import { button, h, problem, show } from "/page/dom.js";
import { notes } from "/page/notes.js";
import { seconds } from "/page/numbers.js";
import { receipt } from "/page/receipt.js";
import { openCitation } from "/page/source.js";

const MARKS = /\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]/;
const DOING = { trigger: "Deciding what is needed", rewrite: "Rewriting the question", queued: "Searching", retrieve: "Reading what was found", read: "Choosing the context",
  filter: "Choosing the context", select: "Putting the context together", render: "Answering", generate: "Checking citations", check: "Done" };
const VERDICTS = { answered: "answered", abstained: "no answer in the documents", degraded: "degraded" };

/** An empty card. `run` fills it. */
export function resultCard(title) {
  const card = {
    title,
    badge: h("span", { class: "badge", hidden: true }),
    stages: h("ul", { class: "stages", "aria-hidden": "true" }),
    said: h("p", { class: "said" }),
    below: h("div"),
    receipt: h("div"),
  };
  card.element = h("article", { class: "card result", "aria-label": title },
    h("header", {}, h("h2", {}, title), card.badge),
    h("div", { class: "side-by-side" }, h("div", {}, card.stages, card.said, card.below), card.receipt));
  return card;
}

/** Asks and fills the card as the events come. The answer; null where it was cancelled. Throws nothing: failures are shown.
 * `say` hears what is going on, in words for a screen reader. */
export async function run(card, body, { signal, say, naiveK }) {
  let words = "";
  const done = [];
  stagesAt(card, done, "Waiting for a place");
  card.element.setAttribute("aria-busy", "true");
  try {
    for await (const { name, data } of events("POST", path("ask"), { body: { ...body, stream: true }, signal })) {
      if (name === "status") {
        if (data.stage !== "queued") done.push(data);
        stagesAt(card, done, DOING[data.stage] ?? "Working");
        say(DOING[data.stage] ?? "Working");
      } else if (name === "token") {
        words += data.text;
        card.said.textContent = words;
      } else if (name === "error") {
        return failed(card, { ...data.error, requestId: data.error.request_id });
      } else if (name === "done") {
        finished(card, data, body.collection, naiveK);
        return data;
      }
    }
    return failed(card, { message: "The server ended the answer before it was done.", hint: "Ask again.", code: "stream_ended" });
  } catch (error) {
    if (error.name !== "AbortError") return failed(card, error);
    badge(card, "cancelled", "cancelled");
    stagesAt(card, done, null);
    if (!words) nothing(card, "You cancelled this answer.");
    return null;
  } finally {
    card.element.removeAttribute("aria-busy");
  }
}

function stagesAt(card, done, now) {
  show(card.stages, done.map((step) => h("li", {}, `${step.stage} ${seconds(step.seconds)}`)),
    now && now !== "Done" ? h("li", { class: "now" }, h("span", { class: "spin" }), now) : null);
}

function badge(card, kind, label) {
  card.badge.hidden = false;
  card.badge.className = `badge ${kind}`;
  card.badge.textContent = label;
}

function failed(card, error) {
  badge(card, "failed", "failed");
  card.stages.replaceChildren();
  card.said.hidden = true;
  show(card.below, problem(error));
  return null;
}

function nothing(card, text) {
  card.said.classList.add("nothing");
  card.said.textContent = text;
}

function finished(card, answer, collection, naiveK) {
  badge(card, answer.verdict, VERDICTS[answer.verdict] ?? answer.verdict);
  card.stages.hidden = true;
  if (answer.answer) show(card.said, marked(answer, collection));
  else nothing(card, answer.verdict === "abstained" ? "The documents do not seem to hold the answer." : "There is no answer.");
  show(card.below, answer.reason ? h("p", { class: "reason" }, answer.reason) : null, notes(answer), citations(answer, collection), feedback(answer));
  show(card.receipt, receipt(answer.receipt, { naiveK, of: card.title }));
}

/** The words, with each mark that has a citation as a button. */
function marked(answer, collection) {
  const byNumber = new Map(answer.citations.map((citation) => [citation.n, citation]));
  return answer.answer.split(MARKS).map((piece, at) => {
    if (at % 2 === 0) return piece;
    const numbers = piece.split(",").map((number) => Number(number));
    if (!numbers.every((number) => byNumber.has(number))) return `[${piece}]`;
    return numbers.map((number) => h("button", { type: "button", class: "cite", "aria-label": `Citation ${number}: ${told(byNumber.get(number))}`,
      on: { click: () => openCitation(collection, byNumber.get(number)) } }, String(number)));
  });
}

function told(citation) {
  return citation.page ? `${citation.source}, page ${citation.page}` : citation.source;
}

function citations(answer, collection) {
  if (!answer.citations.length) return null;
  return h("ol", { class: "citations", "aria-label": "Citations" }, answer.citations.map((citation) => h("li", {},
    h("button", { type: "button", on: { click: () => openCitation(collection, citation) } },
      h("span", { class: "n" }, String(citation.n)), h("span", { class: "quote" }, citation.quote), h("span", { class: "where" }, told(citation))))));
}

function feedback(answer) {
  const place = h("div", { class: "feedback", role: "group", "aria-label": "Was this right?" });
  const rate = async (rating) => {
    try {
      await call("POST", path("feedback"), { body: { answer_id: answer.id, rating } });
      show(place, h("span", { role: "status" }, "Thank you, that is kept."));
    } catch (error) {
      show(place, problem(error));
    }
  };
  show(place, "Was this right?", button("Yes", () => rate("up"), { class: "quiet" }), button("No", () => rate("down"), { class: "quiet" }));
  return place;
}
