// Chooses data set, axis, budget and systems, and sorts tables. Without it everything is shown, one below the other.
(() => {
  "use strict";
  const form = document.querySelector(".controls");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  form.hidden = false;

  const show = () => {
    const chosen = new FormData(form);
    const systems = new Set(chosen.getAll("system"));
    const budget = chosen.get("budget");
    for (const block of all("[data-group]")) block.hidden = block.dataset.group !== chosen.get("group");
    const axis = chosen.get("axis");
    for (const pair of all("[data-axis]")) pair.hidden = axis !== null && pair.dataset.axis !== axis;
    for (const series of all(".series")) series.style.display = systems.has(series.dataset.system) ? "" : "none";
    for (const row of all("tr[data-system]")) {
      const bound = row.dataset.budget !== "" && !row.closest(".nobudget");
      row.hidden = !systems.has(row.dataset.system) || (budget !== "" && bound && row.dataset.budget !== budget);
    }
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const button of all("[data-set]", form)) {
    button.addEventListener("click", () => {
      for (const box of all("input[name=system]", form)) box.checked = button.dataset.set === "all";
      show();
    });
  }
  const filter = form.querySelector(".filter");
  document.addEventListener("click", (event) => { if (!filter.contains(event.target)) filter.open = false; });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && filter.open) { filter.open = false; filter.querySelector("summary").focus(); }
  });

  const value = (cell) => cell.dataset.v === undefined ? (cell.tagName === "TH" ? cell.textContent.trim() : null) : Number(cell.dataset.v);
  const compare = (one, other) => typeof one === "string" ? one.localeCompare(other) : one - other;
  const sort = (head, place) => {
    const body = head.closest("table").tBodies[0];
    // Figures from large to small first, names from A to Z; cells without a figure last either way.
    const before = head.getAttribute("aria-sort");
    const first = place === 0 ? "ascending" : "descending";
    const next = before === null ? first : before === "ascending" ? "descending" : "ascending";
    for (const other of all("th[aria-sort]", head.parentElement)) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", next);
    const rows = [...body.rows].map((row) => [value(row.cells[place]), row]);
    rows.sort(([one], [other]) => one === null || other === null ? (one === null) - (other === null)
      : (next === "ascending" ? 1 : -1) * compare(one, other));
    body.append(...rows.map(([, row]) => row));
  };
  for (const table of all("table.figures")) {
    all("thead th", table).forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => sort(head, place));
    });
  }

  // The line under the pointer comes forward, in every plot at once.
  const pick = (system) => {
    for (const plot of all("svg.plot")) plot.classList.toggle("picked", system !== null);
    for (const series of all(".series")) series.classList.toggle("on", series.dataset.system === system);
  };
  for (const series of all(".series")) {
    series.addEventListener("pointerenter", () => pick(series.dataset.system));
    series.addEventListener("pointerleave", () => pick(null));
  }
  show();
})();
