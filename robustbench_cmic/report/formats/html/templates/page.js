"use strict";
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  // --- theme ---
  const toggle = document.getElementById("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const told = () => {
    toggle.setAttribute("aria-pressed", String(dark()));
    document.dispatchEvent(new Event("themechange"));
  };
  toggle.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("robustbench_cmic-theme", root.dataset.theme); } catch { /* not kept, then */ }
    told();
  });
  system.addEventListener("change", told);
  told();

  // --- sorting ---
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    if (a === "" || b === "") return 0;
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  const close = (table) => {
    for (const row of table.querySelectorAll("tr.provenance")) row.remove();
    for (const button of table.querySelectorAll("button.open")) button.setAttribute("aria-expanded", "false");
  };
  const sort = (table, header) => {
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    close(table);
    const column = header.cellIndex;
    const keyed = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    // What has no value comes last either way; sorting is stable.
    keyed.sort(([a], [b]) => (a === "") - (b === "") || (descending ? -compare(a, b) : compare(a, b)));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header));
      header.append(button);
      header.setAttribute("aria-sort", "none");
    }
  }

  // --- filtering ---
  for (const filters of document.querySelectorAll("[data-filters]")) {
    const table = document.getElementById(filters.dataset.filters);
    const search = filters.querySelector("input");
    const selects = [...filters.querySelectorAll("select")];
    const rows = [...table.tBodies[0].rows];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const apply = () => {
      close(table);
      const words = search.value.toLowerCase().split(/\s+/);
      const chosen = selects.filter((select) => select.value !== "");
      let shown = 0;
      for (const row of rows) {
        row.hidden = !(words.every((word) => texts.get(row).includes(word)) &&
          chosen.every((select) => row.dataset[select.dataset.key] === select.value));
        if (!row.hidden) shown += 1;
      }
      filters.querySelector(".count").textContent = `${shown} of ${rows.length} rows`;
    };
    filters.addEventListener("input", apply);
    apply();
  }

  // --- flags ---
  const dialog = document.getElementById("flag-dialog");
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-flag]");
    if (!button) return;
    const rule = document.getElementById(`flag-${button.dataset.flag}`).cloneNode(true);
    rule.removeAttribute("id");
    for (const row of rule.querySelectorAll("tr[data-model]")) {
      row.classList.toggle("here", row.dataset.model === button.dataset.model);
    }
    dialog.setAttribute("aria-label", button.dataset.flag);
    dialog.querySelector(".body").replaceChildren(rule);
    dialog.showModal();
    dialog.dispatchEvent(new Event("copied", { bubbles: true }));
  });
  dialog?.querySelector("button.close").addEventListener("click", () => dialog.close());

  // --- where a number came from ---
  const element = (name, ...content) => {
    const made = document.createElement(name);
    made.append(...content);
    return made;
  };
  const fact = (known, label, text) => {
    let shown = text;
    if (label === known.again) shown = element("code", text);
    if (label === known.record) {
      shown = element("a", text);
      shown.href = `./${encodeURIComponent(text)}`;
    }
    return [element("dt", label), element("dd", shown)];
  };
  for (const table of document.querySelectorAll("table[data-provenance]")) {
    const known = JSON.parse(document.getElementById(table.dataset.provenance).textContent);
    for (const row of table.tBodies[0].rows) {
      const button = element("button", "+");
      button.type = "button";
      button.className = "open";
      button.setAttribute("aria-expanded", "false");
      button.setAttribute("aria-label", "where this number came from");
      row.cells[0].prepend(button);
    }
    table.addEventListener("click", (event) => {
      const button = event.target.closest("button.open");
      if (!button) return;
      const row = button.closest("tr");
      const opened = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!opened));
      if (opened) return row.nextElementSibling.remove();
      const list = element("dl");
      for (const place of known.rows[Number(row.dataset.row)]) list.append(...fact(known, ...known.facts[place]));
      const cell = element("td", list);
      cell.colSpan = row.cells.length;
      const details = element("tr", cell);
      details.className = "provenance";
      row.after(details);
    });
  }
})();
