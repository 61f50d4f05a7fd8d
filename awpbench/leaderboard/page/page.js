"use strict";
(() => {
  const SHOWN = 20; // rows that are laid out at once; more follow a moment later, and as the table is scrolled
  const LONGEST = 8000; // characters of a state that is taken from the address
  const Z95 = 1.959963984540054; // 97.5 % quantile of the standard normal distribution
  const root = document.documentElement;
  const find = (selector, from = document) => from.querySelector(selector);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  root.classList.add("js");

  function make(tag, text = "", attributes = {}) {
    const element = document.createElement(tag);
    element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  // Statistics, as in awpbench/evaluation/statistics.py

  function mcnemar(b, c) {
    const n = b + c;
    let tail = 0n, ways = 1n; // to choose k of n
    for (let k = 0; k <= Math.min(b, c); k++) {
      tail += ways;
      ways = (ways * BigInt(n - k)) / BigInt(k + 1);
    }
    const twice = 2n * tail;
    const surplus = Math.max(0, 4 * twice.toString(16).length - 64); // digits that no float holds
    const share = Number(twice >> BigInt(surplus)) * 2 ** Math.max(surplus - n, -1000) * 2 ** Math.min(0, surplus - n + 1000);
    return Math.min(1, share);
  }

  function pairedDifference(b, c, n) { // Bonett and Price 2012
    const one = (b + 1) / (n + 2), other = (c + 1) / (n + 2);
    const half = Z95 * Math.sqrt((one + other - (one - other) ** 2) / (n + 2));
    return [Math.max(-1, one - other - half), Math.min(1, one - other + half)];
  }

  function unpairedDifference([correct, n, low, high], [correct2, n2, low2, high2]) { // Newcombe 1998, method 10
    const p = correct / n, q = correct2 / n2;
    return [p - q - Math.hypot(p - low, high2 - q), p - q + Math.hypot(high - p, q - low2)];
  }

  function only(bits, others) { // images that only the one and only the other got right
    const one = atob(bits), other = atob(others);
    let more = 0, less = 0;
    for (let i = 0; i < one.length; i++) {
      const a = one.charCodeAt(i), b = other.charCodeAt(i);
      for (let left = a & ~b; left; left &= left - 1) more++;
      for (let left = b & ~a; left; left &= left - 1) less++;
    }
    return [more, less];
  }

  // CSV

  const inert = (text) => // no cell that a spreadsheet would compute; a plain number is none
    /^\s*[=+\-@＝＋－＠]/u.test(text) && !/^-?\d+(\.\d+)?$/.test(text) ? `'${text}` : text;
  const quoted = (text) => (/[",\n\r;\t]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const line = (cells) => cells.map((cell) => quoted(inert(cell))).join(",");

  const textOf = (cell) => { const said = find("a, .v", cell).textContent; return said === "–" ? "" : said; };
  const belowOf = (cell) => find(".s", cell)?.textContent ?? "";
  const SPECIAL = { // columns that are others in the CSV: their names (as in `awpbench leaderboard --format csv`), their cells
    rank: [["rank_low", "rank_high"], (cell) => { const [low, high = low] = textOf(cell).split("-"); return [low, high]; }],
    method: [["model", "paper"], (cell, row) => [row.name, textOf(cell) === row.name ? "" : textOf(cell)]],
    awp: [["awp"], (cell) => [[textOf(cell), belowOf(cell)].filter(Boolean).join(" ")]],
    source: [["source"], (cell) => [belowOf(cell)]],
  };
  const AUDIT = [["audit"], (cell) => [belowOf(cell).replace("audit: ", "")]];
  const special = (table, key) => (key === "unreliable" && table.measured ? AUDIT : Object.hasOwn(SPECIAL, key) ? SPECIAL[key] : undefined);

  function csvHeads(table, [key, kind]) {
    const stem = key === "worst_case" ? "worst" : key;
    if (kind === "accuracy") return [key, `${stem}_low`, `${stem}_high`, `${stem}_n`, `${stem}_note`];
    return special(table, key)?.[0] ?? (kind === "difference" ? [key, `${key}_low`, `${key}_high`] : [key]);
  }

  function csvCells(table, [key, kind], cell, row) {
    const text = textOf(cell), below = belowOf(cell), own = special(table, key);
    if (kind !== "accuracy" && kind !== "difference") return own ? own[1](cell, row) : [text];
    const parts = /^\[([^,\]]*), ([^\]]*)\](?: n=(\d+))?(.*)$/.exec(below) ?? ["", "", "", "", ""];
    const number = (part) => (part ?? "").replace(/^\+/, "");
    const numbers = [text, parts[1], parts[2]].map(number);
    return kind === "accuracy" ? [...numbers, parts[3] ?? "", parts[4].trim()] : numbers;
  }

  function csv(table) {
    const heads = ["kind", ...Object.keys(table.group), "id", ...table.columns.flatMap((column) => csvHeads(table, column))];
    const kind = table.measured ? "measured" : "reported";
    const rows = table.visible.map((row) => {
      const cells = [...row.node.cells].slice(1).flatMap((cell, i) => csvCells(table, table.columns[i], cell, row));
      return line([kind, ...Object.values(table.group), row.id, ...cells]);
    });
    return [line(heads), ...rows, ""].join("\n");
  }

  function download(name, text) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    const link = make("a", "", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  // Sorting: figures from the highest, words from A, then what is unknown; the second click turns that round

  const alphabetic = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

  function order(rows, column, backwards) {
    const sign = backwards ? -1 : 1;
    const figures = [], texts = [], unknown = [];
    for (const row of rows) {
      const value = row.values[column];
      (typeof value === "number" ? figures : typeof value === "string" ? texts : unknown).push(row);
    }
    figures.sort((a, b) => sign * (b.values[column] - a.values[column]) || a.place - b.place);
    texts.sort((a, b) => sign * alphabetic(a.values[column], b.values[column]) || a.place - b.place);
    return [...figures, ...texts, ...unknown];
  }

  function direction(kind, backwards) { // rank 1 is the highest, and the smallest number
    const downwards = kind === "accuracy" || kind === "figure" || kind === "difference";
    return downwards !== backwards ? "descending" : "ascending";
  }

  globalThis.awpbenchPage = Object.freeze({ mcnemar, pairedDifference, unpairedDifference, only, inert }); // for tests

  // The page

  let tables, rowOf, filters, search, compared = [], restoring = false;

  function start() {
    tables = JSON.parse(find("#data").textContent);
    rowOf = new Map();
    for (const table of tables) adopt(table);
    filters = all("select[data-filter]");
    search = find("#search");
    for (const each of [search, ...filters]) each.addEventListener("input", () => { refresh(); remember(); });
    find("#tools").addEventListener("reset", () => setTimeout(clear));
    find("#tools").addEventListener("submit", (event) => event.preventDefault());
    document.addEventListener("click", jump);
    document.addEventListener("keydown", keyed);
    addEventListener("hashchange", restore);
    addEventListener("beforeprint", () => tables.forEach((table) => lay(table, Infinity)));
    addEventListener("afterprint", () => tables.forEach((table) => lay(table, SHOWN)));
    restore();
    if (innerWidth < 640) for (const notes of all(".notes")) notes.open = false;
  }

  function adopt(table) {
    table.section = document.getElementById(table.key);
    table.body = find("tbody", table.section);
    table.pill = find(`nav a[href="#${CSS.escape(table.key)}"]`);
    table.heads = all("thead th", table.section).slice(1);
    table.sort = null;
    table.limit = SHOWN;
    const dots = new Map(all(".dot", table.section).map((dot) => [dot.dataset.id, dot]));
    const nodes = [...table.body.rows];
    table.rows.forEach((row, place) => {
      Object.assign(row, { table, place, node: nodes[2 * place], more: nodes[2 * place + 1], dot: dots.get(row.id), open: false });
      row.text = row.text.toLowerCase();
      rowOf.set(row.id, row);
    });
    table.at = new Map(table.rows.map((row) => [row.node, row]));
    table.sorted = table.visible = table.rows;
    table.heads.forEach((head, column) => {
      const button = make("button", head.textContent, { type: "button" });
      button.addEventListener("click", () => { sort(table, column); remember(); });
      head.replaceChildren(button);
    });
    table.body.addEventListener("click", (event) => pressed(table, event.target));
    const save = () => download(`awpbench-${Object.values(table.group).slice(0, 3).join("-")}.csv`.replace(/[^\w.+-]+/g, "-"), csv(table));
    find('[data-do="csv"]', table.section).addEventListener("click", save);
    find('[data-do="all"]', table.section).addEventListener("click", () => lay(table, Infinity));
    const box = (table.box = find(".box", table.section));
    box.addEventListener("scroll", () => { if (!table.section.classList.contains("gone") && box.scrollTop + 2 * box.clientHeight > box.scrollHeight) further(table); }, { passive: true });
    pointing(table);
  }

  function pressed(table, target) {
    const row = table.at.get(target.closest("tr.row"));
    if (!row) return;
    if (target.matches('[data-do="open"]')) toggle(row, !row.open);
    else if (target.matches('input[type="checkbox"]')) choose(row, target.checked);
    else return;
    remember();
  }

  function sort(table, column, backwards = table.sort?.column === column && !table.sort.backwards) {
    toTop(table);
    table.sort = { column, backwards };
    table.sorted = order(table.rows, column, backwards);
    table.visible = table.sorted.filter((row) => !row.away);
    for (const head of table.heads) head.removeAttribute("aria-sort");
    table.heads[column].setAttribute("aria-sort", direction(table.columns[column][1], backwards));
    lay(table, SHOWN);
  }

  function toTop(table) { // to be called before anything changes, or the browser would have to lay it out at once
    if (!table.section.classList.contains("gone")) table.box.scrollTop = 0;
  }

  function unsort(table) {
    table.sort = null;
    table.sorted = table.rows;
    for (const head of table.heads) head.removeAttribute("aria-sort");
  }

  function refresh() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = filters.map((select) => select.value);
    let shown = 0, total = 0;
    tables.forEach(toTop);
    for (const table of tables) {
      for (const row of table.rows)
        row.away = !(wanted.every((value, i) => !value || row.filters[i] === value) && words.every((word) => row.text.includes(word)));
      table.visible = table.sorted.filter((row) => !row.away);
      lay(table, SHOWN);
      shown += table.visible.length;
      total += table.rows.length;
    }
    for (const table of tables) table.section.classList.toggle("gone", shown > 0 && table.visible.length === 0);
    find("#count").textContent = `${shown} of ${total} rows`;
    find("#nothing").hidden = shown > 0 || total === 0;
    for (const table of tables) {
      table.pill.classList.toggle("none", table.visible.length === 0);
      find("span", table.pill).textContent = table.visible.length;
    }
    root.classList.add("ready"); // only the rows that are laid out are left
    later(dim); // the drawings follow when the tables stand
  }

  function later(act) { // when the next two frames have been drawn
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(act)));
  }

  function dim() {
    for (const table of tables.filter((each) => each.visible.length))
      for (const row of table.rows)
        if (row.dot && Boolean(row.dim) !== Boolean(row.away)) row.dot.classList.toggle("dim", (row.dim = row.away));
  }

  const nodesOf = (rows) => rows.flatMap((row) => (row.open ? [row.node, row.more] : [row.node]));

  function lay(table, limit = table.limit) {
    table.limit = limit;
    table.body.replaceChildren(...nodesOf(table.visible.slice(0, limit)));
    count(table);
    if (limit < table.visible.length) later(() => { if (table.limit === limit) further(table); });
  }

  function further(table) {
    if (table.limit >= table.visible.length) return;
    table.body.append(...nodesOf(table.visible.slice(table.limit, (table.limit += SHOWN))));
    count(table);
  }

  function count(table) {
    const { visible, rows, limit, section } = table;
    find(".shown", section).textContent = `${visible.length} of ${rows.length} rows${limit < visible.length ? `, the first ${limit} here, more as you scroll` : ""}`;
    find('[data-do="all"]', section).hidden = limit >= visible.length;
  }

  // Details: the HTML that is there for browsers without scripts

  function toggle(row, open) {
    row.open = open;
    if (open && !row.filled) {
      const parsed = new DOMParser().parseFromString(find("noscript", row.more).textContent, "text/html");
      row.more.cells[0].replaceChildren(document.importNode(find(".facts", parsed), true));
      row.filled = true;
    }
    row.more.classList.toggle("open", open);
    find('[data-do="open"]', row.node).setAttribute("aria-expanded", String(open));
    if (!open) row.more.remove();
    else if (row.node.isConnected) row.node.after(row.more);
  }

  // Two rows of a table, compared

  function choose(row, on) {
    const kept = compared.filter((other) => other !== row && other.table === row.table).slice(-1);
    mark(on ? [...kept, row] : compared.filter((other) => other !== row));
    if (compared.length < 2) return;
    find("#compare").focus({ preventScroll: true }); // else the keyboard would go on behind the panel
    row.node.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function leave() { // the comparison, for the row that was ticked last
    const back = compared[1];
    mark([]);
    remember();
    find("input", back.node)?.focus();
  }

  function mark(rows) {
    for (const row of compared) find('input[type="checkbox"]', row.node).checked = false;
    compared = rows;
    for (const row of compared) find('input[type="checkbox"]', row.node).checked = true;
    const panel = find("#compare");
    panel.hidden = compared.length < 2;
    panel.replaceChildren(...(compared.length < 2 ? [] : comparison(...compared)));
    const height = panel.hidden ? 0 : panel.offsetHeight; // the page keeps so much room below
    document.body.style.paddingBottom = height ? `calc(3rem + ${height}px)` : "";
    root.style.scrollPaddingBottom = height ? `calc(1rem + ${height}px)` : "";
  }

  const points = (share) => `${share >= 0 ? "+" : "−"}${Math.abs(100 * share).toFixed(2)}`;
  const percent = ([correct, n]) => ((100 * correct) / n).toFixed(2);

  function comparison(one, other) {
    const close = make("button", "Close", { type: "button", class: "close" });
    close.addEventListener("click", leave);
    const lines = Object.keys(one.scores).filter((name) => Object.hasOwn(other.scores, name)).map((name) => difference(name, one, other));
    const table = make("table");
    const head = table.createTHead().insertRow();
    for (const text of ["Attack", "A (%)", "B (%)", "A − B, points", "95 % interval", "How"]) head.append(make("th", text, { scope: "col" }));
    const body = table.createTBody();
    for (const cells of lines) body.insertRow().append(...cells.map((text) => make("td", text)));
    const scroll = make("div", "", { class: "scroll" });
    scroll.append(table);
    const note = "Paired: on the same images, one by one (Bonett and Price; p of the exact McNemar test). Unpaired: from the two intervals (Newcombe), which is wider than need be and does not show that there is no difference; `awpbench compare` of the two results gives the paired one.";
    return [close, make("h3", "Comparison"), named("A", one), named("B", other), scroll, make("p", note, { class: "s" }), unlike(one, other)];
  }

  function named(letter, row) {
    const line = make("p");
    line.append(make("b", `${letter}: `), row.name);
    return line;
  }

  function difference(name, one, other) {
    const a = one.scores[name], b = other.scores[name];
    const start = [name, percent(a), percent(b)];
    const paired = one.outcomes && other.outcomes && one.outcomes[0] === name && other.outcomes[0] === name && a[1] === b[1];
    const tell = ([low, high]) => `[${points(low)}, ${points(high)}]`;
    if (!paired) return [...start, points(a[0] / a[1] - b[0] / b[1]), tell(unpairedDifference(a, b)), "unpaired"];
    const [more, less] = only(one.outcomes[1], other.outcomes[1]);
    const p = mcnemar(more, less);
    const how = `paired: only A right on ${more}, only B on ${less}; p ${p < 0.001 ? "< 0.001" : `= ${p.toFixed(3)}`}`;
    return [...start, points((more - less) / a[1]), tell(pairedDifference(more, less, a[1])), how];
  }

  function unlike(one, other) { // what their details say differently
    const facts = (row) => {
      const parsed = row.filled ? row.more : new DOMParser().parseFromString(find("noscript", row.more).textContent, "text/html");
      const sections = all("section", parsed).filter((each) => find("h4", each).textContent === "Training configuration");
      return new Map(sections.flatMap((each) => all("dl > div", each)).map((pair) => [find("dt", pair).textContent, find("dd", pair).textContent]));
    };
    const ours = facts(one), theirs = facts(other);
    if (!ours.size || !theirs.size) return make("p", "");
    const keys = [...new Set([...ours.keys(), ...theirs.keys()])].filter((key) => ours.get(key) !== theirs.get(key));
    const said = keys.map((key) => `${key}: ${ours.get(key) ?? "not set"} / ${theirs.get(key) ?? "not set"}`);
    return make("p", said.length ? `Trained differently (A / B): ${said.join("; ")}.` : "Both were trained with the same configuration.");
  }

  // The drawing and its table point at each other

  function pointing(table) {
    const tip = find("#tip");
    const svg = find(".plot > svg", table.section);
    const show = (event) => {
      const dot = event.target.closest?.(".dot");
      if (!dot) return;
      const title = find("title", dot);
      if (title) { dot.setAttribute("aria-label", title.textContent); title.remove(); } // else the browser would say it again
      tip.textContent = dot.getAttribute("aria-label");
      tip.hidden = false;
      const at = find("circle", dot).getBoundingClientRect();
      tip.style.left = `${Math.max(4, Math.min(at.left + 12, innerWidth - tip.offsetWidth - 8))}px`;
      tip.style.top = `${at.top > tip.offsetHeight + 12 ? at.top - tip.offsetHeight - 8 : at.bottom + 8}px`;
      rowOf.get(dot.dataset.id)?.node.classList.add("hot");
    };
    const drop = (event) => {
      const dot = event.target.closest?.(".dot");
      tip.hidden = true;
      if (dot) rowOf.get(dot.dataset.id)?.node.classList.remove("hot");
    };
    svg?.addEventListener("pointerover", show);
    svg?.addEventListener("focusin", show);
    svg?.addEventListener("pointerout", drop);
    svg?.addEventListener("focusout", drop);
    const glow = (event, on) => table.at.get(event.target.closest?.("tr.row"))?.dot?.classList.toggle("hot", on);
    for (const name of ["pointerover", "focusin"]) table.body.addEventListener(name, (event) => glow(event, true));
    for (const name of ["pointerout", "focusout"]) table.body.addEventListener(name, (event) => glow(event, false));
  }

  function jump(event) { // within the page, without losing the state that the address holds
    const link = event.target.closest?.('a[href^="#"]');
    if (!link) return;
    event.preventDefault();
    const name = link.getAttribute("href").slice(1);
    const row = name.startsWith("row-") ? rowOf.get(name.slice(4)) : undefined;
    const target = row ? reveal(row) : document.getElementById(name);
    target?.scrollIntoView({ block: row ? "center" : "start" });
    (row ? find('[data-do="open"]', row.node) : target)?.focus({ preventScroll: true });
  }

  function reveal(row) {
    if (row.away) { // whoever asks for a row wants it more than the filters
      for (const each of [search, ...filters]) each.value = "";
      refresh();
      remember();
    }
    const place = row.table.visible.indexOf(row);
    if (place >= row.table.limit) lay(row.table, place + 1);
    return row.node;
  }

  function keyed(event) {
    const typing = event.target.matches?.("input[type=search], select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); search.focus(); }
    if (event.key === "Escape" && compared.length === 2) leave();
  }

  function clear() {
    for (const table of tables) unsort(table);
    for (const row of rowOf.values()) if (row.open) toggle(row, false);
    mark([]);
    refresh();
    remember();
  }

  // The state in the address: #q=...&defense=...&sort=TABLE:COLUMN:down&open=ID&compare=ID&compare=ID

  function remember() {
    if (restoring) return;
    const state = new URLSearchParams();
    if (search.value) state.set("q", search.value);
    for (const select of filters) if (select.value) state.set(select.dataset.filter, select.value);
    for (const table of tables)
      if (table.sort) state.append("sort", [table.key, table.columns[table.sort.column][0], table.sort.backwards ? "back" : "first"].join(":"));
    for (const row of rowOf.values()) if (row.open) state.append("open", row.id);
    for (const row of compared) state.append("compare", row.id);
    const text = state.toString();
    try { history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search); } catch { /* a browser may forbid it for files */ }
  }

  function restore() {
    const hash = location.hash.slice(1);
    if (hash.startsWith("row-") || (hash && !hash.includes("="))) { // a place in the page
      refresh();
      const row = rowOf.get(decoded(hash.slice(4)));
      return hash.startsWith("row-") && row ? arrive(row) : undefined;
    }
    restoring = true;
    const state = new URLSearchParams(hash.length > LONGEST ? "" : hash);
    search.value = (state.get("q") ?? "").slice(0, 200);
    for (const select of filters) {
      const value = state.get(select.dataset.filter) ?? "";
      select.value = [...select.options].some((option) => option.value === value) ? value : "";
    }
    for (const table of tables) unsort(table);
    for (const text of state.getAll("sort")) sortAs(text.split(":"));
    const open = new Set(state.getAll("open").slice(0, 50));
    for (const row of rowOf.values()) if (row.open !== open.has(row.id)) toggle(row, open.has(row.id));
    const pair = state.getAll("compare").slice(0, 2).map((id) => rowOf.get(id)).filter((row) => row?.table.measured);
    mark(pair.length === 2 && pair[0] !== pair[1] && pair[0].table === pair[1].table ? pair : pair.slice(0, 1));
    refresh();
    restoring = false;
    const shown = [...rowOf.values()].filter((row) => row.open && !row.away);
    shown.forEach(reveal);
    if (shown.length) arrive(shown[0]);
  }

  function decoded(text) { try { return decodeURIComponent(text); } catch { return text; } }

  function arrive(row) {
    reveal(row).scrollIntoView({ block: "start", behavior: "instant" });
    find('[data-do="open"]', row.node).focus({ preventScroll: true });
  }

  function sortAs([key, name, way]) {
    const table = tables.find((each) => each.key === key);
    const column = table ? table.columns.findIndex((each) => each[0] === name) : -1;
    if (column >= 0) sort(table, column, way === "back");
  }

  // Light and dark

  function theme(name) {
    if (name) root.dataset.theme = name;
    const dark = name ? name === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const button = find("#theme");
    if (button) { button.textContent = dark ? "Light" : "Dark"; button.setAttribute("aria-pressed", String(dark)); }
    return dark;
  }

  function kept() { try { return { light: "light", dark: "dark" }[localStorage.getItem("awpbench-theme")]; } catch { return undefined; } }
  function keep(name) { try { localStorage.setItem("awpbench-theme", name); } catch { /* a browser may forbid it for files */ } }

  theme(kept());
  document.addEventListener("DOMContentLoaded", () => {
    theme(kept());
    find("#theme").addEventListener("click", () => { const next = theme(root.dataset.theme) ? "light" : "dark"; theme(next); keep(next); });
    try { start(); } catch (error) { root.classList.remove("js"); throw error; }
  });
})();
