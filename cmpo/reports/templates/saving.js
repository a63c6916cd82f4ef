// Saves what is shown: tables as CSV, figures as SVG and PNG that look as they do here.
import { make } from "./elements.js";

const SCALE = 3; // pixels of a PNG for each of the screen's: 288 dots per inch

export function saveCsv(name, head, rows) {
  const lines = [head, ...rows].map((row) => row.map(quoteCell).join(","));
  saveBlob(`${name}.csv`, new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv;charset=utf-8" }));
}

// A cell that a spreadsheet would take for a formula gets an apostrophe in front: models may have written it.
function quoteCell(value) {
  let text = value === null || value === undefined ? "" : String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text) && !/^-?[\d.]+( %)?$/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function saveSvg(name, svg) {
  saveBlob(`${name}.svg`, new Blob([writeSvg(svg)], { type: "image/svg+xml" }));
}

export async function savePng(name, svg) {
  const url = URL.createObjectURL(new Blob([writeSvg(svg)], { type: "image/svg+xml" }));
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = make("canvas", { width: SCALE * svg.getAttribute("width"), height: SCALE * svg.getAttribute("height") });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  canvas.toBlob((blob) => saveBlob(`${name}.png`, blob), "image/png");
}

const STYLED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "opacity",
  "font-family", "font-size", "font-weight", "text-anchor"];

// Writes a figure that stands alone: what the page's style sheet says of it becomes attributes.
function writeSvg(svg) {
  const copy = svg.cloneNode(true);
  const [ours, theirs] = [svg, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  ours.forEach((element, number) => {
    const style = getComputedStyle(element);
    for (const name of STYLED) theirs[number].setAttribute(name, style.getPropertyValue(name));
    if (style.display === "none") theirs[number].setAttribute("display", "none");
    theirs[number].removeAttribute("class");
  });
  copy.querySelectorAll("[data-passing]").forEach((element) => element.remove());
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const back = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  const colour = getComputedStyle(document.body).getPropertyValue("--card");
  for (const [key, value] of Object.entries({ width: "100%", height: "100%", fill: colour })) back.setAttribute(key, value);
  copy.prepend(back);
  return new XMLSerializer().serializeToString(copy);
}

function saveBlob(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = make("a", { href: url, download: name.replace(/[^\w.-]+/g, "_") });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

// A menu of what a figure or a table can be saved as.
export function makeExports(label, choices) {
  const buttons = Object.entries(choices).map(([text, save]) => make("button", { type: "button", text, onclick: save }));
  return make("details", { class: "exports" }, make("summary", { "aria-label": `Save: ${label}`, text: "Save" }),
    make("div", {}, ...buttons));
}
