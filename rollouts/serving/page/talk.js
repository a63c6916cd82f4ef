// Draws a conversation of a person with one or several agents, who answer the same words side by side.

import { find, make, makeBadge, showNotice } from "./elements.js";

const spending = new Map(); // agent -> what each of its conversations on this page has cost, by the cost's name

export class Talk {
  // `offer` is what the server says of itself; `say(text, names)` sends words to agents; `stop()` ends their answers
  // early, if that is possible; `endings` are ways to end an agent's dialogue: a label, and the text that does it.
  constructor(offer, names, { say, stop, endings = [], help = "", most }) {
    this.offer = offer;
    this.say = say;
    this.endings = endings;
    this.stop = stop;
    this.exchanges = []; // {words, cells: name -> element}
    this.sides = new Map(names.map((name) => [name, this.makeSide(name)]));
    for (const id of ["names", "endings"]) {
      find(id).style.setProperty("--count", names.length);
      find(id).classList.toggle("alone", names.length === 1);
    }
    find("names").replaceChildren(...[...this.sides.values()].map((side) => side.head));
    find("endings").replaceChildren(...[...this.sides.values()].map((side) => side.foot));
    find("ending").hidden = !endings.length;
    find("ending").open = window.matchMedia("(min-width: 721px)").matches; // a phone has no room for it
    find("exchanges").replaceChildren();
    find("help").textContent = help;
    find("over").textContent = "";
    find("told").hidden = true;
    find("composer").hidden = false;
    find("words").value = "";
    if (most) find("words").maxLength = most;
    else find("words").removeAttribute("maxlength");
    this.listener = new AbortController();
    this.listenToPerson({ signal: this.listener.signal });
    this.update();
  }

  makeSide(name) {
    const spent = make("span", { class: "badges" });
    const budget = make("span", { class: "quiet" });
    const head = make("div", {}, make("h2", { text: name, dir: "auto" }), spent, budget);
    const foot = make("fieldset", {}, make("legend", { text: `End with ${name}` }));
    for (const { label, text } of this.endings) {
      const button = make("button", { type: "button", text: label, "aria-label": `End with ${name}: ${label}` });
      button.addEventListener("click", () => this.send(text, [name]));
      foot.append(button);
    }
    const shown = { head, foot, spent, budget, cell: null, turns: new Map() };
    return { name, ...shown, costs: null, said: 0, waits: false, over: false };
  }

