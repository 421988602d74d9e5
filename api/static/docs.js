"use strict";
// Renders /openapi.json. Texts are set as text, never as HTML; of Markdown only what the specification uses is known.

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

const inline = (text) =>
  text.split(/(`[^`]*`|\*\*[^*]*\*\*|\[[^\]]*\]\([^)]*\))/).map((piece) => {
    const link = piece.match(/^\[([^\]]*)\]\(\/?([^)]*)\)$/);
    if (link) return make("a", { href: link[2] }, ...inline(link[1]));
    if (/^`.*`$/s.test(piece)) return make("code", {}, piece.slice(1, -1));
    if (/^\*\*.*\*\*$/s.test(piece)) return make("strong", {}, piece.slice(2, -2));
    return piece;
  });

const prose = (text = "") =>
  text.split(/\n\n+/).filter(Boolean).map((block) =>
    /^1\. /.test(block)
      ? make("ol", {}, ...block.split("\n").map((line) => make("li", {}, ...inline(line.replace(/^\d+\. /, "")))))
      : make("p", {}, ...inline(block)));

const schemaName = (schema = {}) => {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.oneOf || schema.anyOf) return (schema.oneOf || schema.anyOf).map(schemaName).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.type === "array") return `[${schemaName(schema.items)}]`;
  const limits = ["minimum", "maximum", "default"].filter((key) => key in schema).map((key) => `${key} ${schema[key]}`);
  return [schema.type, ...limits].filter(Boolean).join(", ");
};

const examples = (content) =>
  Object.entries(content.examples || {}).map(([name, example]) =>
    make("details", {}, make("summary", {}, make("code", {}, name), ` ${example.summary}`),
      make("pre", {}, make("code", {}, JSON.stringify(example.value, null, 2)))));

const operationCard = (path, method, operation, resolve) => {
  const card = make("details", { id: operation.operationId },
    make("summary", {}, make("span", { class: `method ${method}` }, method.toUpperCase()), make("code", {}, path),
      make("span", { class: "about" }, operation.summary)),
    ...prose(operation.description));
  const parameters = operation.parameters.map(resolve);
  if (parameters.length) {
    card.append(make("h3", {}, "Parameters"), make("table", {}, ...parameters.map((parameter) => make("tr", {},
      make("td", {}, make("code", {}, parameter.name)), make("td", {}, parameter.in + (parameter.required ? ", required" : "")),
      make("td", {}, schemaName(parameter.schema)), make("td", {}, ...inline(parameter.description || ""))))));
  }
  if (operation.requestBody) {
    for (const content of Object.values(operation.requestBody.content)) {
      card.append(make("h3", {}, `Request: ${schemaName(content.schema)}`), ...examples(content));
    }
  }
  card.append(make("h3", {}, "Answers"));
  for (const [status, answer] of Object.entries(operation.responses)) {
    for (const content of Object.values(answer.content)) {
      card.append(make("details", {}, make("summary", {}, make("strong", {}, status), ` ${schemaName(content.schema)}`),
        ...prose(answer.description), ...examples(content)));
    }
  }
  card.dataset.words = JSON.stringify([path, method, operation.summary, operation.tags, Object.keys(operation.responses)])
    .toLowerCase();
  return card;
};

const render = (specification) => {
  const resolve = (part) => part.$ref
    ? part.$ref.slice(2).split("/").reduce((place, key) => place[key], specification) : part;
  const root = document.getElementById("operations");
  root.replaceChildren();
  document.getElementById("about").append(...prose(specification.info.description));
  for (const tag of specification.tags) {
    const section = make("section", {}, make("h2", {}, tag.name), make("p", {}, ...inline(tag.description)));
    for (const [path, methods] of Object.entries(specification.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags.includes(tag.name)) section.append(operationCard(path, method, operation, resolve));
      }
    }
    root.append(section);
  }
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim().toLowerCase();
    for (const card of root.querySelectorAll("section > details")) card.hidden = !card.dataset.words.includes(wanted);
    for (const section of root.querySelectorAll("section")) {
      section.hidden = !section.querySelector(":scope > details:not([hidden])");
    }
  });
};

fetch("openapi.json")
  .then((answer) => answer.json())
  .then(render)
  .catch((error) => document.getElementById("operations").replaceChildren(make("p", {}, `It could not be read: ${error}`)));
