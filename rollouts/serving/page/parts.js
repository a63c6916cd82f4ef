// Takes answers apart that models write in parts: <name>…</name>, one after the other. Any other tag is text.

const PARTS = "think|thinking|thought|reasoning|response|answer|action";
const PART = new RegExp(`^\\s*<(${PARTS})>([^]*?)(?:</\\1>\\s*|(?:</?[a-z]*)?$)`); // the last may still be written

// Returns thought, said and badges of an answer. What is in no part is said.
export function takeApart(text) {
  const parts = { thought: [], said: [], badges: [] };
  let rest = text;
  for (let found; (found = PART.exec(rest)); rest = rest.slice(found[0].length)) {
    const [, name, words] = found;
    if (name === "action") parts.badges.push([words.trim(), "plain"]);
    else parts[name === "response" || name === "answer" ? "said" : "thought"].push(words.trim());
  }
  const begun = rest.trimStart();
  const opening = PARTS.split("|").some((name) => `<${name}>`.startsWith(begun)); // is being written
  if (begun && !opening) parts.said.push(rest.trim());
  return { thought: parts.thought.join("\n"), said: parts.said.join("\n"), badges: parts.badges };
}
