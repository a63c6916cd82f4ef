// Plays a scenario: the person is the user of one or several agents, each in a dialogue of its own on the server.

import { ask, readLines, send } from "./asking.js";
import { showNotice } from "./elements.js";
import { Talk } from "./talk.js";

const PATIENCE = 10; // attempts to reach the server again, a second apart

// Begins a scene and draws it until it is over or left; returns what leaves it.
export async function playScenario(offer, names, task) {
  const { id } = await ask("/page/scenes", { method: "POST", body: { task, agents: names } });
  const path = `/page/scenes/${id}`;
  const leaving = new AbortController();
  const talk = new Talk(offer, names, {
    endings: offer.endings,
    help: offer.help,
    most: offer.max_characters,
    say: (text, to) => ask(`${path}/words`, { method: "POST", body: { text, agents: to } }),
  });

  function leave() {
    if (leaving.signal.aborted) return;
    leaving.abort();
    talk.close();
    send(path, { method: "DELETE", keepalive: true }).catch(() => {}); // else the server notices in a while
  }

  window.addEventListener("pagehide", leave, { signal: leaving.signal });
  follow(path, talk, leaving.signal);
  return leave;
}

async function follow(path, talk, signal) {
  let next = 0;
  let failed = 0;
  while (!talk.over && !signal.aborted) {
    try {
      const response = await send(`${path}/events?from=${next}`, { signal });
      await readLines(response, (line) => {
        next += 1;
        show(talk, JSON.parse(line));
      });
      failed = 0;
    } catch (error) {
      if (signal.aborted) return;
      failed += 1;
      if (error.status || failed > PATIENCE) {
        for (const { name } of talk.goingOn()) talk.showEnd(name, { badge: ["gone", "bad"], worth: "", failure: "" });
        showNotice(error.message);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

function show(talk, event) {
  if (event.kind === "told") talk.tell(event.text);
  else if (event.kind === "said") talk.addWords(event.agent, event.text);
  else if (event.kind === "turn") talk.showTurn(event.agent, event);
  else if (event.kind === "ready") talk.listen(event.agent);
  else if (event.kind === "end") talk.showEnd(event.agent, event);
}
