// The views of a group, side by side, and of one dialogue, turn by turn.
import { RUNS, openBatch } from "./data.js";
import { make, makeBadge, makeField, makeLink, makeSelect, makeText, shorten } from "./elements.js";
import { formatNumber } from "./numbers.js";
import { byWorth, makeEnd, nameTask } from "./steps.js";
import { makeTokenChoice, makeTokens, showsTokens, stopColouring } from "./tokens.js";

// A group's dialogues next to each other, from the best to the worst.
export function makeGroupView(run, key, groups, number) {
  const group = groups[number - 1];
  const ordered = group.dialogues.map((dialogue, place) => ({ dialogue, place }))
    .sort((a, b) => (a.dialogue.outcome === null) - (b.dialogue.outcome === null) || byWorth(a.dialogue, b.dialogue) || a.place - b.place);
  const columns = ordered.map(({ dialogue, place }) => ({ dialogue, title: `Dialogue ${place + 1}`, href: `#step/${key}/${number}/${place + 1}` }));
  stopColouring();
  return make("section", {}, make("h2", { text: `Group ${number}` }), ...describeTask(group), makeSideBySide(columns));
}

function describeTask(group) {
  const plain = (words) => shorten(String(words).replaceAll("_", " "), 80);
  const labels = Object.entries(group.labels).map(([name, value]) => `${plain(name)}: ${plain(value)}`);
  const seed = group.seed === null ? [] : [`seed ${group.seed}`];
  return [...group.lines.map((line) => makeText(line, { class: "task" })), make("p", { class: "quiet", text: [nameTask(group), ...seed, ...labels].join(" · ") })];
}

// Dialogues in columns, their turns in rows, with a line where they part.
function makeSideBySide(columns) {
  const dialogues = columns.map((column) => column.dialogue);
  const longest = Math.max(...dialogues.map((dialogue) => dialogue.turns.length));
  const part = findParting(dialogues);
  const grid = make("div", { class: "beside" });
  grid.style.setProperty("--columns", columns.length);
  const addRow = (cells) => grid.append(...cells);
  addRow(columns.map(({ dialogue, title, href }) => make("header", { class: "cell top" },
    make("h3", {}, href ? makeLink(href, title) : make("span", { text: title })), makeEnd(dialogue), makeWorth(dialogue))));
  for (let turn = 0; turn < longest; turn++) {
    if (part && part.turn === turn) grid.append(make("p", { class: "parting", text: part.text }));
    addRow(columns.map(({ dialogue, href }) => make("div", { class: "cell" },
      ...(turn < dialogue.turns.length ? makeTurn(dialogue.turns[turn], turn, href, "h4") : []))));
  }
  addRow(columns.map(({ dialogue }) => make("div", { class: "cell" }, ...makeClosing(dialogue))));
  return make("div", { class: "scroll beside-scroll", tabindex: "0", role: "region", "aria-label": "Dialogues side by side" }, grid);
}

// The first turn in which dialogues are not all the same, and whose words differ first in it.
export function findParting(dialogues) {
  if (dialogues.length < 2) return null;
  const longest = Math.max(...dialogues.map((dialogue) => dialogue.turns.length));
  for (let turn = 0; turn < longest; turn++) {
    const turns = dialogues.map((dialogue) => dialogue.turns[turn]);
    const differ = (view) => new Set(turns.map((one) => JSON.stringify(one ? view(one) : null))).size > 1;
    if (turns.some((one) => !one)) return { turn, text: "Here they part: some have ended." };
    if (differ((one) => one.heard)) return { turn, text: "Here they part: the agent hears different words." };
    if (differ((one) => [one.thought, one.said, one.raw])) return { turn, text: "Here they part: the agent answers differently." };
  }
  return null;
}

function makeWorth(dialogue) {
  const costs = Object.entries(dialogue.cost).filter(([, value]) => value).map(([name, value]) => makeBadge([`${name} ${formatNumber(value)}`, "cost"]));
  const reward = dialogue.reward === null ? "" : `, process reward ${formatNumber(dialogue.reward)}`;
  const said = dialogue.outcome === null ? "" : `outcome ${formatNumber(dialogue.outcome)}${reward}`;
  return make("span", { class: "worth" }, ...costs, make("span", { class: "quiet", text: said }));
}

function makeTurn(turn, number, href, heading) {
  const heard = turn.heard.map(([role, words]) => make("div", { class: `bubble heard ${role === "tool" ? "tool" : ""}` },
    make("span", { class: "who", text: role }), makeText(words)));
  const thought = turn.thought && make("details", { class: "thought", open: true }, make("summary", { text: "thought" }), makeText(turn.thought));
  const name = `Turn ${number + 1}`;
  const words = turn.said ? makeText(turn.said) : makeText(turn.raw || "(nothing)", { class: "raw" });
  const output = showsTokens(turn) ? [makeTokens(turn, name.toLowerCase())] : [thought, words];
  return [
    make(heading, { class: "turn-name" }, href ? makeLink(`${href}/${number + 1}`, name) : make("span", { text: name })), ...heard,
    make("div", { class: "bubble agent" }, make("span", { class: "who", text: "agent" }), ...output),
    make("div", { class: "notes" }, ...turn.badges.map(makeBadge), ...turn.faults.map((name) => makeBadge([name, "bad"])), make("span", { class: "quiet", text: listNumbers(turn).join(" · ") }),
      turn.remark && makeText(turn.remark, { class: "remark" })),
  ];
}

