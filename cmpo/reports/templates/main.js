// Shows the view that the address names, and moves through views by keys.
import { makeConfig, makeCurves, makeEvaluations } from "./curves.js";
import { PAGE, RUNS, findBatch, follow, openBatch } from "./data.js";
import { makeDialogueView, makeGroupView } from "./dialogue.js";
import { find, make, makeLink } from "./elements.js";
import { makeComparison, makeScans } from "./findings.js";
import { makeBatch, makeBatches } from "./steps.js";

const LEVELS = ["Group", "Dialogue", "Turn"]; // of places in a batch

const main = find("main");
const notices = make("div", { id: "notices", "aria-live": "polite" });
const listViews = () => [RUNS[0].kind === "run" && ["curves", "Curves"], ["steps", "Dialogues"], PAGE.comparisons.length > 0 && ["compare", "Compare"],
  RUNS[0].evaluations && ["evaluations", "Evaluations"], ["scans", "Scanners"], ["config", "Config"]].filter(Boolean);
const findFirstView = () => (RUNS[0].kind === "run" ? "curves" : PAGE.comparisons.length ? "compare" : "evaluations");

let curves = null;
let shown = null; // the address that is shown; a slower view of an older one is dropped

// Splits an address: "#step/12/3/1/2" has a batch, a group, a dialogue and a turn, counted from 1.
function readAddress() {
  const [view, key, ...places] = decodeURIComponent(location.hash.slice(1)).split("/");
  return { view: view || findFirstView(), key, places };
}

// The numbers of a group, a dialogue and a turn, as an address has them. Fails where one leads nowhere.
function readPlaces(places, groups) {
  let within = groups;
  for (const [level, place] of places.entries()) {
    if (level === LEVELS.length) throw new Error(`There is nothing in a turn, but the address goes on with "${place}".`);
    const found = /^\d+$/.test(place) ? within[place - 1] : undefined;
    if (!found) throw new Error(`There is no ${LEVELS[level].toLowerCase()} "${place}": there are ${within.length}, counted from 1.`);
    within = found.dialogues || found.turns;
  }
  return places.map(Number);
}

async function showAddress() {
  const address = (shown = location.hash), [run] = RUNS;
  let view = "";
  try {
    const found = readAddress(), { key } = found;
    ({ view } = found);
    if (view === "step") {
      if (!key) throw new Error('The address names no step; one that does is "#step/12".');
      if (!findBatch(run, key)) throw new Error(`This page has no dialogues of ${key}.`);
      const groups = await openBatch(run, key);
      if (shown !== address) return;
      const places = readPlaces(found.places, groups), [group, dialogue, turn] = places;
      const path = makePath(key, places, groups);
      if (!group) put(view, path, makeBatch(run, key, groups));
      else if (!dialogue) put(view, path, makeGroupView(run, key, groups, group));
      else put(view, path, makeDialogueView(run, key, groups, group, dialogue, turn));
    } else if (view === "curves" && run.kind === "run") {
      put(view, (curves = curves || makeCurves()));
    } else if (view === "steps") put(view, makeBatches(run));
    else if (view === "evaluations" && run.evaluations) put(view, makeEvaluations(run));
    else if (view === "scans") put(view, makeScans(run));
    else if (view === "compare" && PAGE.comparisons.length) put(view, makeComparison());
    else if (view === "config") put(view, makeConfig(run));
    else throw new Error(`There is no view "${view}".`);
  } catch (error) {
    const text = error instanceof URIError ? `This is no address of the page: ${address}` : error.message;
    if (shown === address) put(view, make("p", { class: "notice", role: "alert", text }));
  }
}

