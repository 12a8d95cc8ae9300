// The page: which view is shown, and what all of them need.

import { startAsk } from "/page/ask.js";
import { startCollections } from "/page/collections.js";
import { startDialogs, startKey } from "/page/dialogs.js";
import { startDocuments } from "/page/documents.js";
import { button, byId, problem, show } from "/page/dom.js";
import { startFrontier } from "/page/frontier.js";
import { changes, refresh, state } from "/page/state.js";
import { startTheme } from "/page/theme.js";
import { startUsage } from "/page/usage.js";

const VIEWS = ["ask", "documents", "usage", "frontier"];
const NAMES = { ask: "Ask", documents: "Documents", usage: "Usage", frontier: "Frontier" };

function view() {
  const wanted = location.hash.slice(1);
  return VIEWS.includes(wanted) ? wanted : "ask";
}

function start() {
  startTheme(byId("theme"));
  startDialogs();
  startAsk();
  startCollections();
  startDocuments();
  const onShown = { usage: startUsage(), frontier: startFrontier() };
  startKey(() => refresh().then(() => onShown[view()]?.()));

  const route = ({ focus }) => {
    const now = view();
    for (const name of VIEWS) byId(name).hidden = name !== now;
    for (const link of document.querySelectorAll("nav a")) {
      if (link.hash === `#${now}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${NAMES[now]} · ThriftRAG`;
    if (focus) byId(`${now}-title`).focus();
    window.scrollTo(0, 0);
    onShown[now]?.();
  };
  window.addEventListener("hashchange", () => route({ focus: true }));
  byId("skip").addEventListener("click", (event) => { event.preventDefault(); byId("main").focus(); });

  changes.addEventListener("changed", () => {
    const { failure, settings } = state;
    show(byId("notice"), failure && failure.status !== 401 ? problem(failure, button("Try again", () => refresh())) : null);
    byId("key-open").hidden = !(settings?.key.needed || failure?.status === 401);
    if (settings) byId("version").textContent = settings.version;
  });
  route({ focus: false });
  refresh().then(() => { if (view() === "ask" && !document.querySelector("dialog[open]")) byId("question").focus(); });
}

start();
