// The text of a document with what was cited, or considered, marked in it. Offsets count code points, as everywhere in the service.

import { call, path } from "/page/api.js";
import { button, byId, h, problem, show, waiting } from "/page/dom.js";
import { count } from "/page/numbers.js";

const AROUND = 2500;            // code points shown on either side of a mark
const MORE = 20000;
let turn = 0;

/** The document of a citation. */
export function openCitation(collection, citation) {
  return open(collection, citation.source, async () => ({
    document: await call("GET", path("collections", collection, "documents", citation.doc_id)),
    marks: [{ start: citation.start, end: citation.end, kind: "cited" }], page: citation.page,
  }));
}

/** The document of a candidate: the passage, and in it the sentences that were kept. */
export function openCandidate(collection, row) {
  return open(collection, row.source, async () => {
    const chunk = await call("GET", path("collections", collection, "chunks", row.chunk_id));
    const document = await call("GET", path("collections", collection, "documents", chunk.doc_id));
    const kept = row.kept_sentences.map((at) => chunk.sentences[at]).filter(Boolean)
      .map(([start, end]) => ({ start: chunk.start + start, end: chunk.start + end, kind: "cited" }));
    return { document, marks: [{ start: chunk.start, end: chunk.end, kind: "passage" }, ...kept], page: chunk.page };
  });
}

export function openDocument(collection, row) {
  return open(collection, row.source, async () => ({
    document: await call("GET", path("collections", collection, "documents", row.id)), marks: [], page: null,
  }));
}

async function open(collection, source, load) {
  const mine = (turn += 1);
  const [dialog, title, facts, body] = ["source", "source-title", "source-facts", "source-body"].map(byId);
  title.textContent = source;
  facts.textContent = collection;
  show(body, waiting("Fetching the document"));
  if (!dialog.open) dialog.showModal();
  title.focus();
  try {
    const { document, marks, page } = await load();
    if (mine !== turn) return;
    title.textContent = document.title || document.source;
    facts.textContent = [document.title ? document.source : null, page ? `page ${page}` : null, `${count(document.characters)} characters`]
      .filter(Boolean).join(" · ");
    draw(body, [...document.text], marks);
  } catch (error) {
    if (mine === turn) show(body, problem(error));
  }
}

function draw(body, characters, marks) {
  let from = Math.max(0, Math.min(...marks.map((mark) => mark.start), characters.length) - AROUND);
  let to = Math.min(characters.length, Math.max(...marks.map((mark) => mark.end), 0) + AROUND);
  if (!marks.length) [from, to] = [0, Math.min(characters.length, MORE)];
  const render = () => show(body,
    from > 0 ? h("p", {}, button("Show more before this", () => { from = Math.max(0, from - MORE); render(); })) : null,
    h("p", { class: "source-text" }, pieces(characters, marks, from, to)),
    to < characters.length ? h("p", {}, button("Show more after this", () => { to = Math.min(characters.length, to + MORE); render(); })) : null);
  render();
  const first = body.querySelector("mark.cited") ?? body.querySelector("mark");
  first?.scrollIntoView({ block: "center" });
}

/** The text between `from` and `to`, cut where a mark begins or ends; a sentence wins over the passage around it. */
function pieces(characters, marks, from, to) {
  const cuts = [...new Set([from, to, ...marks.flatMap((mark) => [mark.start, mark.end])])]
    .filter((cut) => cut >= from && cut <= to).sort((a, b) => a - b);
  return cuts.slice(1).map((end, at) => {
    const start = cuts[at];
    const inside = marks.filter((mark) => mark.start <= start && end <= mark.end).map((mark) => mark.kind);
    const text = characters.slice(start, end).join("");
    if (!inside.length) return text;
    return h("mark", { class: inside.includes("cited") ? "cited" : "passage" }, text);
  });
}
