// The views of all batches and of one: its groups of dialogues, filtered and sorted.
import { findBatch, readColumn } from "./data.js";
import { make, makeBadge, makeField, makeLink, makeSelect, shorten } from "./elements.js";
import { formatCell, formatNumber, mean } from "./numbers.js";
import { compare, makeTable } from "./table.js";

// All batches that have dialogues, with the numbers of their steps.
export function makeBatches(run) {
  const columns = run.latest ? run.latest.columns.map(([name, percent], i) => ({ name: run.latest.head[i + 1], percent, found: readColumn(run, name) })).filter((one) => one.found) : [];
  const steps = run.batches.filter((batch) => batch.step !== null);
  const rows = steps.map((batch) => [
    { text: batch.step, href: `#step/${batch.key}` }, batch.dialogues,
    ...columns.map(({ found, percent }) => {
      const value = found.y[found.x.indexOf(batch.step)];
      return { text: formatCell(value, percent), value };
    }),
    run.alarms.some(([step]) => step === batch.step) ? { text: "alarm", badge: "bad" } : "",
  ]);
  const others = run.batches.filter((batch) => batch.step === null);
  return make("section", {}, make("h2", { text: "Dialogues" }),
    others.length > 0 && make("ul", { class: "chips" }, ...others.map((batch) =>
      make("li", {}, makeLink(`#step/${batch.key}`, `${batch.title}, ${batch.dialogues} dialogues`)))),
    run.kind === "run" && (rows.length ? makeTable("Steps with dialogues", ["step", "dialogues", ...columns.map((one) => one.name), "alarm"], rows.reverse(), { sorts: true })
      : make("p", { class: "empty", text: "No step has dialogues yet." })));
}

const ANY = "";
const chosen = { labels: new Map(), end: ANY, cost: ANY, low: "", high: "", least: "", most: "", text: "", sort: "order" };

const SORTS = [["order", "As played"], ["best", "Best outcome first"], ["worst", "Worst outcome first"], ["spread", "Widest spread in a group"],
  ["reward", "Lowest process reward"], ["cost", "Highest cost"], ["long", "Most turns"]];

// One batch. `key` is in its link.
export function makeBatch(run, key, groups) {
  const batch = findBatch(run, key);
  const list = make("div", { class: "groups" });
  const count = make("p", { class: "quiet", role: "status" });
  const all = groups.reduce((sum, group) => sum + group.dialogues.length, 0);
  const fill = () => {
    const kept = sortGroups(groups.map((group, number) => keep(group, number)).filter((group) => group.members.length));
    const shown = kept.reduce((sum, group) => sum + group.members.length, 0);
    count.textContent = shown === all ? `${all} dialogues in ${groups.length} groups` : `${shown} of ${all} dialogues`;
    list.replaceChildren(...kept.map((group) => makeGroup(run, key, group)));
    if (!shown) list.append(make("p", { class: "empty", text: "No dialogue is like that." }));
  };
  const view = make("section", {}, make("h2", { text: batch.title }), makeFilters(run, groups, fill), count, list);
  fill();
  return view;
}

function makeFilters(run, groups, fill) {
  const set = (name) => (value) => {
    chosen[name] = value;
    fill();
  };
  const dialogues = groups.flatMap((group) => group.dialogues);
  // What was chosen in another batch goes on: it is among the options even where nothing here is like that.
  const list = (values, current) => [[ANY, "any"], ...[...new Set([...values, current])].filter((value) => value !== ANY).sort(compare)
    .map((value) => [value, shorten(value.replaceAll("_", " "), 60)])];
  const fields = [];
  for (const name of new Set(groups.flatMap((group) => Object.keys(group.labels)))) {
    const current = chosen.labels.get(name) ?? ANY;
    const options = list(groups.map((group) => String(group.labels[name] ?? "")), current);
    if (options.length < 3 && current === ANY) continue;
    fields.push(makeField(shorten(name.replaceAll("_", " "), 40), makeSelect(options, current, (value) => {
      chosen.labels.set(name, value);
      fill();
    })));
  }
  fields.push(makeField("end", makeSelect(list(dialogues.map((one) => one.kind), chosen.end), chosen.end, set("end"))));
  if (run.costs.length) {
    const options = [[ANY, "any"], ["none", "nothing"], ...run.costs.map((name) => [`+${name}`, name])];
    fields.push(makeField("cost given", makeSelect(options, chosen.cost, set("cost"))));
  }
  for (const [name, label] of [["low", "outcome from"], ["high", "outcome to"], ["least", "reward from"], ["most", "reward to"]]) {
    const input = make("input", { type: "number", step: "any", value: chosen[name], oninput: () => set(name)(input.value) });
    fields.push(makeField(label, input));
  }
  const text = make("input", { type: "search", id: "search", value: chosen.text, placeholder: "any words", oninput: () => set("text")(text.value) });
  fields.push(makeField("text", text), makeField("order", makeSelect(SORTS, chosen.sort, set("sort"))));
  return make("form", { class: "controls", role: "search", "aria-label": "Filter dialogues", onsubmit: (event) => event.preventDefault() }, ...fields);
}

