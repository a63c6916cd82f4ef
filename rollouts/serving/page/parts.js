// Takes answers apart that models write in parts: <name>…</name>, one after the other.

const THOUGHTS = ["think", "thinking", "thought", "reasoning"];
const PART = /^\s*<([a-z_]+)>([\s\S]*?)(?:<\/\1>\s*|(?:<\/?[a-z_]*)?$)/; // the last one may still be written

// Returns thought, said and badges of an answer. One that does not begin with a part was said as it is.
export function takeApart(text) {
  const others = [];
  let thought = "";
  let rest = text;
  for (let found; (found = PART.exec(rest)); rest = rest.slice(found[0].length)) {
    if (THOUGHTS.includes(found[1])) thought += found[2].trim();
    else others.push([found[1], found[2].trim()]);
  }
  if (/^\s*<\/?[a-z_]*$/.test(rest)) rest = ""; // a tag that is being written
  const [first, ...more] = others;
  const said = [first?.[1], rest.trim()].filter(Boolean).join("\n");
  return { thought, said, badges: more.map(([name, value]) => [`${name} ${value}`, "plain"]) };
}
