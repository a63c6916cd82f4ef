// Draws the plane of utility and cost: the best possible, the path of runs through it, and agents with their spread.
import { readColumn } from "./data.js";
import { make, makeSvg } from "./elements.js";
import { makeExports, saveCsv, savePng, saveSvg } from "./saving.js";
import { findRange, findTicks, formatNumber, smooth } from "./numbers.js";

const LEAST = 390, LEFT = 50, RIGHT = 26, TOP = 14, BOTTOM = 40;
const PATH_WEIGHT = 0.8; // of the path before the slider is moved: single steps are noise

export class Plane {
  // `runs` have paths through it, `agents` are points. `group` is that of the curves, or null.
  constructor(plane, runs, group) {
    Object.assign(this, { plane, runs, group });
    this.svg = makeSvg("svg", { class: "chart", role: "img", "aria-label": this.describe() });
    this.holder = make("div", { class: "plot still" }, this.svg);
    const name = plane.title || `${plane.objective} and ${plane.cost}`;
    const exports = makeExports(name, {
      SVG: () => saveSvg(name, this.element), PNG: () => savePng(name, this.element), CSV: () => this.saveTable(name),
    });
    this.element = make("figure", { class: "card wide" },
      make("figcaption", {}, make("h3", { text: `${plane.objective} against ${plane.cost.toLowerCase()}` }), exports),
      make("div", { class: "legend" }, ...this.makeKeys()), this.holder);
    group?.charts.push(this);
    new ResizeObserver(() => this.draw()).observe(this.holder);
  }

  describe() {
    const agents = this.plane.agents.map((one) =>
      `${one.name}: ${formatNumber(one.at[1])} at ${formatNumber(one.at[0], this.plane.percent)}`);
    return [`${this.plane.objective} against ${this.plane.cost}`, this.plane.title, ...agents].filter(Boolean).join(". ");
  }

  makeKeys() {
    const keys = this.plane.frontier ? [["frontier", `best possible: ${this.plane.title}`]] : [];
    this.runs.forEach((run, number) => keys.push([`c${number}`, `path of ${run.name}, from ○ to ●`]));
    this.plane.agents.forEach((agent, number) => keys.push([`c${number % 8}`, agent.name]));
    return keys.map(([look, text]) =>
      make("span", { class: "entry" }, make("span", { class: `key ${look} line`, "aria-hidden": "true" }), make("span", { text })));
  }

  readPaths() {
    const weight = this.group?.weight || PATH_WEIGHT;
    return this.runs.map((run) => {
      const [cost, objective] = ["cost", "objective"].map((axis) => readColumn(run, this.plane.path[axis]));
      if (!cost || !objective) return [];
      const ways = [smooth(cost.y, weight), smooth(objective.y, weight)];
      const [from, to] = this.group?.range || [-Infinity, Infinity];
      return cost.x.map((step, i) => ({ step, at: [ways[0][i], ways[1][i]] }))
        .filter(({ step, at }) => at[0] !== null && at[1] !== null && step >= from && step <= to);
    });
  }

