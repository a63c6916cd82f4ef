// The view of a run's curves: what it came to, its numbers over steps, and its tables.
import { Chart, ChartGroup } from "./chart.js";
import { RUNS, findBatch, readColumn } from "./data.js";
import { make, makeField } from "./elements.js";
import { findRange } from "./numbers.js";
import { Plane } from "./plane.js";
import { makeTable } from "./table.js";

// What the user has chosen for all curves; it stays when a live page draws them anew.
const settings = { range: null, weight: 0 };

export function makeCurves() {
  const [run] = RUNS;
  const group = new ChartGroup((step) => {
    if (findBatch(run, String(step))) location.hash = `#step/${step}`;
  });
  Object.assign(group, settings);
  group.watchers.push(({ range, weight }) => Object.assign(settings, { range, weight }));
  const steps = RUNS.flatMap((one) => Object.values(one.sources).flatMap((source) => source.step));
  group.all = findRange(RUNS.flatMap((one) => (one.sources.rl || Object.values(one.sources)[0] || { step: [] }).step)) || findRange(steps);
  const view = make("section", { class: "curves", "aria-labelledby": "curves-title" }, make("h2", { id: "curves-title", class: "unseen", text: "Curves" }));
  view.append(make("p", { class: "quiet facts", text: run.facts.join(" · ") }), ...listAlarms(run), makeTiles(run), makeControls(group));
  const plane = run.plane && new Plane(run.plane, RUNS, group);
  for (const section of run.sections) {
    const cards = section.panels.map((panel) => makeChart(group, panel, run).element);
    if (section === run.sections[0] && plane) cards.unshift(plane.element);
    view.append(make("section", {}, make("h2", { text: section.title }), make("div", { class: "charts" }, ...cards)));
  }
  view.append(...listTables(run));
  return view;
}

function listAlarms(run) {
  const latest = run.alarms.filter(([step]) => step === run.step);
  return latest.map(([, name, reason]) =>
    make("p", { class: "notice", role: "status", text: `The budget of ${name} may be out of reach: ${reason}.` }));
}

// The latest step of phase 2, each number beside the first's.
function makeTiles(run) {
  if (!run.latest) return make("p", { class: "empty", text: "No reinforcement learning step yet." });
  const { head, rows } = run.latest;
  const tiles = head.slice(1).map((name, i) => {
    const [first, last] = [rows[0][i + 1], rows.at(-1)[i + 1]];
    return make("div", { class: "tile" }, make("dt", { text: name }), make("dd", { text: last || "–" }),
      rows.length > 1 && make("dd", { class: "quiet", text: `first ${first || "–"}` }));
  });
  const budgets = run.budgets.length ? ` Budget: ${run.budgets.join(", ")}.` : "";
  const from = rows.length > 1 ? `, beside step ${rows[0][0]}` : "";
  return make("div", {}, make("dl", { class: "tiles" }, ...tiles),
    make("p", { class: "quiet", text: `Step ${rows.at(-1)[0]}${from}.${budgets}` }));
}

function makeControls(group) {
  const weight = make("input", { type: "range", min: "0", max: "0.98", step: "0.02", value: group.weight });
  const said = make("output");
  weight.addEventListener("input", () => group.change({ weight: Number(weight.value) }));
  const ends = ["From step", "to"].map((label, end) => {
    const input = make("input", { type: "number", min: group.all?.[0], max: group.all?.[1], placeholder: group.all?.[end] });
    input.addEventListener("change", () => {
      const range = [...(group.range || group.all)];
      range[end] = input.value === "" ? group.all[end] : Number(input.value);
      if (range[0] < range[1]) group.change({ range });
    });
    return [label, input];
  });
  const reset = make("button", { type: "button", text: "All steps", disabled: true, onclick: () => group.change({ range: null }) });
  const cursor = make("span", { class: "quiet cursor-step" });
  const tell = () => {
    said.textContent = group.weight ? `${Math.round(1 / (1 - group.weight))} steps` : "off";
    reset.disabled = !group.range;
    ends.forEach(([, input], end) => { input.value = group.range ? group.range[end] : ""; });
    cursor.textContent = group.cursor === null ? "" : `step ${group.cursor}`;
  };
  group.watchers.push(tell);
  tell();
  return make("div", { class: "controls", role: "group", "aria-label": "All curves" },
    makeField("Smoothing", weight), said, ...ends.map(([label, input]) => makeField(label, input)), reset, cursor,
    make("span", { class: "quiet hint", text: "Drag over a curve to zoom, click it to open a step." }));
}

