// Uploads on their way: bytes out, then the job that reads them in, with what became of each file.

import { call, events, path, upload } from "/page/api.js";
import { button, byId, h, problem, show } from "/page/dom.js";
import { count, percent, plural } from "/page/numbers.js";
import { state } from "/page/state.js";

const KEPT = "thriftrag-jobs";

/** `read` is called when a job has ended. Jobs that were under way when the page was left are watched again. */
export function startJobs({ read }) {
  const form = byId("upload");
  const files = byId("files");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const name of ["dragenter", "dragover"]) form.addEventListener(name, (event) => { event.preventDefault(); form.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) form.addEventListener(name, () => form.classList.remove("over"));
  form.addEventListener("drop", (event) => { event.preventDefault(); add([...event.dataTransfer.files]); });
  files.addEventListener("change", () => { add([...files.files]); files.value = ""; });
  // A file that misses the box would otherwise replace the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

  const add = async (chosen) => {
    if (!chosen.length) return;
    const card = jobCard(chosen.length === 1 ? chosen[0].name : plural(chosen.length, "file"));
    const leaving = new AbortController();
    let [sent, dropped] = [0, false];
    // Once all of it is out the server reads it in whether we listen or not: then the job is what must be cancelled.
    card.cancel.onclick = () => { if (sent < 1) leaving.abort(); else { dropped = true; card.tell("Cancelling", null); } };
    card.tell("Sending", 0);
    try {
      const job = await upload(path("collections", state.collection, "documents"), chosen, { signal: leaving.signal, onSent: (share) => { sent = share; card.tell(`Sending, ${percent(share)}`, share); } });
      if (dropped) await call("DELETE", path("jobs", job.id));
      await watch(card, job, read);
    } catch (error) {
      if (error.name === "AbortError") card.end("Cancelled before all of it was sent.");
      else card.fail(error);
      read();
    }
  };

  for (const id of remembered()) {
    call("GET", path("jobs", id)).then((job) => watch(jobCard(job.files.length === 1 ? job.files[0] : plural(job.files.length, "file")), job, read), () => forget(id));
  }
}

async function watch(card, job, read) {
  remember(job.id);
  // Said before it is asked for: the job's end may come before the answer does, and must be the last word.
  card.cancel.onclick = () => { card.tell("Cancelling", null); call("DELETE", path("jobs", job.id)).catch(card.fail); };
  let now = job;
  card.follow(now);
  try {
    for await (const { data } of events("GET", `${path("jobs", job.id)}/events`)) {
      now = data;
      card.follow(now);
    }
    if (now.ended === null) {
      card.tell("The server is restarting; it goes on with this when it is up again", null);
      return;
    }
    card.ended(now);
    forget(job.id);
  } catch (error) {
    card.fail(error);
  }
  read();
}

function jobCard(title) {
  const [bar, text, more] = [h("progress", { max: 1, "aria-label": title }), h("p", { class: "soft small" }), h("ul")];
  const cancel = button("Cancel", () => {}, { class: "quiet", "aria-label": `Cancel ${title}` });
  const element = h("article", { class: "card job", "aria-label": title }, h("header", {}, h("p", {}, title), cancel), bar, text, more);
  byId("jobs").prepend(element);
  const dismiss = () => { cancel.textContent = "Dismiss"; cancel.setAttribute("aria-label", `Dismiss ${title}`); cancel.onclick = () => element.remove(); bar.remove(); };
  const card = { cancel };
  card.tell = (words, share) => {
    text.textContent = words;
    if (share === null || share === undefined) bar.removeAttribute("value");
    else bar.value = share;
  };
  card.end = (words) => { dismiss(); text.textContent = words; byId("job-status").textContent = `${title}: ${words}`; };
  card.fail = (error) => { dismiss(); text.textContent = ""; show(more, h("li", {}, problem(error))); byId("job-status").textContent = `${title}: ${error.message}`; };
  card.follow = ({ state: now, progress }) => {
    if (now === "queued") card.tell("Waiting in line", null);
    else if (progress) card.tell(`${stageName(progress.stage)}: ${count(progress.done)}${progress.total ? ` of ${count(progress.total)}` : ""} ${progress.unit}`, progress.total ? progress.done / progress.total : null);
    else card.tell("Beginning", null);
  };
  card.ended = ({ state: how, report, error }) => {
    if (error) return card.fail({ ...error, requestId: null });
    card.end(how === "cancelled" ? `Cancelled. ${told(report)}`.trim() : told(report));
    show(more, [...(report?.failures ?? []), ...(report?.skipped ?? [])].map((failure) => h("li", {}, h("strong", {}, failure.source), ` ${failure.message} ${failure.hint}`)));
  };
  return card;
}

function stageName(stage) {
  return { parse: "Reading", encode: "Encoding", publish: "Publishing", merge: "Merging" }[stage] ?? stage;
}

function told(report) {
  if (!report) return "";
  const parts = [["added", "added"], ["changed", "replaced"], ["unchanged", "unchanged"]].filter(([name]) => report[name]).map(([name, word]) => `${count(report[name])} ${word}`);
  const failures = report.failures.length + report.skipped.length;
  if (failures) parts.push(`${plural(failures, "file")} could not be read`);
  return `${parts.join(", ") || "Nothing was added"}; ${plural(report.chunks, "passage")}.`;
}

function remembered() {
  return JSON.parse(sessionStorage.getItem(KEPT) ?? "[]");
}

function remember(id) {
  sessionStorage.setItem(KEPT, JSON.stringify([...new Set([...remembered(), id])]));
}

function forget(id) {
  sessionStorage.setItem(KEPT, JSON.stringify(remembered().filter((one) => one !== id)));
}
