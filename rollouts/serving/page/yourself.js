// A free conversation with the server's models, by the OpenAI protocol.

import { ask, readLines, Refusal, send } from "./asking.js";
import { Talk } from "./talk.js";
import { takeApart } from "./parts.js";

// Begins a conversation; returns what leaves it. `told` is the system text, `sampling` fields of the requests.
export function beginConversation(offer, models, told, sampling) {
  const first = told ? [{ role: "system", content: told }] : [];
  const memories = new Map(models.map((model) => [model, { messages: first, turns: 0, spent: new Map() }]));
  let stopping = new AbortController();
  const talk = new Talk(offer, models, {
    stop: () => stopping.abort(),
    say: async (text, names) => {
      stopping = new AbortController();
      const { signal } = stopping; // every answer shows its own failure, and hinders no other
      for (const name of names) answer(name, text, signal);
    },
  });

  async function answer(model, text, signal) {
    const memory = memories.get(model);
    const number = memory.turns++;
    const messages = [...memory.messages, { role: "user", content: text }];
    const written = { content: "", thought: "", action: "", tokens: 0 };
    const redraw = onceAFrame(() => talk.showTurn(model, describe(offer, number, written), { pending: true }));
    let remark = "";
    talk.addWords(model, text);
    try {
      const body = { model, messages, stream: true, stream_options: { include_usage: true }, ...sampling };
      await readCompletion(await send("/v1/chat/completions", { method: "POST", body, signal }), written, redraw);
    } catch (error) {
      remark = error.name === "AbortError" ? "Stopped." : error.message;
    }
    redraw.cancel();
    if (written.content) memory.messages = [...messages, { role: "assistant", content: written.content }];
    else if (!remark) remark = "There was no answer.";
    const turn = await read(offer, number, written);
    count(offer, memory.spent, turn.spent);
    if (written.tokens) memory.spent.set("tokens", (memory.spent.get("tokens") ?? 0) + written.tokens);
    talk.showTurn(model, { ...turn, remark, failed: Boolean(remark), spent: [...memory.spent] });
    talk.listen(model);
  }

  for (const model of models) talk.listen(model);
  return () => {
    stopping.abort();
    talk.close();
  };
}

// Describes a turn by its own parts; `action` is what a server says that does not show whole turns.
function describe(offer, number, { content, thought, action }) {
  const parts = takeApart(content);
  const costs = action in offer.costs;
  const badges = action ? [...parts.badges, [action, costs ? "cost" : "plain"]] : parts.badges;
  const spent = Object.keys(offer.costs).map((name) => [name, Number(name === action)]);
  const others = { number, badges, spent, raw: "", remark: "", remarks: "", judged: true };
  return { ...parts, ...others, thought: thought || parts.thought };
}

// Describes a whole turn: by the domain, if the server has one that reads such turns, else by its own parts.
async function read(offer, number, written) {
  const plain = describe(offer, number, written);
  if (!offer.reads_turns || written.thought || written.action || !written.content) return plain;
  try {
    return { ...plain, ...(await ask("/page/turns", { method: "POST", body: { text: written.content } })) };
  } catch {
    return plain; // too long for the page, or the server is gone: the next words will tell
  }
}

function count(offer, sums, spent) {
  for (const [name, amount] of spent) {
    const before = sums.get(name) ?? 0;
    sums.set(name, offer.costs[name] === "any" ? Math.max(before, amount) : before + amount);
  }
}

// Reads a streamed completion into `written`, and calls `changed` after each piece.
async function readCompletion(response, written, changed) {
  let whole = false;
  await readLines(response, (line) => {
    if (!line.startsWith("data:")) return;
    const data = line.slice("data:".length).trim();
    if (data === "[DONE]") {
      whole = true;
      return;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(chunk.error.message ?? String(chunk.error));
    const delta = chunk.choices?.[0]?.delta ?? {};
    written.content += delta.content ?? "";
    written.thought += delta.reasoning_content ?? delta.reasoning ?? "";
    written.action = delta.action ?? written.action;
    written.tokens = chunk.usage?.completion_tokens ?? written.tokens;
    changed();
  });
  if (!whole) throw new Refusal("The answer ended before it was whole.");
}

function onceAFrame(draw) {
  let asked = 0;
  const redraw = () => {
    asked ||= requestAnimationFrame(() => {
      asked = 0;
      draw();
    });
  };
  redraw.cancel = () => cancelAnimationFrame(asked);
  return redraw;
}