function put(view, ...elements) {
  const again = main.dataset.view !== undefined;
  main.dataset.view = view;
  showNotices();
  main.replaceChildren(notices, ...elements);
  const current = view === "step" ? "steps" : view;
  find("views").replaceChildren(...listViews().map(([name, text]) => makeLink(`#${name}`, text, { "aria-current": name === current && "page" })));
  document.title = [main.querySelector("h2")?.textContent, RUNS.map((one) => one.name).join(" and ")].filter(Boolean).join(" · ");
  const turn = main.querySelector(".turn.shown");
  if (turn) turn.scrollIntoView({ block: "start" });
  else window.scrollTo(0, 0);
  if (again) main.focus({ preventScroll: true });
}

// What is amiss with the runs, above every view.
function showNotices() {
  const texts = RUNS.filter((one) => one.notice).map((one) => (RUNS.length > 1 ? `${one.name}: ${one.notice}` : one.notice));
  notices.replaceChildren(...texts.map((text) => make("p", { class: "notice", text })));
}

// The way from the curves down to here, and the neighbours on the same level.
function makePath(key, places, groups) {
  const names = [findBatch(RUNS[0], key).title, ...places.map((place, level) => `${LEVELS[level]} ${place}`)];
  const links = names.map((name, level) => makeLink(`#${["step", key, ...places.slice(0, level)].join("/")}`, name, { "aria-current": level === names.length - 1 && "page" }));
  const items = [makeLink("#steps", "Dialogues"), ...links].map((link) => make("li", {}, link));
  const [back, on] = [-1, 1].map((way) => findNeighbour(key, places, groups, way));
  return make("nav", { class: "path", "aria-label": "Where you are" }, make("ol", {}, ...items),
    make("span", { class: "neighbours" }, back ? makeLink(back, "‹ Previous", { title: "k", rel: "prev" }) : "", on ? makeLink(on, "Next ›", { title: "j", rel: "next" }) : ""));
}

// The address before or after one of a batch, group, dialogue or turn; dialogues go on in the next group.
function findNeighbour(key, places, groups, way) {
  const [group, dialogue, turn] = places;
  if (!group) {
    const { batches } = RUNS[0];
    const next = batches[batches.findIndex((batch) => batch.key === key) + way];
    return next ? `#step/${next.key}` : null;
  }
  const there = (g, d) => groups[g - 1]?.dialogues[d - 1];
  if (!dialogue) return groups[group - 1 + way] ? `#step/${key}/${group + way}` : null;
  if (turn) return there(group, dialogue)?.turns[turn - 1 + way] ? `#step/${key}/${group}/${dialogue}/${turn + way}` : null;
  if (there(group, dialogue + way)) return `#step/${key}/${group}/${dialogue + way}`;
  const other = groups[group - 1 + way];
  return other ? `#step/${key}/${group + way}/${way > 0 ? 1 : other.dialogues.length}` : null;
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, .plot, [role=region]")) return;
  const way = { j: "next", ArrowRight: "next", k: "prev", ArrowLeft: "prev" }[event.key];
  if (way) main.querySelector(`a[rel=${way}]`)?.click();
  else if (event.key === "u") [...main.querySelectorAll(".path li a")].at(-2)?.click();
  else if (event.key === "/" && find("search")) {
    event.preventDefault();
    find("search").focus();
  }
}

// Says whether the server of a live page answers. What is new is drawn, unless somebody is about to do something in the
// view; dialogues do not change.
function showNews(reached, isNew) {
  const state = reached ? `live, step ${RUNS[0].step}` : "the server does not answer";
  if (find("live").textContent !== state) find("live").textContent = state; // what did not change is not read out again
  if (!isNew) return;
  showNotices();
  curves = null;
  if (main.dataset.view === "step" || main.querySelector(".plot:hover, :focus, details[open] > div")) return;
  const place = [window.scrollX, window.scrollY];
  showAddress().then(() => window.scrollTo(...place));
}

if (PAGE.live) find("top").append(make("span", { id: "live", class: "quiet", role: "status", text: `live, step ${RUNS[0].step}` }));
follow(showNews);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is that of the view
  main.focus();
});
window.addEventListener("hashchange", showAddress);
document.addEventListener("keydown", press);
showAddress();
