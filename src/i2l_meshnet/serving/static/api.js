// Shows /openapi.json as plain tables.

const element = (name, ...content) => {
  const made = document.createElement(name);
  made.append(...content);
  return made;
};

const description = await (await fetch("/openapi.json")).json();
const schemas = description.components.schemas;

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(kind).join(" or ");
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items)}`;
  return schema.format ?? schema.type ?? "anything";
}

function table(title, rows) {
  const body = rows.map((cells) => element("tr", ...cells.map((cell) => element("td", cell))));
  return rows.length ? [element("h3", title), element("table", ...body)] : [];
}

function operation(method, path, facts) {
  const method_ = element("span", method.toUpperCase());
  method_.className = "method";
  const form = facts.requestBody?.content["multipart/form-data"].schema.properties ?? {};
  return element(
    "section",
    element("h2", method_, ` ${path}`),
    element("p", facts.description ?? ""),
    ...table("Parameters", (facts.parameters ?? []).map((one) => [`${one.name} (${one.in})`, kind(one.schema), one.description ?? ""])),
    ...table("Form", Object.entries(form).map(([name, one]) => [name, "file", one.description])),
    ...table("Answers", Object.entries(facts.responses).map(([status, one]) => [
      status,
      one.description,
      Object.entries(one.content ?? {}).map(([type, { schema }]) => `${type}${schema ? `: ${kind(schema)}` : ""}`).join("; "),
    ])),
  );
}

const model = ([name, schema]) =>
  element(
    "section",
    element("h2", name),
    element("p", schema.description ?? ""),
    ...table("Keys", Object.entries(schema.properties ?? {}).map(([key, one]) => [key, kind(one), one.description ?? ""])),
  );

document.getElementById("example").textContent =
  `curl -F photo=@photo.jpg '${location.origin}/predict?formats=obj'\n` +
  `curl -F photo=@photo.jpg -H 'Accept: application/zip' -o results.zip ${location.origin}/predict`;
document.getElementById("paths").append(
  ...Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, facts]) => operation(method, path, facts)),
  ),
  ...Object.entries(schemas).map(model),
);
