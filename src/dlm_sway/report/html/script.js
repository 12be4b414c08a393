"use strict";
(() => {
  const make = (tag, props = {}) => Object.assign(document.createElement(tag), props);
  const all = (query, root = document) => [...root.querySelectorAll(query)];
  const root = document.documentElement;

  // Theme: the system's until a reader chooses; a file that may not store the choice still takes it.
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("sway-theme", value);
      return localStorage.getItem("sway-theme");
    } catch { return null; }
  };
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const toggle = make("button", { type: "button" });
  const label = () => {
    toggle.textContent = isDark() ? "Light" : "Dark";
    toggle.setAttribute("aria-label", `Use ${isDark() ? "light" : "dark"} colours`);
  };
  if (["dark", "light"].includes(stored())) root.dataset.theme = stored();
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored(root.dataset.theme);
    label();
  });
  label();
  document.getElementById("tools").append(toggle);

  // Chips that count verdicts become filters.
  const claims = all("#claims > .claim");
  const chips = all(".count").map((span) => {
    const chip = make("button", { type: "button", className: span.className, textContent: span.textContent });
    chip.dataset.verdict = span.dataset.verdict;
    chip.setAttribute("aria-pressed", "false");
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      const wanted = chips.filter((c) => c.getAttribute("aria-pressed") === "true").map((c) => c.dataset.verdict);
      for (const claim of claims) claim.hidden = wanted.length > 0 && !wanted.includes(claim.dataset.verdict);
    });
    span.replaceWith(chip);
    return chip;
  });

  // A link to a probe opens it.
  const probes = all("details.probe");
  const open = () => {
    const found = location.hash.startsWith("#probe-") && document.getElementById(location.hash.slice(1));
    if (found) found.open = true;
  };
  addEventListener("hashchange", open);
  open();
  const place = document.getElementById("probe-tools");
  if (place && probes.length > 1) {
    for (const [text, state] of [["Open all", true], ["Close all", false]]) {
      const button = make("button", { type: "button", textContent: text });
      button.addEventListener("click", () => { for (const probe of probes) probe.open = state; });
      place.append(button, " ");
    }
  }

  // What is folded on a screen is not on paper.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = all("details.probe:not([open]), details.facts:not([open])");
    for (const d of closed) d.open = true;
  });
  addEventListener("afterprint", () => { for (const d of closed) d.open = false; });

  // Tables sort by their headings and filter as one types.
  const value = (row, i) => row.cells[i].dataset.v === undefined ? row.cells[i].textContent : Number(row.cells[i].dataset.v);
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  const sortable = (table) => {
    const body = table.tBodies[0];
    const heads = all("thead th", table);
    heads.forEach((head, i) => {
      const button = make("button", { type: "button", textContent: head.textContent });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...body.rows].map((row) => [value(row, i), row]);
        rows.sort(([a], [b]) => {
          const order = compare(a, b);
          return down && a !== "" && b !== "" ? -order : order;
        });
        body.append(...rows.map(([, row]) => row));
      });
    });
  };
  const filterable = (table) => {
    const scroll = table.closest(".scroll");
    const tools = make("div", { className: "tools" });
    const input = make("input", { type: "search", placeholder: "Filter" });
    input.setAttribute("aria-label", `Filter ${scroll.getAttribute("aria-label")}`);
    const count = make("span");
    count.setAttribute("role", "status");
    const rows = [...table.tBodies[0].rows];
    const update = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      count.textContent = shown === rows.length ? `${rows.length} rows` : `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", update);
    update();
    tools.append(input, count);
    scroll.before(tools);
  };
  for (const table of all("table[data-sortable]")) {
    sortable(table);
    filterable(table);
  }
})();
