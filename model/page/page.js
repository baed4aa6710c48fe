// What the pages share: asking the service, deciding labels, and building elements.
// Everything from a statement goes in as text nodes, never as HTML.

export const LABELS = ["position", "demand", "concession", "agreement", "none"];

export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (`data-…`, `aria-…`, `role`) and children (strings become text). */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

let token = sessionStorage.getItem("communique-token") ?? "";

/** JSON from the service for a JSON body, or for a file. An error's message is its one line. Shows the
 *  token field where one is needed. */
export async function ask(path, body, kind = "application/json") {
  const headers = { "content-type": kind };
  // A header takes bytes: those of UTF-8, whatever the token is written in.
  if (token) headers.authorization = `Bearer ${String.fromCharCode(...new TextEncoder().encode(token))}`;
  let answer;
  try {
    const sent = body instanceof Blob ? body : JSON.stringify(body);
    answer = await fetch(path, body ? { method: "POST", headers, body: sent } : { headers });
  } catch {
    throw new Error("The service does not answer: is it still running?");
  }
  if (answer.status === 401) byId("token-form").hidden = false;
  const value = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(value.error ?? `status ${answer.status}`);
  byId("token-form").hidden = true;
  return value;
}

/** Keep the token for this tab and try again. */
export function onToken(retry) {
  byId("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    sessionStorage.setItem("communique-token", token);
    retry();
  });
}

/** The record's label at a threshold: as the model decides, but from the rounded probabilities. */
export function decide(record, threshold, weights) {
  const share = (label) => record[`p_${label}`] * weights[LABELS.indexOf(label)];
  const best = LABELS.reduce((a, b) => (share(b) > share(a) ? b : a));
  const even = weights.every((weight) => weight === 1);
  const sum = even ? 1 : LABELS.reduce((total, label) => total + share(label), 0);
  return share(best) >= threshold * sum ? best : "none";
}

/** The most probable label besides the one given. */
export function runnerUp(record, label) {
  return LABELS.filter((l) => l !== label).reduce((a, b) => (record[`p_${b}`] > record[`p_${a}`] ? b : a));
}

export const percent = (p) => `${Math.round(p * 100)}\u00a0%`;

/** Fill a bar with the share of each label; its text says the same. */
export function composition(bar, labels) {
  const counts = LABELS.map((l) => [l, labels.filter((x) => x === l).length]);
  const parts = counts.filter(([, n]) => n);
  bar.replaceChildren(...parts.map(([l, n]) => {
    const part = make("span", { className: `part ${l}`, title: `${l}: ${n}` }, `${n}`);
    part.style.flexGrow = n;
    return part;
  }));
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `Sentences: ${parts.map(([l, n]) => `${n} ${l}`).join(", ") || "none"}`);
}

/** Well-formed text: half a surrogate pair is no character, and the service refuses it. */
export const wellFormed = (text) => (text.toWellFormed ? text.toWellFormed() : text);

const BLOCKS = "p, h1, h2, h3, h4, h5, h6, li, blockquote, td, th, dt, dd, pre, div, section, article";

const READ_THERE = {
  pdf: "application/pdf",
  docx: "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
};

/** A file's statement. The service reads .docx and .pdf; HTML is reduced to its prose here, by a parser that
 *  runs and loads nothing. */
export async function readFile(file) {
  const kind = READ_THERE[file.name.split(".").pop().toLowerCase()];
  if (kind) return (await ask("/v1/extract", file, kind)).text;
  const text = await file.text();
  if (text.includes("\0")) throw new Error(`${file.name}: is a binary file; save it as text, HTML, .docx or .pdf`);
  if (!/\.x?html?$/i.test(file.name) && !/^\s*<(!doctype html|html|head|body|article|div|p[ >])/i.test(text)) return text;
  const page = new DOMParser().parseFromString(text, "text/html");
  const dropped = "nav, aside, header, footer, form, script, style, noscript, template, [role=navigation], [aria-hidden=true]";
  page.querySelectorAll(dropped).forEach((e) => e.remove());
  page.querySelectorAll("br").forEach((e) => e.replaceWith("\n"));
  const main = page.querySelector("article, main, [role=main]") ?? page.body;
  main.querySelectorAll(BLOCKS).forEach((e) => { e.prepend("\n\n"); e.append("\n\n"); });
  const lines = main.textContent.split(/\n\s*\n/).map((line) => line.replace(/\s+/g, " ").trim());
  return lines.filter(Boolean).join("\n\n");
}

/** Let a part of the page take a file: dropped on it, or chosen with an input. */
export function onFile(area, input, take) {
  input.addEventListener("change", () => { if (input.files[0]) take(input.files[0]); input.value = ""; });
  area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("over"); });
  area.addEventListener("dragleave", () => area.classList.remove("over"));
  area.addEventListener("drop", (event) => {
    area.classList.remove("over");
    if (event.dataTransfer.files.length) { event.preventDefault(); take(event.dataTransfer.files[0]); }
  });
}

/** Put text on the clipboard, also where the page is not served securely. */
export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { value: text, className: "unseen" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

export const EXAMPLE_A = `Readout of the call between the Foreign Ministers of Ardenia and Belmar

The Foreign Minister of Ardenia spoke by telephone with her counterpart from Belmar on Tuesday.

Ardenia holds that the borders in the Lower Strait may not be moved by force. The Minister condemned the seizure of the trawler Halcyon as a breach of the Navigation Accord. She called on Belmar to release the eleven crew members without delay. She also asked that the inspection report be shared before the end of the month.

For her part, the Minister announced that Ardenia will suspend the port fees to which Belmar had objected.

The two sides agreed to reopen the joint maritime hotline by 1 June. A second call is planned for next week.`;

export const EXAMPLE_B = `Belmar's statement on the conversation with Ardenia

The Foreign Minister of Belmar received a call from his counterpart in Ardenia.

He rejected the claim that the coast guard had acted outside the law. Belmar expects Ardenia to lift the port fees at once and to end patrols near the Outer Banks. As a gesture of goodwill, Belmar will allow a consular visit to the crew, which it had declined until now.

Both ministers agreed that the maritime hotline will be reopened by 1 June.`;
