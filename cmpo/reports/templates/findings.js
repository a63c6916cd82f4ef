// The views of what scanners found, and of a run beside others.
import { PAGE, RUNS, openBatch } from "./data.js";
import { findSame } from "./dialogue.js";
import { make, makeField, makeLink } from "./elements.js";
import { formatNumber } from "./numbers.js";
import { nameTask } from "./steps.js";
import { makeTable } from "./table.js";

// What scanners found, by batch, with links to the first places.
export function makeScans(run) {
  return make("section", {}, make("h2", { text: "Scanners" }),
    make("p", { class: "quiet", text: "What is looked for in all that the agent said: by you, by the domain, and copies. A pattern of your own can be written here, or be in every page: python -m cmpo.report --scan=\"refund|callback\"." }),
    makeSearch(run), ...run.scans.map((scan) => makeFindings(run, scan)));
}

function makeFindings(run, { name, counts, links }) {
  const hit = run.batches.filter((batch) => counts[batch.key]);
  const heading = make("h3", { class: "text", text: name });
  if (!hit.length) return make("section", {}, heading, make("p", { class: "quiet", text: "Nowhere." }));
  const rows = hit.reverse().map((batch) => {
    const [dialogues, turns] = counts[batch.key];
    return [{ text: batch.title, href: `#step/${batch.key}`, value: batch.step ?? -1 }, dialogues,
      { text: formatNumber(dialogues / batch.dialogues, true), value: dialogues / batch.dialogues }, turns,
      { class: "places", value: turns, content: listPlaces(batch.key, links[batch.key], turns) }];
  });
  return make("section", {}, heading, makeTable(name, ["where", "dialogues", "of all", "turns", "group/dialogue/turn"], rows, { sorts: true }));
}

let sought = ""; // the last pattern; it stays when the view is left

// A field for a pattern that is looked for in all batches, one after the other.
function makeSearch(run) {
  const input = make("input", { type: "search", id: "search", value: sought, placeholder: "refund|callback" });
  const said = make("span", { class: "quiet", role: "status" });
  const found = make("div");
  const form = make("form", { class: "controls", role: "search", "aria-label": "All dialogues" }, makeField("pattern", input),
    make("button", { text: "Look through all dialogues" }), said);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const pattern = (sought = input.value);
    found.replaceChildren();
    try {
      const scan = await lookThrough(run, new RegExp(pattern, "i"), (done) => {
        said.textContent = `${done} of ${run.batches.length}`;
        return pattern === sought && form.isConnected;
      });
      if (scan) found.replaceChildren(makeFindings(run, { name: pattern, ...scan }));
      said.textContent = "";
    } catch (error) {
      said.textContent = error.message;
    }
  });
  return make("div", {}, form, found);
}

// Returns counts and links as scanners have them; null where `goesOn` stops it.
async function lookThrough(run, pattern, goesOn) {
  const counts = {}, links = {};
  for (const [number, { key }] of run.batches.entries()) {
    if (!goesOn(number)) return null;
    const places = (await openBatch(run, key)).flatMap((group, g) => group.dialogues.flatMap((dialogue, d) =>
      dialogue.turns.flatMap((turn, t) => (pattern.test(turn.said || turn.raw) ? [[g + 1, d + 1, t + 1]] : []))));
    if (!places.length) continue;
    counts[key] = [new Set(places.map(([group, dialogue]) => `${group}/${dialogue}`)).size, places.length];
    links[key] = places;
  }
  return { counts, links };
}

const SHOWN = 8;

function listPlaces(key, places, turns) {
  const links = places.slice(0, SHOWN).map((place) => makeLink(`#step/${key}/${place.join("/")}`, place.join("/")));
  return [...links.flatMap((link) => [link, " "]), turns > SHOWN ? `and ${turns - SHOWN} more` : ""];
}

// The dialogues of two evaluations that are of the same scenario and seed, those that differ most first. Each links to
// the two next to each other.
function makePairs(other) {
  const box = make("div", {}, make("p", { class: "quiet", text: "Opening the dialogues …" }));
  fillPairs(box, other).catch((error) => box.replaceChildren(make("p", { class: "notice", role: "alert", text: error.message })));
  return make("div", {}, make("h3", { text: "The same scenario and seed" }), box);
}

async function fillPairs(box, other) {
  const [run] = RUNS, keys = [run, other].map((one) => one.batches[0]?.key);
  if (!keys[0] || !keys[1]) {
    box.replaceChildren(make("p", { class: "quiet", text: "There are no transcripts beside one of the two files." }));
    return;
  }
  const [ours, theirs] = await Promise.all([openBatch(run, keys[0]), openBatch(other, keys[1])]);
  const pairs = ours.flatMap((group, g) => group.dialogues.map((dialogue, d) =>
    ({ group, dialogue, other: findSame(theirs, group, dialogue), href: `#step/${keys[0]}/${g + 1}/${d + 1}` }))).filter((pair) => pair.other);
  const gap = ({ dialogue: a, other: b }) => (a.outcome === null || b.outcome === null ? null : a.outcome - b.outcome);
  pairs.sort((a, b) => Math.abs(gap(b) ?? 0) - Math.abs(gap(a) ?? 0));
  const costs = run.costs.flatMap((name) => [`${name}, ${run.name}`, `${name}, ${other.name}`]);
  const head = ["scenario", "seed", `outcome, ${run.name}`, `outcome, ${other.name}`, "difference", ...costs];
  const number = (value) => ({ text: formatNumber(value), value: value ?? "" });
  const rows = pairs.map((pair) => [{ text: nameTask(pair.group), href: pair.href }, pair.group.seed ?? "", number(pair.dialogue.outcome), number(pair.other.outcome), number(gap(pair)),
    ...run.costs.flatMap((name) => [pair.dialogue, pair.other].map((one) => number(one.cost[name] ?? 0)))]);
  box.replaceChildren(rows.length ? makeTable("The same scenario and seed", head, rows, { sorts: true })
    : make("p", { class: "quiet", text: "They have no dialogue of the same scenario and seed in common." }));
}

// The first run beside the others: paired differences, evaluations, settings.
export function makeComparison() {
  const isRun = RUNS[0].kind === "run";
  const parts = PAGE.comparisons.map(({ names: [ours, theirs], pairs, settings, evaluations }, place) => {
    const head = ["measure", ours, theirs, "difference", "95 % interval"];
    return make("section", {}, make("h2", { text: `${ours} minus ${theirs}` }),
      isRun && make("h3", { text: "The same tasks at the same steps" }),
      ...pairs.map(({ title, rows }) => make("div", {}, make("p", { class: "quiet", text: title }), makeTable(title, head, rows))),
      isRun && pairs.length === 0 && make("p", { class: "quiet", text: "They have no dialogue of the same task and step in common." }),
      ...evaluations.map(({ title, rows, caveats }) => make("div", {}, make("h3", { text: title }), rows.length > 0 && makeTable(title, head, rows),
        ...caveats.map((text) => make("p", { class: "notice", text: rows.length ? text : `Not compared: ${text}` })))),
      !isRun && makePairs(RUNS[place + 1]),
      make("h3", { text: "Settings that differ" }),
      settings.length ? makeTable("Settings that differ", ["setting", ours, theirs], settings) : make("p", { class: "quiet", text: "None." }));
  });
  return make("section", { class: "comparison" }, ...parts, make("p", { class: "quiet", text: "The interval is that of a bootstrap over tasks." }));
}