function makeChart(group, panel, run) {
  const series = RUNS.length > 1 ? compareSeries(panel) : panel.series.flatMap((one, number) => {
    const found = readColumn(run, one.column);
    return found ? [{ ...found, ...one, colour: colourOf(panel, number) }] : [];
  });
  const marks = panel.alarm ? run.alarms.filter(([, name]) => name === panel.alarm).map(([step]) => step) : [];
  return new Chart(group, { ...panel, series, marks });
}

// Of several runs, only plain curves are drawn: a run has a colour if each has one curve, else a dash.
function compareSeries(panel) {
  const plain = panel.series.filter((one) => one.role === "line");
  return plain.flatMap((one, number) => RUNS.flatMap((run, place) => {
    const found = readColumn(run, one.column);
    if (!found) return [];
    return plain.length === 1 ? [{ ...found, name: run.name, colour: place % 8, role: "line" }]
      : [{ ...found, name: `${run.name}: ${one.name}`, colour: number % 8, role: place ? "dashed" : "line" }];
  }));
}

// Faint and dashed curves are about the same thing as the plain one before or after them, and share its colour.
function colourOf(panel, number) {
  const plain = panel.series.map((one) => one.role === "line");
  return plain.filter(Boolean).length < 2 ? 0 : plain.slice(0, number).filter(Boolean).length % 8;
}

function listTables(run) {
  const parts = [];
  if (run.principles) {
    parts.push(make("section", {}, make("h2", { text: "What the judge's scores tell" }), makeTable("What the judge's scores tell", run.principles.head, run.principles.rows),
      make("p", { class: "quiet", text: "Means of the latest steps; the interval is that of their spread. A principle near 0 teaches something else than the outcome does." })));
  }
  parts.push(make("section", {}, make("h2", { text: "Failed dialogues" }), run.failures
    ? makeTable("Failed dialogues", run.failures.head, run.failures.rows)
    : make("p", { class: "quiet", text: "None. No endpoint failed." })));
  if (run.alarms.length) {
    const rows = run.alarms.map(([step, name, reason]) => [{ text: step, href: findBatch(run, String(step)) && `#step/${step}` }, name, { text: reason, class: "words" }]);
    parts.push(make("section", {}, make("h2", { text: "Alarms" }), makeTable("Alarms", ["step", "cost", "reason"], rows, { sorts: true })));
  }
  return parts;
}

export function makeEvaluations(run) {
  const { table, keys, unread, caveats, planes } = run.evaluations;
  const rows = table.rows.map(([name, ...rest], i) => [findBatch(run, keys[i]) ? { text: name, href: `#step/${keys[i]}` } : name, ...rest]);
  return make("section", {}, make("h2", { text: "Evaluations" }),
    rows.length && makeTable("Evaluations", table.head, rows, { sorts: true }),
    ...unread.map((text) => make("p", { class: "notice", text })),
    ...caveats.map((text) => make("p", { class: "quiet", text })),
    make("div", { class: "charts" }, ...planes.map((plane) => new Plane(plane, [], null).element)));
}

export const makeConfig = (run) =>
  make("section", {}, make("h2", { text: "Configuration" }), make("pre", { class: "card", tabindex: "0", text: run.config }));
