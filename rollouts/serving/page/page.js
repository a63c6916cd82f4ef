// The page to talk to agents: what there is to choose from, and what begins and ends a conversation.

import { ask } from "./asking.js";
import { chosen, find, make, makeChoice, showNotice } from "./elements.js";
import { playScenario } from "./scenario.js";
import { beginConversation } from "./yourself.js";

let leave = () => {};

async function open() {
  let offer, models;
  try {
    offer = await ask("/page/about");
    models = (await ask("/v1/models").catch(() => ({ data: [] }))).data.map((model) => model.id);
  } catch (error) {
    showNotice(error.message);
    return;
  }
  find("title").textContent = offer.title;
  const modes = [offer.tasks.length && "scenario", models.length && "yourself"].filter(Boolean);
  if (!modes.length) {
    showNotice("This server offers neither scenarios nor models.");
    return;
  }
  fillScenario(offer);
  fillYourself(offer, models);
  find("modes").hidden = modes.length < 2;
  for (const input of find("modes").querySelectorAll("input")) {
    input.checked = input.value === modes[0];
    input.addEventListener("change", () => showSetup(input.value));
  }
  showSetup(modes[0]);
  find("back").addEventListener("click", () => showSetup(find("modes").querySelector("input:checked").value));
  find("thoughts").addEventListener("change", () => {
    for (const fold of document.querySelectorAll(".thought")) fold.open = find("thoughts").checked;
  });
}

// Shows what a mode lets choose from; a conversation that goes on is left.
function showSetup(mode) {
  leave();
  leave = () => {};
  showNotice("");
  const focused = find("talk").contains(document.activeElement);
  find("talk").hidden = true;
  for (const id of ["scenario", "yourself"]) find(id).hidden = id !== mode;
  if (focused) find(mode).querySelector("input").focus();
  window.scrollTo(0, 0);
}

function showTalk() {
  for (const id of ["scenario", "yourself"]) find(id).hidden = true;
  find("talk").hidden = false;
  window.scrollTo(0, 0);
  find("words").focus({ preventScroll: true });
}

function fillScenario(offer) {
  find("agents").replaceChildren(...offer.agents.map((name, number) =>
    makeChoice("checkbox", "agent", name, number < 2, make("bdi", { text: name }))));
  find("tasks").replaceChildren(...offer.tasks.map((task, number) =>
    makeChoice("radio", "task", number, number === 0, describeTask(task))));
  listenTo("scenario", async () => {
    const names = chosen("agents");
    if (!names.length) throw new Error("Choose who serves you.");
    leave = await playScenario(offer, names, Number(chosen("tasks")[0]));
  });
}

function describeTask({ lines, labels }) {
  const [first, ...more] = lines;
  const told = lines.join(" ");
  const isTold = (value) => typeof value === "string" && told.includes(value.replaceAll("_", " "));
  const news = Object.entries(labels).filter(([, value]) => !isTold(value));
  const named = news.map(([name, value]) => `${name} ${value}`).join(" · ");
  return make("span", {}, make("span", { text: first, class: "text" }),
    ...more.map((text) => make("span", { text, class: "labels quiet" })),
    named && make("span", { text: named.replaceAll("_", " "), class: "labels quiet" }));
}

function fillYourself(offer, models) {
  find("models").replaceChildren(...models.map((name, number) =>
    makeChoice("checkbox", "model", name, number < 2, make("bdi", { text: name }))));
  find("templates").hidden = !offer.tasks.length;
  find("template").append(...offer.tasks.map((task, number) => make("option", { value: number, text: task.lines[0] })));
  find("template").addEventListener("change", () => {
    const number = find("template").value;
    find("system").value = number === "" ? "" : offer.tasks[number].opening;
  });
  listenTo("yourself", async () => {
    const names = chosen("models");
    if (!names.length) throw new Error("Choose who answers you.");
    const sampling = {};
    for (const field of ["temperature", "max_tokens", "seed"]) {
      if (find(field).value !== "") sampling[field] = Number(find(field).value);
    }
    leave = beginConversation(offer, names, find("system").value.trim(), sampling);
  });
}

// Begins a conversation when a form is sent, once at a time.
function listenTo(id, begin) {
  let busy = false;
  find(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    showNotice("");
    try {
      await begin();
      showTalk();
    } catch (error) {
      showNotice(error.message);
    } finally {
      busy = false;
    }
  });
}

open();
