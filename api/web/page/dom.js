// Elements. Whatever a document, a model or a person wrote goes in as text nodes; nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name (true sets it empty, false and null leave it out), listeners under `on`, then its children. */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function show(parent, ...children) {
  parent.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
}

export function byId(id) {
  return document.getElementById(id);
}

export function button(label, press, attributes = {}) {
  return h("button", { type: "button", ...attributes, on: { click: press } }, label);
}

/** What a person needs to know about a failure, and may quote to whoever runs the server. */
export function problem(error, ...actions) {
  const code = [error.code, error.requestId && `request ${error.requestId}`].filter(Boolean).join(" · ");
  return h("div", { class: "notice" }, h("div", {},
    h("p", { class: "what" }, error.message), error.hint ? h("p", {}, error.hint) : null,
    code ? h("p", { class: "code" }, code) : null), ...actions);
}

export function empty(title, text, ...more) {
  return h("div", { class: "empty" }, h("strong", {}, title), text, ...more);
}

export function waiting(text) {
  return h("p", { class: "skeleton" }, text);
}
