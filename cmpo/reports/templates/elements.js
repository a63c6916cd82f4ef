// Makes elements. Whatever others wrote becomes text, never markup: nothing here takes HTML.

export const find = (id) => document.getElementById(id);

// Makes an element with attributes, which may have `text` and listeners such as `onclick`, and children, of which empty
// ones are left out.
export function make(tag, { text, ...attributes } = {}, ...children) {
  return fill(document.createElement(tag), text, attributes, children);
}

export function makeSvg(tag, { text, ...attributes } = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), text, attributes, children);
}

function fill(element, text, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  if (text !== undefined) element.textContent = text;
  element.append(...children.flat().filter((child) => child || child === 0));
  return element;
}

export const shorten = (text, most) => (text.length > most ? `${text.slice(0, most)}…` : text);

export const makeBadge = ([text, tone]) => make("span", { class: `badge ${tone}`, text: shorten(text, 60) });

export const makeLink = (href, text, attributes = {}) => make("a", { href, text, ...attributes });

const LONG = 3000; // characters; more are folded away

// Makes a text that somebody wrote. One that is very long is shown in part, with a button for the rest.
export function makeText(text, attributes = {}) {
  const box = make("div", { ...attributes, class: `text ${attributes.class || ""}`, dir: "auto" });
  if (text.length <= LONG) {
    box.textContent = text;
    return box;
  }
  const words = make("span", { text: `${text.slice(0, LONG)}…` });
  const label = `Show all ${text.length.toLocaleString("en")} characters`;
  const more = make("button", { type: "button", class: "small", text: label });
  more.addEventListener("click", () => {
    words.textContent = text;
    more.remove();
  });
  box.append(words, " ", more);
  return box;
}

let last = 0;

// Makes a field with its label.
export function makeField(label, control, attributes = {}) {
  control.id = control.id || `field-${++last}`;
  return make("div", { class: "field", ...attributes }, make("label", { for: control.id, text: label }), control);
}

export function makeSelect(options, chosen, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) });
  for (const [value, text] of options) select.append(make("option", { value, text, selected: value === chosen }));
  return select;
}
