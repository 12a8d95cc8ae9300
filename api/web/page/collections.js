// Collections: which there are, make one, delete one.

import { call, path } from "/page/api.js";
import { confirmed } from "/page/dialogs.js";
import { button, byId, h, show } from "/page/dom.js";
import { plural } from "/page/numbers.js";
import { changes, may, refresh, state } from "/page/state.js";

export function startCollections() {
  const select = byId("collection");
  const error = byId("create-error");
  select.addEventListener("change", () => refresh(select.value));
  byId("create").addEventListener("submit", async (event) => {
    event.preventDefault();
    const field = byId("create-name");
    const name = field.value.trim();
    error.textContent = name ? "" : "Give it a name.";
    if (!name) return field.focus();
    try {
      await call("POST", path("collections"), { body: { name } });
      field.value = "";
      await refresh(name);
    } catch (failure) {
      error.textContent = [failure.message, failure.hint].filter(Boolean).join(" ");
      field.focus();
    }
  });
  changes.addEventListener("changed", draw);
}

function draw() {
  const names = state.collections.map((one) => one.name);
  show(byId("collection"), names.map((name) => h("option", { selected: name === state.collection }, name)), names.length ? null : h("option", { value: "" }, "no collection"));
  byId("collection").disabled = !names.length;
  byId("create").hidden = !may("write");
  show(byId("collections"), names.length ? null : h("p", { class: "soft" }, "None yet."), state.collections.map((one) => h("div", { class: "collection" },
    h("div", {}, one.name === state.collection ? h("b", {}, one.name) : h("button", { type: "button", class: "link", on: { click: () => refresh(one.name) } }, one.name),
      h("p", {}, plural(one.documents, "document"))),
    may("write") ? button("Delete", () => remove(one), { class: "quiet", "aria-label": `Delete the collection ${one.name}` }) : null)));
}

async function remove(one) {
  const done = await confirmed(`Delete the collection ${one.name}?`, `${plural(one.documents, "document")} and everything made from them go for good. The files they came from are not touched.`,
    () => call("DELETE", path("collections", one.name)), { label: "Delete it" });
  if (!done) return;
  await refresh();
  byId("collections-title").focus();
}
