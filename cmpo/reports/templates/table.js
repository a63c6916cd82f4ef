// Tables that can be sorted by a click on a heading, and saved as CSV.
import { make, makeBadge } from "./elements.js";
import { makeExports, saveCsv } from "./saving.js";

// `rows` are lists of cells: a text or number, or {text, value (to sort by), href, class, badge}.
export function makeTable(name, head, rows, { sorts = false, plain = false } = {}) {
  const body = make("tbody");
  const fill = (ordered) => body.replaceChildren(...ordered.map((row) => make("tr", {}, ...row.map(makeCell))));
  const headings = head.map((text, column) => {
    if (!sorts) return make("th", { scope: "col", text });
    const heading = make("th", { scope: "col" });
    const button = make("button", { type: "button", class: "sort", text });
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      fill([...rows].sort((a, b) => compare(valueOf(a[column]), valueOf(b[column])) * (down ? -1 : 1)));
    });
    heading.append(button);
    return heading;
  });
  fill(rows);
  const table = make("table", {}, make("caption", { class: "unseen", text: name }), make("thead", {}, make("tr", {}, ...headings)), body);
  const texts = () => [...body.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  return make("div", { class: `sheet ${plain ? "plain" : ""}` }, make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table),
    plain ? "" : makeExports(name, { CSV: () => saveCsv(name, head, texts()) }));
}

function makeCell(cell) {
  if (cell === null || typeof cell !== "object") return make("td", { text: cell ?? "" });
  const inside = cell.content ?? (cell.href ? make("a", { href: cell.href, text: cell.text }) : cell.badge ? makeBadge([cell.text, cell.badge]) : cell.text ?? "");
  return make("td", { class: cell.class || "" }, ...[inside].flat());
}

const valueOf = (cell) => (cell !== null && typeof cell === "object" ? cell.value ?? cell.text : cell);

export function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined || a === "") return -1;
  if (b === null || b === undefined || b === "") return 1;
  const numbers = [a, b].map(Number);
  if (numbers.every((number) => !Number.isNaN(number))) return numbers[0] - numbers[1];
  return String(a) < String(b) ? -1 : 1;
}
