// Saves what is shown: tables as CSV, figures as SVG and PNG that look as they do here.
import { make, makeSvg } from "./elements.js";

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

// Saves the figure of a card: its chart, under its heading and its legend.
export function saveSvg(name, card) {
  saveBlob(`${name}.svg`, new Blob([new XMLSerializer().serializeToString(copyFigure(card))], { type: "image/svg+xml" }));
}

export async function savePng(name, card) {
  const svg = copyFigure(card);
  const url = URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" }));
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = make("canvas", { width: SCALE * svg.getAttribute("width"), height: SCALE * svg.getAttribute("height") });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  canvas.toBlob((blob) => saveBlob(`${name}.png`, blob), "image/png");
}

const STYLED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "opacity",
  "stroke-linejoin", "paint-order", "font-family", "font-size", "font-weight", "text-anchor"];

// Copies a figure so that it stands alone: what the page's style sheet says of it becomes attributes.
function copyFigure(card) {
  const svg = card.querySelector("svg.chart"), copy = svg.cloneNode(true);
  const [ours, theirs] = [svg, copy].map((root) => [root, ...root.querySelectorAll("*")]);
  ours.forEach((element, number) => {
    const style = getComputedStyle(element);
    for (const name of STYLED) theirs[number].setAttribute(name, style.getPropertyValue(name));
    if (style.display === "none") theirs[number].setAttribute("display", "none");
    theirs[number].removeAttribute("class");
  });
  copy.querySelectorAll("[data-passing]").forEach((element) => element.remove());
  const [width, height] = ["width", "height"].map((name) => Number(svg.getAttribute(name)));
  const head = copyHead(card, width);
  const whole = { width, height: height + head.height, viewBox: `0 0 ${width} ${height + head.height}` };
  copy.setAttribute("y", head.height);
  return makeSvg("svg", { ...whole, "font-family": "system-ui, sans-serif" },
    makeSvg("rect", { width, height: whole.height, fill: getComputedStyle(card).backgroundColor }), head.element, copy);
}

const LINE = 17, MARGIN = 12, GLYPH = 6.2; // pixels; the width of a letter is a guess

function copyHead(card, width) {
  const ink = getComputedStyle(card).color;
  const element = makeSvg("g", {}, makeSvg("text", { x: MARGIN, y: LINE, fill: ink, "font-size": 13, "font-weight": 600,
    text: card.querySelector("h3").textContent }));
  let x = MARGIN, y = 2 * LINE;
  for (const entry of card.querySelectorAll(".entry:not([aria-pressed=false])")) {
    const key = getComputedStyle(entry.querySelector(".key"));
    const text = [...entry.children].map((child) => child.textContent).filter(Boolean).join(" ");
    const long = 24 + GLYPH * text.length;
    if (x > MARGIN && x + long > width) [x, y] = [MARGIN, y + LINE];
    element.append(makeSvg("line", { x1: x, x2: x + 14, y1: y - 4, y2: y - 4, stroke: key.color, "stroke-width": 2.5, opacity: key.opacity,
      "stroke-dasharray": key.borderTopStyle === "dashed" ? "4 3" : null }), makeSvg("text", { x: x + 19, y, fill: ink, "font-size": 11, text }));
    x += long + 8;
  }
  return { element, height: y + 8 };
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