// A group with those of its dialogues that are kept, each with its number in the file.
function keep(group, number) {
  const ranked = group.dialogues.filter((one) => one.outcome !== null).sort(byWorth);
  const differ = ranked.length > 1 && byWorth(ranked[0], ranked.at(-1)) !== 0;
  const members = group.dialogues.map((dialogue, place) => ({ dialogue, place, rank: !differ ? "" : dialogue === ranked[0] ? "best" : dialogue === ranked.at(-1) ? "worst" : "" }));
  const labels = [...chosen.labels].every(([name, value]) => value === ANY || !Object.hasOwn(group.labels, name) || String(group.labels[name]) === value);
  return { group, number, members: labels ? members.filter(({ dialogue }) => fits(dialogue)) : [] };
}

export const byWorth = (a, b) => b.outcome - a.outcome || b.reward - a.reward;

const spent = (dialogue) => Object.values(dialogue.cost).reduce((a, b) => a + b, 0);

function fits(dialogue) {
  const { end, cost, low, high, least, most, text } = chosen;
  if (end !== ANY && dialogue.kind !== end) return false;
  if (cost === "none" && spent(dialogue)) return false;
  if (cost.startsWith("+") && !dialogue.cost[cost.slice(1)]) return false;
  if (!isWithin(dialogue.outcome, low, high) || !isWithin(dialogue.reward, least, most)) return false;
  return !text || listTexts(dialogue).some((words) => words.toLowerCase().includes(text.toLowerCase()));
}

// Bounds are texts of fields; an empty one is none. What has no value is within no bounds.
const isWithin = (value, low, high) => (low === "" && high === "") ||
  (value !== null && (low === "" || value >= Number(low)) && (high === "" || value <= Number(high)));

const listTexts = (dialogue) => [dialogue.last, dialogue.message, ...dialogue.turns.flatMap((turn) =>
  [...turn.heard.map(([, words]) => words), turn.thought, turn.said, turn.raw, turn.remark])];

function sortGroups(groups) {
  const outcomes = ({ members }) => members.map(({ dialogue }) => dialogue.outcome ?? -Infinity);
  const least = (measure) => ({ members }) => Math.min(...members.map(({ dialogue }) => measure(dialogue)));
  const within = {
    best: (one) => -(one.outcome ?? -Infinity), worst: (one) => one.outcome ?? Infinity, reward: (one) => one.reward ?? Infinity,
    cost: (one) => -spent(one), long: (one) => -one.turns.length,
  }[chosen.sort];
  if (within) {
    for (const { members } of groups) members.sort((a, b) => compare(within(a.dialogue), within(b.dialogue)));
    return groups.sort((a, b) => compare(least(within)(a), least(within)(b)));
  }
  if (chosen.sort === "spread") {
    const spread = (group) => Math.max(...outcomes(group)) - Math.min(...outcomes(group).filter(Number.isFinite), Infinity);
    return groups.sort((a, b) => compare(spread(b), spread(a)));
  }
  return groups;
}

function makeGroup(run, key, { group, number, members }) {
  const outcomes = members.map(({ dialogue }) => dialogue.outcome).filter((value) => value !== null);
  const href = `#step/${key}/${number + 1}`;
  const learnt = group.dialogues.some((dialogue) => dialogue.credit !== null);
  const head = ["dialogue", "end", "outcome", "reward", ...(learnt ? ["advantage"] : []), ...run.costs, "turns", "tokens", "last reply"];
  const rows = members.map(({ dialogue, place, rank }) => [
    { text: `${place + 1}${rank ? ` ${rank}` : ""}`, href: `${href}/${place + 1}`, value: place, class: rank },
    { text: dialogue.end[0], badge: dialogue.end[1] },
    makeNumber(dialogue.outcome), makeNumber(dialogue.reward), ...(learnt ? [makeNumber(dialogue.credit)] : []),
    ...run.costs.map((name) => ({ text: formatNumber(dialogue.cost[name] ?? 0), value: dialogue.cost[name] ?? 0, class: dialogue.cost[name] ? "spent" : "" })),
    dialogue.turns.length, dialogue.tokens || "–",
    { text: lastReply(dialogue), class: "excerpt" },
  ]);
  return make("article", { class: "card group", "aria-label": `Group ${number + 1}` },
    make("header", {}, make("h3", {}, makeLink(href, `Group ${number + 1}`)),
      make("span", { class: "quiet", text: `${nameTask(group)}${outcomes.length ? `, mean outcome ${formatNumber(mean(outcomes))}` : ""}` })),
    ...group.lines.slice(0, 4).map((line) => make("p", { class: "text task", dir: "auto", text: line })),
    makeTable(`Dialogues of group ${number + 1}`, head, rows, { plain: true }));
}

const makeNumber = (value) => ({ text: formatNumber(value), value: value ?? "" });

function lastReply(dialogue) {
  const last = dialogue.turns.at(-1);
  const words = last ? last.said || last.raw : dialogue.message;
  return shorten(words, 160);
}

// A task's name, with a number where groups before have the same task.
export const nameTask = (group) => `${shorten(String(group.id), 80)}${group.repeat ? ` (${group.repeat + 1})` : ""}`;

export const makeEnd = (dialogue) => makeBadge(dialogue.end);
