// The API, drawn from the service's own OpenAPI document.

import { byId, make } from "./page.js";

const api = await (await fetch("/openapi.json")).json();
const schemas = api.components.schemas;
const plain = (text = "") => text.replaceAll("`", "");
const nameOf = (schema) => schema.$ref?.split("/").pop();

function kind(schema) {
  if (nameOf(schema)) return nameOf(schema);
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  return schema.type === "array" ? `list of ${kind(schema.items)}` : schema.type ?? "any";
}

function table(name) {
  const fields = Object.entries(schemas[name].properties ?? {});
  const rows = fields.map(([field, s]) => make("tr", {}, make("th", { scope: "row" }, make("code", {}, field)), make("td", {}, kind(s)), make("td", {}, plain(s.description))));
  const head = make("tr", {}, ...["Field", "Type", "Meaning"].map((t) => make("th", { scope: "col" }, t)));
  const examples = (schemas[name].examples ?? []).map((e) => make("pre", { tabIndex: 0 }, make("code", {}, JSON.stringify(e, null, 2))));
  return make("section", {}, make("h3", { id: name }, name), make("p", {}, plain(schemas[name].description)),
    make("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": `Fields of ${name}` }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))), ...examples);
}

function endpoint(path, method, about) {
  const content = about.requestBody?.content ?? {};
  const body = content["application/json"]?.schema;
  const files = Object.keys(content).filter((type) => type !== "application/json");
  const answers = Object.entries(about.responses).map(([status, r]) => make("li", {}, make("strong", {}, status), ` ${plain(r.description)}`));
  return make("section", {}, make("h3", {}, make("code", {}, `${method.toUpperCase()} ${path}`)), make("p", {}, about.summary ?? ""), make("p", { className: "hint" }, about.description ?? ""),
    ...(body ? [make("p", {}, "Body: ", make("a", { href: `#${nameOf(body)}` }, nameOf(body)))] : []),
    ...(files.length ? [make("p", {}, "Body: a file, ", files.join(" or "))] : []), make("ul", {}, ...answers));
}

byId("curl").textContent = `curl --json '{"text": "Ardenia urges Belmar to free the crew."}' ${location.origin}/v1/label`;
byId("api").append(...Object.entries(api.paths).flatMap(([path, methods]) => Object.entries(methods).map(([m, a]) => endpoint(path, m, a))),
  make("h2", {}, "Bodies and answers"), ...Object.keys(schemas).map(table));