function listNumbers(turn) {
  const numbers = [`reward ${formatNumber(turn.reward)}`];
  for (const [name, value] of Object.entries(turn.cost)) if (value) numbers.push(`${name} ${formatNumber(value)}`);
  if (turn.credit !== null) numbers.push(`advantage ${formatNumber(turn.credit)}`);
  if (turn.logprob !== null) numbers.push(`${turn.tokens} tokens, mean log-probability ${formatNumber(turn.logprob)}`);
  return numbers;
}

function makeClosing(dialogue) {
  return [
    dialogue.last && make("div", { class: "bubble heard" }, make("span", { class: "who", text: "last words" }), makeText(dialogue.last)),
    dialogue.message && makeText(dialogue.message, { class: "notice" }),
  ].filter(Boolean);
}

// One dialogue; `turn` is the one to show, from 1, if any.
export function makeDialogueView(run, key, groups, number, place, turn) {
  const group = groups[number - 1], dialogue = group.dialogues[place - 1];
  const href = `#step/${key}/${number}`;
  const body = make("div");
  const view = make("section", { class: "dialogue" });
  let beside = null; // another dialogue, if one is shown
  const draw = () => {
    view.classList.toggle("two", Boolean(beside));
    body.replaceChildren(beside ? makeSideBySide([{ dialogue, title: run.name, href: `${href}/${place}` }, beside])
      : makeAlone(dialogue, `${href}/${place}`, turn));
  };
  const show = (other) => {
    beside = other;
    draw();
  };
  const choice = makeTokenChoice(dialogue.turns, draw);
  draw();
  const about = make("aside", { "aria-label": "About this dialogue" }, make("p", { class: "worth" }, makeEnd(dialogue), makeWorth(dialogue)),
    ...describeTask(group), makeSiblings(group, href, place), makeBesideChoice(run, key, group, dialogue, turn, show));
  view.append(make("h2", { text: `Group ${number}, dialogue ${place}` }), choice, body, about);
  return view;
}

function makeAlone(dialogue, href, shown) {
  const turns = dialogue.turns.map((turn, number) => make("article", { class: `turn ${number + 1 === shown ? "shown" : ""}`, "aria-label": `Turn ${number + 1}` },
    ...makeTurn(turn, number, href, "h3")));
  return make("div", { class: "turns" }, ...turns, ...makeClosing(dialogue));
}

function makeSiblings(group, href, place) {
  if (group.dialogues.length < 2) return "";
  const links = group.dialogues.map((dialogue, other) => make("li", {}, makeLink(`${href}/${other + 1}`,
    `${other + 1}: ${dialogue.outcome === null ? "failed" : formatNumber(dialogue.outcome)}`, { "aria-current": other + 1 === place && "page" })));
  return make("nav", { "aria-label": "Dialogues of this group" }, make("p", { class: "quiet", text: "This group: dialogue and outcome" }), make("ul", { class: "chips" }, make("li", {}, makeLink(href, "Side by side")), ...links));
}

// Finds a dialogue of the same task, seed and number in other groups; of a task that comes again, in the group that has
// as many of that task before it.
export function findSame(groups, group, dialogue) {
  const same = groups.find((one) => ["digest", "seed", "repeat"].every((name) => one[name] === group[name]));
  return same?.dialogues.find((one) => one.index === dialogue.index);
}

// Offers the same task and seed as another run, or in another evaluation, played it.
function makeBesideChoice(run, key, group, dialogue, turn, show) {
  const others = RUNS.flatMap((other) => other.batches
    .filter((batch) => (other === run ? batch.step === null && key.startsWith("evaluation_") && batch.key !== key : batch.key === key || (batch.step === null && key.startsWith("evaluation_"))))
    .map((batch) => ({ other, batch, name: other === run ? batch.title : `${other.name}, ${batch.title.toLowerCase()}` })));
  if (!others.length) return "";
  const said = make("span", { class: "quiet", role: "status" });
  const choose = async (value) => {
    said.textContent = "";
    if (value === "") return show(null);
    const { other, batch, name } = others[Number(value)];
    const groups = await openBatch(other, batch.key);
    const found = findSame(groups, group, dialogue);
    if (!found) said.textContent = "It did not play this task.";
    return show(found ? { dialogue: found, title: name } : null);
  };
  const first = RUNS.length > 1 && !turn ? String(others.findIndex((one) => one.other !== run)) : "";
  if (first !== "" && first !== "-1") choose(first);
  return make("div", { class: "controls" }, makeField("beside", makeSelect([["", "nothing"], ...others.map((one, i) => [String(i), one.name])], first, choose)), said);
}