  listenToPerson(options) {
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      const listeners = this.goingOn().map((side) => side.name);
      if (find("words").value.trim()) this.send(find("words").value, listeners, true);
    }, options);
    find("words").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      find("composer").requestSubmit();
    }, options);
    find("stop").addEventListener("click", () => {
      this.stop();
      find("words").focus(); // the button goes
    }, options);
  }

  // Sends words to agents if all of these wait for them; `written` in the field, which is then emptied.
  async send(text, names, written = false) {
    const sides = names.map((name) => this.sides.get(name));
    if (!sides.length || !sides.every((side) => side.waits)) return;
    showNotice("");
    for (const side of sides) side.waits = false;
    if (written) find("words").value = "";
    this.update();
    try {
      await this.say(text.toWellFormed(), names); // half a surrogate pair could be sent to nobody
    } catch (error) {
      if (error.name === "AbortError") return;
      showNotice(error.message);
      if (written && !find("words").value) find("words").value = text;
      for (const side of sides) side.waits = !side.over;
      this.update();
    }
  }

  goingOn() {
    return [...this.sides.values()].filter((side) => !side.over);
  }

  get over() {
    return this.goingOn().length === 0;
  }

  tell(text) {
    find("told").hidden = false;
    find("told").open = true;
    find("told_text").textContent = text;
  }

  // Shows what the person said to an agent: above all answers if it is the same for all, else with the agent's own.
  addWords(name, text) {
    const side = this.sides.get(name);
    side.waits = false;
    const isEnding = this.endings.some((ending) => ending.text === text);
    const exchange = this.findExchange(isEnding && side.said ? side.said - 1 : side.said++, text);
    side.cell = exchange.cells.get(name);
    find("told").open = false;
    if (isEnding || exchange.words !== text) this.fill(side).append(makePersonsBubble(text));
    this.mark(side, true);
    this.update();
    this.scroll(true);
  }

  findExchange(index, text) {
    if (!this.exchanges[index]) {
      const cells = new Map();
      for (const { name } of this.sides.values()) {
        cells.set(name, make("article", { class: "answer gone", "aria-label": name },
          make("h3", { class: "whose", text: name, dir: "auto" })));
      }
      const alone = this.sides.size === 1;
      const row = make("div", { class: "row" }, ...cells.values());
      row.style.setProperty("--count", this.sides.size); // an attribute would be inline style, which the page forbids
      const words = this.endings.some((ending) => ending.text === text) ? undefined : text;
      const bubble = words === undefined ? null : makePersonsBubble(text);
      const section = make("section", { class: `exchange${alone ? " alone" : ""}` }, bubble, row);
      find("exchanges").append(section);
      this.exchanges[index] = { words, cells, section };
    }
    return this.exchanges[index];
  }

  // Returns the cell that an agent's next answer is shown in.
  fill(side) {
    side.cell ??= this.findExchange(0).cells.get(side.name);
    side.cell.classList.remove("gone");
    return side.cell;
  }

  // Marks whether more of an agent's answer is to come, which is read out when it is whole.
  mark(side, pending) {
    this.fill(side).classList.toggle("pending", pending);
    this.fill(side).setAttribute("aria-busy", pending);
  }

  // Shows a turn of an agent, in place of an earlier one of the same number.
  showTurn(name, turn, { pending = false } = {}) {
    const follows = this.isAtEnd();
    const side = this.sides.get(name);
    const shown = makeTurn(turn, side.turns.get(turn.number));
    if (side.turns.has(turn.number)) side.turns.get(turn.number).replaceWith(shown);
    else this.fill(side).append(shown);
    side.turns.set(turn.number, shown);
    this.mark(side, pending);
    if (turn.spent) this.showSpent(name, turn.spent);
    this.scroll(follows);
  }

  // Shows what this conversation has cost, and what those with the agent cost in the mean, beside the budget.
  showSpent(name, spent) {
    const side = this.sides.get(name);
    const badges = spent.map(([what, amount]) => {
      const tone = what in this.offer.costs && amount ? "cost" : "plain";
      return makeBadge([`${what} ${+amount.toFixed(2)}`, tone]);
    });
    side.spent.replaceChildren(...badges);
    if (!spending.has(name)) spending.set(name, []);
    const all = spending.get(name);
    if (!side.costs) all.push((side.costs = {}));
    Object.assign(side.costs, Object.fromEntries(spent));
    side.budget.textContent = Object.entries(this.offer.budgets).map(([what, budget]) => {
      const mean = all.reduce((sum, costs) => sum + (costs[what] ?? 0), 0) / all.length;
      return `${what}: mean ${mean.toFixed(2)} of ${all.length}, budget ${budget.toFixed(2)}`;
    }).join("; ");
  }

  // Lets the person speak to an agent, who has answered.
  listen(name) {
    const side = this.sides.get(name);
    side.waits = true;
    if (side.cell) this.mark(side, false);
    this.update();
  }

  showEnd(name, { badge, worth, failure }) {
    const follows = this.isAtEnd();
    const side = this.sides.get(name);
    side.over = true;
    side.waits = false;
    this.mark(side, false);
    this.fill(side).append(make("div", { class: "end" }, make("div", {}, makeBadge(badge)),
      worth && make("p", { class: "text", text: worth }),
      failure && make("p", { class: "text failure", text: failure })));
    this.update();
    this.scroll(follows);
  }

  // Shows who may be spoken to now.
  update() {
    const ready = !this.over && this.goingOn().every((side) => side.waits);
    const answering = this.goingOn().some((side) => !side.waits && side.cell);
    for (const side of this.sides.values()) {
      side.foot.hidden = side.over;
      for (const button of side.foot.querySelectorAll("button")) button.setAttribute("aria-disabled", !side.waits);
    }
    find("send").setAttribute("aria-disabled", !ready);
    find("stop").hidden = !(this.stop && answering);
    if (this.over && !find("composer").hidden) {
      const focused = find("dock").contains(document.activeElement);
      find("composer").hidden = true;
      find("ending").hidden = true;
      find("over").textContent = this.sides.size > 1 ? "All dialogues have ended." : "The dialogue has ended.";
      if (focused) find("back").focus();
    }
  }

  isAtEnd() {
    return window.innerHeight + window.scrollY > document.documentElement.scrollHeight - 200;
  }

  // Scrolls down if the person `follows` what comes, but no further than to the words that are being answered.
  scroll(follows) {
    if (follows) this.exchanges.at(-1).section.scrollIntoView({ block: "start" });
  }

  close() {
    this.listener.abort();
    find("send").setAttribute("aria-disabled", true);
  }
}

function makePersonsBubble(text) {
  return make("p", { class: "bubble person", text, dir: "auto" });
}

function makeTurn(turn, before) {
  const shown = make("div", { class: "turn" });
  if (turn.thought) {
    const fold = make("details", { class: "thought" }, make("summary", { text: "Thought" }),
      make("p", { class: "text", text: turn.thought, dir: "auto" }));
    fold.open = before?.querySelector(".thought")?.open ?? find("thoughts").checked;
    shown.append(fold);
  }
  if (turn.said) shown.append(make("p", { class: "text said", text: turn.said, dir: "auto" }));
  else if (turn.raw) shown.append(make("p", { class: "text raw", text: turn.raw, dir: "auto" }));
  if (turn.badges.length) {
    shown.append(make("ul", { class: "badges", "aria-label": "Action and scores" },
      ...turn.badges.map((badge) => makeBadge(badge, "li"))));
  }
  const remark = turn.remark || (turn.judged ? "" : "at work …");
  if (remark) {
    const whose = make("b", { text: turn.remarks ?? "Judge: " });
    shown.append(make("p", { class: turn.failed ? "remark failure" : "remark" }, whose,
      make("span", { class: "text", text: remark, dir: "auto" })));
  }
  return shown;
}
