// The views of what scanners found, and of a run beside others.
import { PAGE } from "./data.js";
import { make, makeLink } from "./elements.js";
import { formatNumber } from "./numbers.js";
import { makeTable } from "./table.js";

// What scanners found, by batch, with links to the first places.
export function makeScans(run) {
  const parts = run.scans.map(({ name, counts, links }) => {
    const hit = run.batches.filter((batch) => counts[batch.key]);
    const heading = make("h3", { class: "text", text: name });
    if (!hit.length) return make("section", {}, heading, make("p", { class: "quiet", text: "Nowhere." }));
    const rows = hit.reverse().map((batch) => {
      const [dialogues, turns] = counts[batch.key];
      return [{ text: batch.title, href: `#step/${batch.key}`, value: batch.step ?? -1 }, dialogues,
        { text: formatNumber(dialogues / batch.dialogues, true), value: dialogues / batch.dialogues }, turns,
        { class: "places", value: turns, content: listPlaces(batch.key, links[batch.key], turns) }];
    });
    return make("section", {}, heading, makeTable(name, ["where", "dialogues", "of all", "turns", "group/dialogue/turn"], rows, { sorts: true }));
  });
  return make("section", {}, make("h2", { text: "Scanners" }),
    make("p", { class: "quiet", text: "What is looked for in all that the agent said. Own patterns: python -m cmpo.report --scan=\"refund|callback\"." }), ...parts);
}

const SHOWN = 8;

function listPlaces(key, places, turns) {
  const links = places.slice(0, SHOWN).map((place) => makeLink(`#step/${key}/${place.join("/")}`, place.join("/")));
  return [...links.flatMap((link) => [link, " "]), turns > SHOWN ? `and ${turns - SHOWN} more` : ""];
}

// The first run beside the others: paired differences, evaluations, settings.
export function makeComparison() {
  const parts = PAGE.comparisons.map(({ names: [ours, theirs], pairs, settings, evaluations }) => {
    const head = ["measure", ours, theirs, "difference", "95 % interval"];
    return make("section", {}, make("h2", { text: `${ours} minus ${theirs}` }),
      make("h3", { text: "The same tasks at the same steps" }),
      ...pairs.map(({ title, rows }) => make("div", {}, make("p", { class: "quiet", text: title }), makeTable(title, head, rows))),
      pairs.length === 0 && make("p", { class: "quiet", text: "They have no dialogue of the same task and step in common." }),
      ...evaluations.map(({ title, rows, caveats }) => make("div", {}, make("h3", { text: title }), rows.length > 0 && makeTable(title, head, rows),
        ...caveats.map((text) => make("p", { class: "notice", text: rows.length ? text : `Not compared: ${text}` })))),
      make("h3", { text: "Settings that differ" }),
      settings.length ? makeTable("Settings that differ", ["setting", ours, theirs], settings) : make("p", { class: "quiet", text: "None." }));
  });
  return make("section", { class: "comparison" }, ...parts, make("p", { class: "quiet", text: "The interval is that of a bootstrap over tasks." }));
}
