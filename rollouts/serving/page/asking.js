// Asks the page's own server, with its key if it needs one.

import { find } from "./elements.js";

let key = "";
const typed = []; // called when a key was typed

// What the server said instead of an answer; `status` is undefined where it said nothing.
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

// Sends a request; returns the response, or throws a Refusal. A server that needs a key is asked again with it.
export async function send(path, { method = "GET", body, signal, keepalive } = {}) {
  for (;;) {
    const used = key;
    const headers = new Headers();
    if (body) headers.set("Content-Type", "application/json");
    if (key) headers.set("Authorization", `Bearer ${key}`);
    let response;
    try {
      response = await fetch(path, { method, headers, body: body && JSON.stringify(body), signal, keepalive });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refusal("The server cannot be reached.");
    }
    if (response.status !== 401) find("key").close();
    if (response.ok) return response;
    if (response.status !== 401 || keepalive) throw new Refusal(await readError(response), response.status);
    if (used === key) await askForKey();
  }
}

export async function ask(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

// Calls `take` with each line of a response that is not empty, as it arrives.
export async function readLines(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : lines.pop();
    for (const line of lines) if (line.trim()) take(line);
    if (done) return;
  }
}

async function readError(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

// Waits for a key. The dialog stays until one is accepted.
function askForKey() {
  find("key_refused").hidden = !find("key").open;
  if (!find("key").open) find("key").showModal();
  return new Promise((resolve) => typed.push(resolve));
}

find("key").addEventListener("cancel", (event) => event.preventDefault()); // without a key there is nothing to see
find("key").querySelector("form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("key_text").value.trim();
  find("key_text").value = "";
  for (const resolve of typed.splice(0)) resolve();
});
