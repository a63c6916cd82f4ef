// The tokens that the agent sampled, coloured by what is known of each.
import { make, makeField, makeSelect } from "./elements.js";
import { formatNumber } from "./numbers.js";

// Each kind of colour: what it says, and the bounds between its levels. Levels below zero are of another colour, and are
// underlined in another way, as colours alone do not reach everybody.
const KINDS = {
  advantages: { name: "advantage", bounds: [-1, -0.3, -0.05, 0.05, 0.3, 1], middle: 3 },
  logprobs: { name: "log-probability", bounds: [-4, -2, -0.7, -0.1], middle: 4 },
  ratios: { name: "ratio to the sampler", bounds: [0.8, 0.95, 0.99, 1.01, 1.05, 1.2], middle: 3 },
};

const LONG = 80; // characters of a token that are shown

let chosen = ""; // a kind; it stays from one dialogue to the next
let coloured = ""; // the kind that is drawn in the view that is shown

const readColumn = (turn, kind) => turn.sampled && (turn.sampled[kind] ?? (kind === "advantages" && turn.credit !== null ? turn.sampled.texts.map(() => turn.credit) : null));

// Where nothing can be chosen, as in a group, words are shown.
export const stopColouring = () => {
  coloured = "";
};

// Whether the tokens of a turn are to be shown in place of its words.
export const showsTokens = (turn) => coloured !== "" && readColumn(turn, coloured) !== null;

// A field that chooses a kind, with its legend; nothing where no turn has tokens. `show` draws the dialogue anew.
export function makeTokenChoice(turns, show) {
  if (!turns.some((turn) => turn.sampled)) {
    stopColouring();
    return "";
  }
  const kinds = Object.keys(KINDS).filter((kind) => turns.some((turn) => readColumn(turn, kind)));
  coloured = kinds.includes(chosen) ? chosen : "";
  const legend = make("div");
  const choose = (kind) => {
    chosen = coloured = kind;
    legend.replaceChildren(kind ? makeLegend(kind) : "");
    show();
  };
  legend.append(coloured ? makeLegend(coloured) : "");
  const options = [["", "nothing"], ...kinds.map((kind) => [kind, KINDS[kind].name])];
  return make("div", { class: "controls token-choice" }, makeField("colour tokens by", makeSelect(options, coloured, choose)), legend);
}

function makeLegend(kind) {
  const { bounds, middle } = KINDS[kind];
  const texts = [`below ${bounds[0]}`, ...bounds.slice(1).map((bound, i) => `${bounds[i]} to ${bound}`), `${kind === "logprobs" ? "above" : "from"} ${bounds.at(-1)}`];
  return make("ul", { class: "legend tokens", "aria-label": `Colours of the ${KINDS[kind].name}` },
    ...texts.map((text, level) => make("li", { class: nameLevel(level - middle), text })));
}

// Level 0 has no colour.
const nameLevel = (level) => (level < 0 ? `low${-level}` : level > 0 ? `high${level}` : "");

function findLevel(kind, value) {
  const { bounds, middle } = KINDS[kind];
  return bounds.filter((bound) => value >= bound).length - middle;
}

let last = 0;

// The tokens of a turn as a list that is one stop for the keyboard; arrows go through it, and what is known of a token
// is said below.
export function makeTokens(turn, name) {
  const list = `tokens-${++last}`;
  const values = readColumn(turn, coloured);
  const spans = turn.sampled.texts.map((text, i) => make("span", {
    id: `${list}-${i}`, role: "option", "aria-selected": "false", "aria-label": describeToken(turn, i), title: describeToken(turn, i),
    class: `token ${nameLevel(findLevel(coloured, values[i]))}`, text: shorten(text),
  }));
  const said = make("p", { class: "quiet about-token", "aria-hidden": "true", text: "Point at a token, or go through them by arrows." });
  const box = make("div", { class: "text tokens", role: "listbox", tabindex: "0", "aria-label": `Tokens of ${name}`, dir: "auto" }, ...spans);
  let at = -1;
  const go = (to) => {
    if (!spans.length) return;
    spans[at]?.setAttribute("aria-selected", "false");
    at = Math.min(Math.max(to, 0), spans.length - 1);
    spans[at].setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", spans[at].id);
    said.textContent = describeToken(turn, at);
  };
  box.addEventListener("keydown", (event) => {
    const ways = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: spans.length - 1 };
    if (!(event.key in ways)) return;
    event.preventDefault();
    event.stopPropagation();
    go(ways[event.key]);
  });
  box.addEventListener("focus", () => at < 0 && go(0));
  box.addEventListener("pointerover", (event) => spans.includes(event.target) && go(spans.indexOf(event.target)));
  return make("div", {}, box, said);
}

// A token may be a part of a character, and a hostile one may be anything.
const shorten = (text) => (text.length > LONG ? `${text.slice(0, LONG)}…` : text || "⋯");

function describeToken(turn, i) {
  const numbers = Object.keys(KINDS).map((kind) => [KINDS[kind].name, readColumn(turn, kind)]).filter(([, values]) => values)
    .map(([name, values]) => `${name} ${formatNumber(values[i])}`);
  return `${i + 1}: ${JSON.stringify(shorten(turn.sampled.texts[i]))}, ${numbers.join(", ")}`;
}
