// Documents of the chosen collection: add by dropping, watch them come in, look at them, delete.

import { call, path } from "/page/api.js";
import { confirmed } from "/page/dialogs.js";
import { button, byId, empty, h, problem, show, waiting } from "/page/dom.js";
import { startJobs } from "/page/jobs.js";
import { bytes, count, day, plural } from "/page/numbers.js";
import { openDocument } from "/page/source.js";
import { changes, chosen, may, refresh, state } from "/page/state.js";

const PAGE = 50;

export function startDocuments() {
  const list = { rows: [], next: null, collection: "" };
  const place = byId("document-list");

  const load = async () => {
    const { collection } = state;
    Object.assign(list, { rows: [], next: null, collection });
    if (!collection) return show(place, empty("No collection yet", may("write") ? "Make one beside this." : "There is none that this key may use."));
    show(place, waiting("Fetching the list"));
    return more();
  };

  const more = async () => {
    const { collection } = list;
    try {
      const after = list.next === null ? "" : `&after=${encodeURIComponent(list.next)}`;
      const page = await call("GET", `${path("collections", collection, "documents")}?limit=${PAGE}${after}`);
      if (collection !== list.collection) return;
      list.rows.push(...page.documents);
      list.next = page.next;
      draw();
    } catch (error) {
      show(place, problem(error, button("Try again", load)));
    }
  };

  // The list is drawn anew when an upload ends, whatever somebody is doing in it.
  const focusOn = (id) => [...place.querySelectorAll("[data-id]")].find((one) => one.dataset.id === id)?.focus();

  const draw = () => {
    const held = place.contains(document.activeElement) ? document.activeElement.dataset.id : undefined;
    if (!list.rows.length) return show(place, empty("No documents yet", may("write") ? "Drop files above: pdf, office, html, Markdown, mail, code, zip and more." : "Nobody has added any."));
    show(place, table(list.rows, remove),
      list.next === null ? null : h("p", { class: "list-more" }, button("Show more", more)));
    if (held !== undefined) focusOn(held);
  };

  const remove = async (row) => {
    const done = await confirmed(`Delete ${short(row.source)}?`, "From then on no question finds it. The file that it came from is not touched.",
      () => call("DELETE", path("collections", list.collection, "documents", row.id)));
    if (!done) return focusOn(row.id);
    list.rows = list.rows.filter((one) => one !== row);
    byId("job-status").textContent = `${row.source} is deleted.`;
    draw();
    byId("list-title").focus();
    refresh();
  };

  startJobs({ read: () => refresh().then(load) });
  let last = null;
  changes.addEventListener("changed", () => {
    facts();
    const now = `${state.collection} ${state.settings?.key.name} ${state.failure === null}`;
    if (now !== last && !state.failure) load();
    last = now;
  });
  return load;
}

function facts() {
  const collection = chosen();
  byId("collection-facts").textContent = collection ? `${collection.name}: ${plural(collection.documents, "document")}, ${plural(collection.chunks, "passage")}, `
    + `${count(collection.tokens)} tokens, ${bytes(collection.bytes)} on disk` : "";
  byId("upload").hidden = !may("write") || !collection;
  byId("upload-refused").hidden = may("write") || !state.settings;
  const limits = state.settings?.upload;
  if (limits) byId("upload-limits").textContent = `Up to ${plural(limits.files, "file")} and ${count(limits.mb)} MB at once. A file replaces the one of the same name.`;
}

function table(rows, remove) {
  const heads = ["Document", "Passages", "Tokens", "Added"];
  return h("table", { class: "list stacking" },
    h("thead", {}, h("tr", {}, heads.map((head, at) => h("th", { scope: "col", class: at === 1 || at === 2 ? "right" : null }, head)), may("write") ? h("th", {}, h("span", { class: "unseen" }, "Delete")) : null)),
    h("tbody", {}, rows.map((row) => h("tr", {},
      h("th", { scope: "row", class: "whole" }, h("button", { type: "button", class: "link", on: { click: () => openDocument(state.collection, row) } }, row.title || row.source),
        row.title && row.title !== row.source ? h("span", { class: "why" }, row.source) : null),
      h("td", { class: "right", "data-label": "Passages" }, count(row.chunks)), h("td", { class: "right", "data-label": "Tokens" }, count(row.tokens)),
      h("td", { "data-label": "Added" }, day(row.added)),
      may("write") ? h("td", {}, button("Delete", () => remove(row), { class: "quiet", "aria-label": `Delete ${row.source}`, "data-id": row.id })) : null))));
}

function short(source) {
  return source.length > 60 ? `…${source.slice(-58)}` : source;
}
