// Makes elements. Whatever others wrote becomes text, never markup: nothing here takes HTML.

export const find = (id) => document.getElementById(id);

// Makes an element with attributes, which may have `text`, and children, of which empty ones are left out.
export function make(tag, { text, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  element.append(...children.filter(Boolean));
  return element;
}

export const makeBadge = ([text, tone], tag = "span") => make(tag, { class: `badge ${tone}`, text });

export function showNotice(text) {
  find("notice").textContent = text;
  find("notice").hidden = !text;
  if (text) find("notice").scrollIntoView({ block: "nearest" });
}

// Makes a choice with a native radio button or checkbox; `content` is its label.
export function makeChoice(type, name, value, checked, ...content) {
  const input = make("input", { type, name, value });
  input.checked = checked;
  return make("label", {}, input, ...content);
}

export const chosen = (id) => [...find(id).querySelectorAll("input:checked")].map((input) => input.value);
