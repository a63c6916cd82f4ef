// Draws curves over steps as SVG. Charts of one group share the cursor, the part of the steps shown, and the smoothing.
import { make, makeSvg } from "./elements.js";
import { makeExports, saveCsv, savePng, saveSvg } from "./saving.js";
import { findRange, findTicks, formatNumber, formatTick, smooth } from "./numbers.js";

const HEIGHT = 168, LEFT = 46, RIGHT = 12, TOP = 10, BOTTOM = 22, DRAG = 5;

export class ChartGroup {
  constructor(open) {
    Object.assign(this, { charts: [], range: null, weight: 0, cursor: null, open, watchers: [] });
  }

  change(values) {
    Object.assign(this, values);
    for (const chart of this.charts) chart.draw();
    this.tell();
  }

  point(step) {
    this.cursor = step;
    for (const chart of this.charts) chart.point();
    this.tell();
  }

  tell() {
    for (const watch of this.watchers) watch(this);
  }
}

// A card with a chart. `series`: {name, x, y, colour (0 to 7), role: line | faint | dashed}; `lines`: {at, label};
// `marks`: steps with something amiss; `named`: a curve's name is shown even where it is alone.
export class Chart {
  constructor(group, { title, series, lines = [], marks = [], percent = false, named = false, note = "" }) {
    Object.assign(this, { group, title, lines, marks, percent, named, series: series.map((one) => ({ ...one, shown: true })) });
    this.steps = [...new Set(series.flatMap((one) => one.x))].sort((a, b) => a - b);
    this.svg = makeSvg("svg", { class: "chart", "aria-hidden": "true" });
    this.plot = make("div", { class: "plot", tabindex: "0", role: "slider", "aria-label": `${title}: the step shown`,
      "aria-valuemin": this.steps[0], "aria-valuemax": this.steps.at(-1) }, this.svg);
    this.readouts = this.series.map((one) => make("span", { class: "value" }));
    const exports = makeExports(title, {
      SVG: () => saveSvg(title, this.element), PNG: () => savePng(title, this.element), CSV: () => this.saveTable(),
    });
    this.element = make("figure", { class: "card" },
      make("figcaption", {}, make("h3", { text: title }), exports), this.makeLegend(),
      this.plot, note && make("p", { class: "quiet note", text: note }));
    group.charts.push(this);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  makeLegend() {
    const alone = this.series.length === 1 && !this.named;
    const entries = this.series.map((one, number) => {
      const key = make("span", { class: `key c${one.colour} ${one.role}`, "aria-hidden": "true" });
      const inside = [key, alone ? "" : make("span", { text: one.name }), this.readouts[number]];
      if (alone) return make("span", { class: "entry" }, ...inside);
      const button = make("button", { type: "button", class: "entry", "aria-pressed": "true" }, ...inside);
      button.addEventListener("click", () => {
        one.shown = !one.shown;
        button.setAttribute("aria-pressed", one.shown);
        this.draw();
      });
      return button;
    });
    return make("div", { class: "legend" }, ...entries);
  }

  draw() {
    const width = Math.round(this.plot.clientWidth);
    if (!width || !this.steps.length) return;
    this.width = width;
    const [from, to] = this.findSteps();
    const shown = this.series.filter((one) => one.shown);
    const drawn = shown.map((one) => ({ ...one, smooth: one.role === "faint" ? one.y : smooth(one.y, this.group.weight) }));
    const seen = drawn.flatMap((one) => one.y.filter((_, i) => one.x[i] >= from && one.x[i] <= to));
    let [low, high] = findRange([...seen, ...this.lines.map((line) => line.at)]) || [0, 1];
    const room = 0.08 * (high - low || Math.abs(high));
    [low, high] = [low >= 0 && low <= room ? 0 : low - room, high + room || 1]; // a curve of zeros lies below 1
    if (this.percent) [low, high] = [Math.max(low, 0), Math.min(high, 1.02)];
    this.x = (step) => LEFT + ((step - from) / (to - from || 1)) * (width - LEFT - RIGHT);
    this.y = (value) => TOP + ((high - value) / (high - low || 1)) * (HEIGHT - TOP - BOTTOM);
    this.stepAt = (x) => from + ((x - LEFT) / (width - LEFT - RIGHT)) * (to - from);
    this.svg.replaceChildren(makeSvg("title", { text: this.title }));
    for (const [name, value] of Object.entries({ width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}` })) {
      this.svg.setAttribute(name, value);
    }
    this.drawAxes(from, to, low, high);
    const curves = makeSvg("svg", { x: LEFT - 2, width: width - LEFT - RIGHT + 4, height: HEIGHT,
      viewBox: `${LEFT - 2} 0 ${width - LEFT - RIGHT + 4} ${HEIGHT}` });
    for (const step of this.marks) {
      curves.append(makeSvg("rect", { class: "mark", x: this.x(step) - 1.5, y: TOP, width: 3, height: HEIGHT - TOP - BOTTOM }));
    }
    for (const one of drawn) this.drawSeries(curves, one);
    this.svg.append(curves);
    this.drawLines();
    this.cursor = makeSvg("g", { "data-passing": "", class: "cursor" });
    this.svg.append(this.cursor);
    this.point();
  }

  // The steps to draw: those of the group, or its own where it has none of them, as curves of the warm-up.
  findSteps() {
    const [from, to] = this.group.range || this.group.all;
    const [first, last] = [this.steps[0], this.steps.at(-1)];
    return last < from || first > to ? [first, last] : [from, to];
  }

  drawAxes(from, to, low, high) {
    for (const tick of findTicks(low, high, 4)) {
      const y = this.y(tick);
      if (y < TOP - 1) continue;
      this.svg.append(makeSvg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }),
        makeSvg("text", { class: "tick", x: LEFT - 6, y: y + 3.5, "text-anchor": "end", text: formatTick(tick, this.percent) }));
    }
    for (const tick of findTicks(from, to, Math.max(2, this.width / 90), true)) {
      this.svg.append(makeSvg("text", { class: "tick", x: this.x(tick), y: HEIGHT - 5, "text-anchor": "middle", text: tick }));
    }
  }

  drawSeries(parent, one) {
    const look = `curve c${one.colour} ${one.role}`;
    if (this.group.weight && one.role === "line") {
      parent.append(makeSvg("path", { class: `curve c${one.colour} faint`, d: this.tracePath(one.x, one.y) }));
    }
    parent.append(makeSvg("path", { class: look, d: this.tracePath(one.x, one.smooth) }));
    if (one.x.length === 1) parent.append(makeSvg("circle", { class: `dot c${one.colour}`, cx: this.x(one.x[0]), cy: this.y(one.y[0]), r: 3 }));
  }

  // Of steps that share a pixel, only the lowest and the highest value are traced.
  tracePath(x, y) {
    const parts = [];
    let pen = "M", column = null, low = 0, high = 0;
    const flush = () => {
      if (column === null) return;
      const at = this.x(x[low]).toFixed(1);
      for (const i of low < high ? [low, high] : low > high ? [high, low] : [low]) {
        parts.push(`${pen}${x.length > 2 * this.width ? at : this.x(x[i]).toFixed(1)} ${this.y(y[i]).toFixed(1)}`);
        pen = "L";
      }
      column = null;
    };
    for (let i = 0; i < x.length; i++) {
      if (y[i] === null) {
        flush();
        pen = "M";
        continue;
      }
      const here = x.length > 2 * this.width ? Math.round(this.x(x[i])) : i;
      if (here !== column) {
        flush();
        [column, low, high] = [here, i, i];
      } else if (y[i] < y[low]) low = i;
      else if (y[i] > y[high]) high = i;
    }
    flush();
    return parts.join("");
  }

  drawLines() {
    for (const { at, label } of this.lines) {
      const y = this.y(at);
      this.svg.append(makeSvg("line", { class: "budget", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }),
        makeSvg("text", { class: "label", x: this.width - RIGHT, y: y - 4, "text-anchor": "end", text: label }));
    }
  }

  // Shows the values at the cursor, or else the latest, with its step where the curve ends before the others.
  point() {
    if (!this.cursor) return;
    const step = this.group.cursor;
    this.cursor.replaceChildren();
    this.series.forEach((one, number) => {
      let i = step === null ? one.x.length - 1 : one.x.indexOf(step);
      while (step === null && i > 0 && one.y[i] === null) i--;
      const old = step === null && i >= 0 && one.x[i] !== this.steps.at(-1) ? ` (step ${one.x[i]})` : "";
      this.readouts[number].textContent = formatNumber(one.y[i], this.percent) + old;
      if (step === null || !one.shown || i < 0 || one.y[i] === null) return;
      this.cursor.append(makeSvg("circle", { class: `dot c${one.colour}`, cx: this.x(step), cy: this.y(one.y[i]), r: 3 }));
    });
    if (step !== null && this.x(step) >= LEFT && this.x(step) <= this.width - RIGHT) {
      const x = this.x(step);
      this.cursor.prepend(makeSvg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }));
    }
    this.plot.setAttribute("aria-valuenow", step ?? this.steps.at(-1));
    const said = this.series.map((one, number) => `${one.name} ${this.readouts[number].textContent}`);
    this.plot.setAttribute("aria-valuetext", `step ${step ?? this.steps.at(-1)}: ${said.join(", ")}`);
  }

  listen() {
    const plot = this.plot;
    let began = null, box = null;
    const at = (event) => event.clientX - plot.getBoundingClientRect().left;
    const nearest = (x) => this.steps.reduce((a, b) => (Math.abs(this.x(b) - x) < Math.abs(this.x(a) - x) ? b : a));
    plot.addEventListener("pointerdown", (event) => {
      if (event.button === 0 && this.x) began = at(event);
    });
    plot.addEventListener("pointermove", (event) => {
      if (!this.x) return;
      this.group.point(nearest(at(event)));
      if (began === null || event.pointerType === "touch" || Math.abs(at(event) - began) < DRAG) return;
      plot.setPointerCapture(event.pointerId);
      box?.remove();
      const [left, right] = [began, at(event)].sort((a, b) => a - b);
      box = makeSvg("rect", { class: "zoom", x: left, width: right - left, y: TOP, height: HEIGHT - TOP - BOTTOM });
      this.cursor.append(box);
    });
    plot.addEventListener("pointerup", (event) => {
      if (began === null) return;
      const [left, right] = [began, at(event)].sort((a, b) => a - b);
      const zooms = box !== null;
      [began, box] = [null, null];
      if (!zooms) this.group.open(nearest(right));
      else this.group.change({ range: [this.stepAt(left), this.stepAt(right)].map((step) => Math.round(step)) });
    });
    plot.addEventListener("pointerleave", () => {
      if (!box) this.group.point(null);
    });
    plot.addEventListener("dblclick", () => this.group.change({ range: null }));
    plot.addEventListener("keydown", (event) => this.press(event));
    plot.addEventListener("blur", () => this.group.point(null));
  }

  press(event) {
    const place = this.group.cursor === null ? this.steps.length - 1 : this.steps.indexOf(this.group.cursor);
    const moves = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
    if (event.key in moves) {
      const next = Math.min(this.steps.length - 1, Math.max(0, place + moves[event.key]));
      this.group.point(this.steps[next]);
    } else if (event.key === "Enter") this.group.open(this.steps[place]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  saveTable() {
    const rows = this.steps.map((step) => [step, ...this.series.map((one) => one.y[one.x.indexOf(step)] ?? "")]);
    saveCsv(this.title, ["step", ...this.series.map((one) => one.name)], rows);
  }
}
