// Two statements side by side: what each asked, conceded and agreed.

import { EXAMPLE_A, EXAMPLE_B, ask, byId, composition, make, onFile, onToken, percent, readFile, wellFormed } from "./page.js";

const ROWS = [["demand", "Asked"], ["concession", "Conceded"], ["agreement", "Agreed"], ["position", "Held"]];
let turn = 0;  // of the last comparison: what earlier ones bring is dropped
const reading = [0, 0];  // the same of each side's files
const status = (text) => { byId("status").textContent = text; };

async function compare() {
  const mine = ++turn;
  const texts = [0, 1].map((i) => wellFormed(byId(`text-${i}`).value));
  const empty = texts.findIndex((text) => !text.trim());
  if (empty >= 0) { status("Paste both statements first."); byId(`text-${empty}`).focus(); return; }
  status("Labelling…");
  try {
    const { records } = await ask("/v1/label", { documents: texts.map((text, i) => ({ id: String(i), text })) });
    if (mine !== turn) return;
    draw([0, 1].map((i) => records.filter((r) => r.doc_id === String(i))));
    status("");
    byId("result").scrollIntoView({ block: "start" });
  } catch (error) {
    if (mine === turn) status(error.message);
  }
}

function draw(sides) {
  const names = [0, 1].map((i) => byId(`name-${i}`).value.trim() || ["First side", "Second side"][i]);
  const heads = make("div", { className: "pair heads" }, ...sides.map((side, i) => {
    const bar = make("div", { className: "composition" });
    composition(bar, side.map((r) => r.label));
    return make("section", { "aria-label": names[i] }, make("h3", {}, names[i]), bar);
  }));
  const rows = ROWS.map(([label, title]) => make("section", { className: "row-of-two" },
    make("h3", {}, make("span", { className: `mark ${label}`, "aria-hidden": "true" }), title),
    make("div", { className: "pair" }, ...sides.map((side, i) => column(side.filter((r) => r.label === label), label, names[i])))));
  byId("result").replaceChildren(heads, ...rows);
  byId("result").hidden = false;
}

function column(found, label, name) {
  const items = found.map((r) => make("li", { className: label }, r.text, " ", make("span", { className: "hint" }, percent(r[`p_${label}`]))));
  const list = items.length ? make("ul", { className: "found" }, ...items) : make("p", { className: "hint" }, "Nothing found.");
  return make("div", {}, make("h4", {}, name), list);
}

byId("go").addEventListener("click", () => { again = compare; compare(); });
byId("example").addEventListener("click", () => {
  [["Ardenia", EXAMPLE_A], ["Belmar", EXAMPLE_B]].forEach(([name, text], i) => { byId(`name-${i}`).value = name; byId(`text-${i}`).value = text; reading[i]++; });
  again = compare;
  compare();
});
let again = compare;  // what to do once a token is given

async function take(i, file) {
  const mine = ++reading[i];
  again = () => take(i, file);
  status(`Reading ${file.name}…`);
  try {
    const text = await readFile(file);
    if (mine !== reading[i]) return;
    byId(`text-${i}`).value = text;
    again = compare;
    status("");
  } catch (error) {
    if (mine === reading[i]) status(error.message);
  }
}

[0, 1].forEach((i) => onFile(byId(`side-${i}`), byId(`file-${i}`), (file) => take(i, file)));
onToken(() => again());
if (location.hash === "#example") byId("example").click();
