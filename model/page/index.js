// The page for one statement: prose with each sentence marked, lists, threshold, download.

import { EXAMPLE_A, LABELS, ask, byId, composition, copy, decide, make, onFile, onToken, percent, readFile, runnerUp, wellFormed } from "./page.js";

let records = [];
let statement = [];  // code points, which the records' offsets count
let ownThreshold = 0;
let weights = LABELS.map(() => 1);
let current = 0;
let turn = 0;  // of the last request for a text: what earlier ones bring is dropped

const status = (text) => { byId("status").textContent = text; };
const threshold = () => Number(byId("threshold").value);
// At the model's own threshold its label stands: it was decided before rounding.
const labelOf = (record) => (threshold() === ownThreshold ? record.label : decide(record, threshold(), weights));
const sentences = () => [...byId("prose").querySelectorAll(".s")];

async function label() {
  const mine = ++turn;
  const text = wellFormed(byId("text").value);
  byId("go").disabled = Boolean(text.trim());
  if (!text.trim()) { status("Paste a statement first."); byId("text").focus(); return; }
  status("Labelling…");
  try {
    const model = await ask("/v1/model");
    const answer = await ask("/v1/label", { text });
    if (mine !== turn) return;
    ownThreshold = model.calibration.threshold;
    weights = model.calibration.label_weights;
    byId("threshold").step = "any";
    byId("threshold").value = ownThreshold;
    records = answer.records;
    statement = Array.from(text);
    byId("version").textContent = `Model ${answer.model_version}. Labels are a model's estimates: read the sentence before you quote it.`;
    byId("result").hidden = false;
    status(`${records.length} sentence${records.length === 1 ? "" : "s"} labelled.`);
    current = 0;
    draw();
    byId("result").scrollIntoView({ block: "start" });
  } catch (error) {
    if (mine === turn) status(error.message);
  } finally {
    if (mine === turn) byId("go").disabled = false;
  }
}

function draw() {
  const nodes = [];
  let at = 0;
  records.forEach((record, i) => {
    nodes.push(statement.slice(at, record.start).join(""));
    const words = statement.slice(record.start, record.end).join("");
    nodes.push(make("span", { className: "s", tabIndex: i === current ? 0 : -1, "data-i": i, role: "mark" },
      make("span", { className: "unseen said" }), make("span", { className: "mark", "aria-hidden": "true" }), words));
    at = record.end;
  });
  nodes.push(statement.slice(at).join(""));
  byId("prose").replaceChildren(...nodes);
  relabel();
}

function relabel() {
  byId("threshold-value").textContent = threshold().toFixed(2) + (threshold() === ownThreshold ? " (the model's own)" : "");
  const labels = records.map(labelOf);
  sentences().forEach((s, i) => {
    s.className = `s ${labels[i]}`;
    s.querySelector(".mark").className = `mark ${labels[i]}`;
    s.querySelector(".said").textContent = labels[i] === "none" ? "" : `${labels[i]}: `;
  });
  composition(byId("composition"), labels);
  for (const l of LABELS) {
    const n = labels.filter((x) => x === l).length;
    byId(`count-${l}`).textContent = n;
  }
  for (const l of ["demand", "concession"]) {
    const found = records.filter((_, i) => labels[i] === l);
    byId(`list-${l}`).replaceChildren(...found.map((r) => make("li", {}, r.text)));
    document.querySelector(`[data-copy=${l}]`).disabled = !found.length;
    if (!found.length) byId(`list-${l}`).append(make("li", { className: "hint empty" }, "None found."));
  }
  filter();
}

function filter() {
  for (const l of LABELS) byId("prose").classList.toggle(`hide-${l}`, !byId(`show-${l}`).checked);
}

