// What the page shows: runs, their columns of numbers, and their batches of dialogues, which are opened on demand.
import { find } from "./elements.js";

export const PAGE = JSON.parse(find("data").textContent);
export const RUNS = PAGE.runs;

const EVERY = 3000; // milliseconds between two questions for what is new

// Asks the server of a live page for what is new, again and again. `show` is told after each answer whether there was one,
// and whether anything is new. Runs stay the same objects, for a view or a search under way may hold them.
export function follow(show) {
  if (!PAGE.live) return;
  let tag = "";
  const ask = async () => {
    try {
      const answer = await fetch("data", { headers: { "If-None-Match": tag } });
      if (answer.ok) {
        tag = answer.headers.get("ETag");
        const news = await answer.json();
        news.runs.forEach((run, number) => Object.assign(RUNS[number], run));
        PAGE.comparisons = news.comparisons;
        show(true, true);
      } else show(answer.status === 304, false);
    } catch {
      show(false, false);
    }
    setTimeout(ask, EVERY);
  };
  setTimeout(ask, EVERY);
}

// The steps and values of a column such as "rl.kl"; null where the run has none.
export function readColumn(run, name) {
  const dot = name.indexOf(".");
  const source = run.sources[name.slice(0, dot)];
  const y = source && source.columns[name.slice(dot + 1)];
  return y ? { x: source.step, y } : null;
}

export const findBatch = (run, key) => run.batches.find((batch) => batch.key === key);

const KEPT = 12; // batches that stay open
const opened = new Map();

// Opens a batch: its groups of dialogues, in the order of the file. Fails where the page has none of that key.
export function openBatch(run, key) {
  const number = RUNS.indexOf(run);
  const id = `chunk-${number}-${key}`;
  if (!opened.has(id)) {
    opened.set(id, PAGE.live ? askForChunk(number, key) : readChunk(id));
    opened.get(id).catch(() => opened.delete(id));
    if (opened.size > KEPT) opened.delete(opened.keys().next().value);
  }
  return opened.get(id);
}

async function askForChunk(number, key) {
  const answer = await fetch(`chunks/${number}/${encodeURIComponent(key)}`);
  if (!answer.ok) throw new Error("The server has no such dialogues.");
  return unpack(answer.body);
}

const unpack = (stream) => new Response(stream.pipeThrough(new DecompressionStream("gzip"))).json();

async function readChunk(id) {
  if (!find(id) && document.readyState === "loading") {
    await new Promise((resume) => document.addEventListener("DOMContentLoaded", resume, { once: true }));
  }
  if (!find(id)) throw new Error("This page has no such dialogues.");
  const binary = atob(find(id).textContent);
  const bytes = Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
  return unpack(new Blob([bytes]).stream());
}
