// The map of an address space: a table is drawn when it is opened, with the address and the rights
// of the way that led to it.  What it is drawn from is described in harness/report/html/space_map.py.
"use strict";
(() => {
  const data = document.getElementById("data");
  if (!data) return;
  const map = JSON.parse(data.textContent);
  const ALL = (1 << map.rights.length) - 1;
  const SHOWN = 32;  // addresses of a frame
  const FOLDED = 4;  // pieces that are shown as one until they are opened

  const hex = (number) => "0x" + number.toString(16);
  const big = (digits) => BigInt("0x" + digits);
  const word = (number) => BigInt.asUintN(64, number);
  const grouped = (digits) => String(digits).replace(/\B(?=(\d{3})+$)/g, ",");

  const pagesOf = (count) => `${grouped(count)} ${count === "1" ? "page" : "pages"}`;

  function units(bytes) {
    const names = ["", "K", "M", "G", "T", "P"];
    let size = BigInt(bytes), unit = 0;
    while (size && unit < names.length - 1 && size % 1024n === 0n) { size /= 1024n; unit++; }
    return grouped(size) + names[unit];
  }

  function make(tag, kind, ...children) {
    const made = document.createElement(tag);
    if (kind) made.className = kind;
    made.append(...children);
    return made;
  }

  function drawn(tag, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  // ---- what the tables say ----

  const tables = map.tables.map(([level, address, paths, pages, bytes, below, first, stop, runs]) => ({
    level, paths, pages, bytes, below, first, stop,
    address: big(address), name: map.levels[level][0], entry: map.levels[level][3], shift: BigInt(map.levels[level][1]),
    entries: map.levels[level][2], packed: runs, read: null,
  }));

  function runsOf(table) {
    table.read ??= table.packed === "" ? [] : table.packed.split(";").map((run) => {
      const [index, count, kind, holds] = run.split(",");
      const [what, rights, text, step] = map.kinds[kind];
      const one = {index: Number(index), count: Number(count), what, rights, text, step: big(step)};
      if (what === "table") one.child = Number(holds);
      else one.holds = big(holds);
      return one;
    });
    return table.read;
  }

  const isPage = (run) => !["table", "malformed", "unbacked"].includes(run.what);
  // The effective rights of a page, by those that the way and its own entry give together.
  const effective = (rights) => map.effective[rights];
  const under = (table, given) => [...new Set(table.below.map((rights) => effective(rights & given)))];

  function letters(rights) {
    return [...map.rights].map((one, bit) => (rights >> bit & 1 ? one : "-")).join("");
  }

  function tone(rights) {
    const has = (letter) => map.rights.includes(letter) && rights >> map.rights.indexOf(letter) & 1;
    const executes = has("x") || has("k");
    const kind = has("w") ? (executes ? "wx" : "w") : executes ? "x" : "ro";
    return has("u") ? kind + " user" : kind;
  }

  const chips = (sets) => sets.map((rights) => make("span", "rights " + tone(rights), letters(rights)));

  // ---- drawing ----

  // A table as it is reached on one way: `base` is the address that slot 0 spans.
  function node(table, base, given, title = "", register = "") {
    const made = make("div", "node"), rows = runsOf(table);
    made.style.setProperty("--depth", tables[0].level - table.level);
    const rest = [`level ${table.level}`];
    if (!title) rest.push(`${pagesOf(table.pages)}, ${units(table.bytes)}`);
    if (table.paths !== "1") rest.push(`reached in ${grouped(table.paths)} ways`);
    const from = title ? [make("span", "title", register), make("span", "rest", `→ ${table.name}`)] : [];
    made.append(make("div", "about", ...from,
      make("span", title ? "title mono" : "title", title || table.name),
      make("span", "mono", hex(table.address)),
      make("span", "rest", rest.join(" · "))));
    made.append(strip(table, rows, given));
    made.rows = new Map();
    for (const alike of grouping(rows)) {
      const drawn = alike.map((run) => row(table, run, base, given));
      alike.forEach((run, place) => made.rows.set(run.index, drawn[place]));
      if (alike.length < FOLDED) made.append(...drawn);
      else made.append(scattered(table, alike, base, given, drawn));
    }
    if (!rows.length) made.append(make("p", "note", "Nothing here is present."));
    return made;
  }

  // Neighbouring pages that differ in nothing but where their frames are, together.
  function grouping(rows) {
    const groups = [];
    for (const run of rows) {
      const group = groups.at(-1), before = group?.at(-1);
      const joins = before && isPage(run) && before.index + before.count === run.index
        && ["what", "rights", "text"].every((name) => before[name] === run[name]);
      if (joins) group.push(run);
      else groups.push([run]);
    }
    return groups;
  }

  function scattered(table, runs, base, given, drawn) {
    const count = runs.reduce((sum, run) => sum + run.count, 0);
    const whole = {...runs[0], count, pieces: runs.length};
    return make("details", "group", make("summary", "row", ...cells(table, whole, base, given)), ...drawn);
  }

  function strip(table, rows, given) {
    const {first, stop} = table, many = stop - first;
    const made = drawn("svg", {class: "strip", viewBox: `0 0 ${many} 18`, preserveAspectRatio: "none", "aria-hidden": "true"});
    made.append(drawn("rect", {class: "ground", x: 0, y: 0, width: many, height: 18}));
    const least = many / 900;
    for (const run of rows) {
      const x = run.index - first, width = Math.max(run.count, least);
      if (run.what === "malformed") {
        made.append(drawn("rect", {class: "bad", x, y: 1, width, height: 16}));
        continue;
      }
      if (run.what === "unbacked") continue;
      const child = run.what === "table" ? tables[run.child] : null;
      const sets = child ? under(child, given & run.rights) : [effective(given & run.rights)];
      sets.forEach((rights, place) => {
        const kind = tone(rights), user = kind.includes("user");
        const height = (user ? 18 : 9) / sets.length, low = 18 - place * (18 / sets.length);
        made.append(drawn("rect", {class: kind, x, y: low - height, width, height}));
      });
    }
    return made;
  }

  function cells(table, run, base, given) {
    const from = word(base + (BigInt(run.index) << table.shift));
    const size = 1n << table.shift;
    const slots = run.count === 1 ? `${run.index}` : `${run.index}–${run.index + run.count - 1}`;
    const rights = given & run.rights;
    const child = run.what === "table" ? tables[run.child] : null;
    const sets = child ? under(child, rights) : isPage(run) ? [effective(rights)] : [];
    const extent = run.count === 1 ? units(size) : `${run.count} × ${units(size)}`;
    return [
      make("span", "mono slot", slots), make("span", "mono from", hex(from)),
      make("span", "mono extent", extent), make("span", "given", ...chips(sets)),
      make("span", "holds", ...holds(table, run, child)),
    ];
  }

  function row(table, run, base, given) {
    const child = run.what === "table" ? tables[run.child] : null;
    if (!child) return make("div", "row", ...cells(table, run, base, given));
    const rights = given & run.rights;
    const made = make("details", "", make("summary", "row", ...cells(table, run, base, given)));
    // The table below, as it is reached through one of the slots of the run.
    let shown = null;
    made.show = (slot) => {
      if (shown === slot) return;
      shown = slot;
      made.querySelector(":scope > .node")?.remove();
      made.append(node(child, word(base + (BigInt(slot) << table.shift)), rights));
    };
    made.addEventListener("toggle", () => { if (made.open && shown === null) made.show(run.index); });
    return made;
  }

  function holds(table, run, child) {
    if (child) {
      const folded = run.count > 1 ? `${run.count} slots lead to one ` : "";
      const said = [make("span", "", `${folded}${child.name} `), make("span", "mono", hex(child.address))];
      const shared = child.paths === "1" ? "" : `, reached in ${grouped(child.paths)} ways`;
      if (run.text) said.push(make("span", "", `, ${run.text},`));
      said.push(make("span", "quiet", ` ${pagesOf(child.pages)}, ${units(child.bytes)}${shared}`));
      return said;
    }
    if (run.what === "table") return [make("span", "bad", "a table that is not shown: there are too many")];
    if (run.what === "malformed") return [make("span", "bad", run.text)];
    if (run.what === "unbacked") return [make("span", "bad", run.text)];
    const part = run.what !== units(1n << table.shift) ? "slots of " : "";
    const many = run.count === 1 && !part ? `${run.what} page ` : `${run.count} ${part}${run.what} pages `;
    const bits = make("span", "mono quiet", ` ${run.text}`);
    if (run.pieces) return [make("span", "quiet", `${many}in ${run.pieces} pieces`), bits];
    const how = run.count > 1 && run.step === 0n ? ", all the same" : "";
    return [make("span", "quiet", many), make("span", "mono", hex(run.holds)), make("span", "quiet", how), bits];
  }

  const tree = document.getElementById("tree");
  const roots = map.roots.map(([first, last, base, register], number) => {
    const element = node(tables[number], big(base), ALL, `${hex(big(first))} to ${hex(big(last))}`, register);
    tree.append(element);
    return {table: tables[number], first: big(first), last: big(last), base: big(base), element, register};
  });
  if (map.unread) {
    const many = grouped(map.unread);
    tree.append(make("p", "note", `${many} slots lead to tables that are not shown: there are too many.`));
  }

  // ---- searching ----

  const answer = document.getElementById("answer"), places = document.getElementById("places");
  let marked = null;

  function mark(element) {
    if (marked) { marked.classList.remove("hit"); marked.removeAttribute("aria-current"); }
    marked = element && (element.tagName === "DETAILS" ? element.querySelector("summary") : element);
    if (!marked) return;
    const group = marked.closest("details.group");
    if (group) group.open = true;
    marked.classList.add("hit");
    marked.setAttribute("aria-current", "true");
    marked.scrollIntoView({block: "center", inline: "nearest"});
  }

  // The picture and the title of a page about one address: as they came, or of another address.
  const first = document.getElementById("map").dataset.at;
  const title = document.getElementById("asked"), said = document.getElementById("said");
  const way = document.getElementById("way");
  const came = title && {title: document.title, said: [...said.childNodes]};

  function show(address, steps, text) {
    if (!title) return;
    const same = hex(address) === first;
    for (const section of document.querySelectorAll("section.asked")) section.hidden = !same;
    title.textContent = hex(address);
    document.title = same ? came.title : came.title.replace(/0x[0-9a-f]+/, hex(address));
    said.replaceChildren(...(same ? came.said : [make("p", "answer", text)]));
    way.hidden = same;
    const from = roots.find((one) => one.first <= address && address <= one.last);
    way.replaceChildren(...(same || !from ? [] : [make("span", "step mono", from.register), ...steps]));
  }

  const step = (name, place, what, rights) => make("span", "step",
    make("b", "", name), make("span", "mono", place), make("span", "mono quiet", what), ...chips(rights));

  function goTo(address) {
    const steps = [], text = followed(address, steps);
    show(address, steps, text);
    return text;
  }

  function followed(address, steps) {
    const root = roots.find((one) => one.first <= address && address <= one.last);
    mark(null);
    if (!root) return `${hex(address)} is in no root's span: no table translates it.`;
    let {table, element, base} = root, given = ALL, above = null;
    for (;;) {
      const slot = Number((address - base >> table.shift) & BigInt(table.entries - 1));
      const where = `${table.entry} ${slot} of the ${table.name} at ${hex(table.address)}`;
      const run = runsOf(table).find((one) => one.index <= slot && slot < one.index + one.count);
      steps.push(step(table.name, hex(table.address), `${table.entry} ${slot}`, run ? [(isPage(run) ? effective : Number)(given & run.rights)] : []));
      if (!run) { mark(above); steps.push(step("not present", "", "", [])); return `Nothing is at ${hex(address)}: ${where} is not present.`; }
      const found = element.rows.get(run.index);
      given &= run.rights;
      base = word(base + (BigInt(slot) << table.shift));
      if (run.what === "table" && run.child >= 0) {
        found.show(slot);
        found.open = true;
        [table, element, above] = [tables[run.child], found.querySelector(":scope > .node"), found];
        continue;
      }
      mark(found);
      if (!isPage(run)) steps.push(step(failing(run), "", "", []));
      if (!isPage(run)) return `No page is at ${hex(address)}: ${where} ${failing(run)}.`;
      const offset = address & (1n << table.shift) - 1n;
      const physical = run.holds + BigInt(slot - run.index) * run.step + offset;
      given = effective(given);
      steps.push(step(`${run.what} page`, hex(physical), "", [given]));
      return `${hex(address)} is ${hex(physical)} in physical memory: a ${run.what} page, ${letters(given)}.`;
    }
  }

  function failing(run) {
    if (run.what === "unbacked") return "has no memory behind it";
    return run.what === "table" ? "leads to a table that is not shown" : "is malformed";
  }

  let parents = null;
  function parentsOf(table) {
    if (!parents) {
      parents = new Map(tables.map((one) => [one, []]));
      for (const one of tables) for (const run of runsOf(one))
        if (run.what === "table" && run.child >= 0) parents.get(tables[run.child]).push([one, run]);
    }
    return parents.get(table);
  }

  // The addresses that slot 0 of a table spans, on the first ways that lead to it.
  function* bases(table) {
    for (const root of roots) if (root.table === table) yield root;
    for (const [above, run] of parentsOf(table))
      for (const way of bases(above))
        for (let slot = run.index; slot < run.index + run.count; slot++) {
          const base = word(way.base + (BigInt(slot) << above.shift));
          if (way.first <= base && base <= way.last) yield {...way, base};
        }
  }

  function findPhysical(address) {
    const found = [];
    let total = 0n;
    for (const table of tables) for (const run of runsOf(table)) {
      if (!isPage(run)) continue;
      const size = 1n << table.shift, same = run.step === 0n;
      const offset = address - run.holds;
      if (offset < 0n || offset >= (same ? size : size * BigInt(run.count))) continue;
      const slots = same ? run.count : 1;
      const first = run.index + (same ? 0 : Number(offset / size));
      total += BigInt(table.paths) * BigInt(slots);
      if (found.length >= SHOWN) continue;
      for (const way of bases(table)) {
        for (let slot = first; slot < first + slots && found.length < SHOWN; slot++) {
          const at = word(way.base + (BigInt(slot) << table.shift) + offset % size);
          if (way.first <= at && at <= way.last) found.push(at);
        }
        if (found.length >= SHOWN) break;
      }
    }
    const own = tables.find((one) => one.address === address || (address > one.address && address < one.address + BigInt(one.entries * map.bytes)));
    const table = own ? ` It is in the ${own.name} at ${hex(own.address)}.` : "";
    for (const at of found) {
      const button = make("button", "", hex(at));
      button.type = "button";
      button.addEventListener("click", () => { answer.textContent = goTo(at); });
      places.append(button);
    }
    if (!found.length) return `No page maps ${hex(address)}.${table}`;
    const more = total > BigInt(found.length) ? `, of which ${found.length} are listed` : "";
    const many = total === 1n ? "1 virtual address" : `${grouped(total)} virtual addresses`;
    return `${hex(address)} is mapped at ${many}${more}.${table}`;
  }

  function search(text, physical) {
    places.replaceChildren();
    const digits = text.trim().replace(/[_`\s]/g, "").replace(/^0x/i, "");
    if (!/^[0-9a-f]{1,16}$/i.test(digits)) {
      mark(null);
      return "This is no address: write it in hexadecimal digits, like 0xffff800000000000.";
    }
    return physical ? findPhysical(big(digits)) : goTo(big(digits));
  }

  const form = document.getElementById("search");
  const query = document.getElementById("query"), space = document.getElementById("space");
  form.hidden = false;
  document.getElementById("legend").hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer.textContent = search(query.value, space.value === "physical");
  });

  if (first) {
    query.value = first;
    answer.textContent = search(first, false);
    scrollTo(0, 0);
    tree.scrollLeft = 0;
  }
})();