  draw() {
    const width = Math.round(this.holder.clientWidth), height = Math.max(LEAST, Math.round(this.holder.clientHeight));
    if (!width) return;
    this.floor = height - BOTTOM;
    const { frontier, agents, budget, percent } = this.plane;
    const paths = this.paths = this.plane.path ? this.readPaths() : [];
    const ends = agents.flatMap(({ at, spread }) => [[at[0] - spread[0], at[1] - spread[1]], [at[0] + spread[0], at[1] + spread[1]]]);
    const points = [...(frontier || []), ...paths.flat().map((one) => one.at), ...ends];
    const [left, right] = percent ? [0, 1] : findRange([0, budget, ...points.map((point) => point[0])]) || [0, 1];
    let [low, high] = findRange(points.map((point) => point[1])) || [0, 1];
    const room = (high - low || 1) * 0.06;
    [low, high] = [low - room, high + room];
    this.x = (cost) => LEFT + ((cost - left) / (right - left || 1)) * (width - LEFT - RIGHT);
    this.y = (value) => TOP + ((high - value) / (high - low)) * (this.floor - TOP);
    this.svg.replaceChildren();
    for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) {
      this.svg.setAttribute(name, value);
    }
    this.drawAxes(width, [left, right], [low, high]);
    if (frontier) this.svg.append(makeSvg("path", { class: "frontier", d: this.trace(frontier) }));
    paths.forEach((path, number) => this.drawPath(path, number));
    agents.forEach((agent, number) => this.drawAgent(agent, number % 8));
    if (budget !== null) {
      const x = this.x(budget);
      this.svg.append(makeSvg("line", { class: "budget", x1: x, x2: x, y1: TOP, y2: this.floor }),
        makeSvg("text", { class: "label", x: x + 4, y: this.floor - 6, text: `budget ${formatNumber(budget, percent)}` }));
    }
    this.marker = makeSvg("g", { "data-passing": "" });
    this.svg.append(this.marker);
    this.point();
  }

  drawAxes(width, [left, right], [low, high]) {
    for (const tick of findTicks(low, high, 6)) {
      const y = this.y(tick);
      this.svg.append(makeSvg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
        makeSvg("text", { class: "tick", x: LEFT - 6, y: y + 3.5, "text-anchor": "end", text: formatNumber(tick) }));
    }
    for (const tick of findTicks(left, right, width / 110)) {
      this.svg.append(makeSvg("text", { class: "tick", x: this.x(tick), y: this.floor + 16, "text-anchor": "middle",
        text: formatNumber(tick, this.plane.percent) }));
    }
    this.svg.append(makeSvg("text", { class: "axis", x: (LEFT + width - RIGHT) / 2, y: this.floor + BOTTOM - 6, "text-anchor": "middle",
      text: this.plane.cost }));
  }

  drawPath(path, number) {
    if (!path.length) return;
    const [first, last] = [path[0].at, path.at(-1).at];
    this.svg.append(makeSvg("path", { class: `curve c${number} line`, d: this.trace(path.map((one) => one.at)) }),
      makeSvg("circle", { class: `ring c${number}`, cx: this.x(first[0]), cy: this.y(first[1]), r: 4 }),
      makeSvg("circle", { class: `dot c${number}`, cx: this.x(last[0]), cy: this.y(last[1]), r: 4.5 }));
  }

  drawAgent({ name, at, spread }, colour) {
    const [x, y] = [this.x(at[0]), this.y(at[1])];
    const bar = (x1, x2, y1, y2) => makeSvg("line", { class: `bar c${colour}`, x1, x2, y1, y2 });
    this.svg.append(bar(this.x(at[0] - spread[0]), this.x(at[0] + spread[0]), y, y),
      bar(x, x, this.y(at[1] - spread[1]), this.y(at[1] + spread[1])),
      makeSvg("circle", { class: `dot c${colour}`, cx: x, cy: y, r: 4 }),
      makeSvg("text", { class: "label", x: x + 8, y: y - 6, text: name }));
  }

  trace(points) {
    return points.map(([x, y], i) => `${i ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
  }

  // Marks where the paths were at the cursor of the curves.
  point() {
    if (!this.marker) return;
    this.marker.replaceChildren();
    this.paths.forEach((path, number) => {
      const here = path.find((one) => one.step === this.group?.cursor);
      if (here) this.marker.append(makeSvg("circle", { class: `here c${number}`, cx: this.x(here.at[0]), cy: this.y(here.at[1]), r: 7 }));
    });
  }

  saveTable(name) {
    const agents = this.plane.agents.map((one) => [one.name, ...one.at, ...one.spread]);
    const best = (this.plane.frontier || []).map((at) => ["best possible", ...at]);
    const paths = (this.paths || []).flatMap((path, number) => path.map((one) => [`${this.runs[number].name}, step ${one.step}`, ...one.at]));
    saveCsv(name, ["what", this.plane.cost, this.plane.objective, "spread of the cost", "spread"], [...best, ...paths, ...agents]);
  }
}