function show(i) {
  const record = records[i];
  const label = labelOf(record);
  const other = runnerUp(record, label);
  const sure = record[`p_${label}`];
  const head = make("p", {}, make("span", { className: `mark ${label}`, "aria-hidden": "true" }), make("strong", {}, label), ` ${percent(sure)}, runner-up ${other} ${percent(record[`p_${other}`])}`);
  if (record.truncated) head.append(" (longer than the model reads)");
  const bars = make("div", { className: "bars", "aria-hidden": "true" }, ...LABELS.map((l) => {
    const bar = make("span", { className: `part ${l}` });
    bar.style.width = `${record[`p_${l}`] * 100}%`;
    return make("span", { className: "row" }, make("span", {}, l), make("span", { className: "track" }, bar), make("span", {}, percent(record[`p_${l}`])));
  }));
  byId("detail").replaceChildren(head, bars, make("button", { type: "button", className: "close", "aria-label": "Close", onclick: hide }, "×"));
  byId("detail").hidden = false;
  document.querySelector(".s.current")?.classList.remove("current");
  sentences()[i].classList.add("current");
}

function hide() {
  byId("detail").hidden = true;
  document.querySelector(".s.current")?.classList.remove("current");
}

function move(event) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  if (event.key === "Escape") { hide(); return; }
  const all = sentences();
  let next = event.key === "Home" ? 0 : event.key === "End" ? all.length - 1 : current + (steps[event.key] ?? NaN);
  while (all[next] && all[next].offsetParent === null) next += steps[event.key] ?? 1;
  if (!all[next]) return;
  event.preventDefault();
  all[next].focus();
}

function focused(event) {
  const s = event.target.closest(".s");
  if (!s) return;
  sentences()[current].tabIndex = -1;
  current = Number(s.dataset.i);
  s.tabIndex = 0;
  show(current);
}

function download(name, kind, text) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

const shown = () => records.map((record) => ({ ...record, label: labelOf(record) }));
const cell = (value) => (/[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
function csv() {
  const rows = shown();
  return [Object.keys(rows[0] ?? {}), ...rows.map(Object.values)].map((row) => row.map(cell).join(",") + "\r\n").join("");
}

let again = label;  // what to do once a token is given

async function take(file) {
  const mine = ++turn;
  again = () => take(file);
  byId("go").disabled = false;
  status(`Reading ${file.name}…`);
  try {
    const text = await readFile(file);
    if (mine !== turn) return;
    byId("text").value = text;
    again = label;
    await label();
  } catch (error) {
    if (mine === turn) status(error.message);
  }
}

for (const l of LABELS) {
  const box = make("input", { type: "checkbox", id: `show-${l}`, checked: true, onchange: filter });
  byId("filter").append(make("label", { className: "chip" }, box, make("span", { className: `mark ${l}`, "aria-hidden": "true" }), l, " ", make("span", { id: `count-${l}`, className: "count" }, "0")));
}
byId("go").addEventListener("click", () => { again = label; label(); });
byId("example").addEventListener("click", () => { byId("text").value = EXAMPLE_A; again = label; label(); });
onFile(byId("entry"), byId("file"), take);
byId("threshold").addEventListener("input", () => { byId("threshold").step = "0.01"; hide(); relabel(); });
byId("prose").addEventListener("keydown", move);
byId("prose").addEventListener("focusin", focused);
byId("prose").addEventListener("mouseover", (event) => { const s = event.target.closest(".s"); if (s) show(Number(s.dataset.i)); });
byId("prose").addEventListener("click", (event) => { const s = event.target.closest(".s"); if (s) show(Number(s.dataset.i)); });
document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
  const found = shown().filter((r) => r.label === button.dataset.copy);
  await copy(found.map((r) => r.text).join("\n"));
  status(`${found.length} copied.`);
}));
byId("csv").addEventListener("click", () => download("communique.csv", "text/csv", csv()));
byId("jsonl").addEventListener("click", () => download("communique.jsonl", "application/x-ndjson", shown().map((r) => JSON.stringify(r) + "\n").join("")));
onToken(() => again());
if (location.hash === "#example") byId("example").click();
