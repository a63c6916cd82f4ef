// What the page shows: runs, their columns of numbers, and their batches of dialogues, which are opened on demand.
import { find } from "./elements.js";

export const PAGE = JSON.parse(find("data").textContent);
export const RUNS = PAGE.runs;

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
  const id = `chunk-${RUNS.indexOf(run)}-${key}`;
  if (!opened.has(id)) {
    opened.set(id, readChunk(id));
    opened.get(id).catch(() => opened.delete(id));
    if (opened.size > KEPT) opened.delete(opened.keys().next().value);
  }
  return opened.get(id);
}

async function readChunk(id) {
  if (!find(id) && document.readyState === "loading") {
    await new Promise((resume) => document.addEventListener("DOMContentLoaded", resume, { once: true }));
  }
  if (!find(id)) throw new Error("This page has no such dialogues.");
  const binary = atob(find(id).textContent);
  const bytes = Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}
