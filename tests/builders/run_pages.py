"""A run with dialogues as a page shows them, and what a page carries, taken out of its HTML as a browser takes it."""

import base64
import dataclasses
import gzip
import html.parser
import json

import numpy as np

from cmpo.run.log import RunLog
from rollouts.domains.fds.scenario import Record
from rollouts.types import TokenNotes
from tests.builders.dialogues import COSTS, dialogue, task, turn

WORD = "w" * 100_000
NASTY = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "</script><script>window.hacked = 1</script>",
    "half \ud800 a character",
    "\u202efed\u202c cba \u2066",
    WORD,
)
STEPS = (3, 4, 5)


def record(step, rate=0.5):
    return {
        "step": step,
        "phase": "rl",
        "satisfaction": 2.0 + step / 10,
        "voucher_rate": rate,
        "voucher_rate_smoothed": 0.4,
        "lambda": 0.1 * step,
        "kl": 0.01 * step,
        "dialogues_ok": 4,
        "dialogues_failed": {},
        "seconds": {"sample": 2.0, "update": 1.0},
    }


def batch(step):
    """Two groups: in the first, two dialogues part in their second turn; in the second, all texts are nasty."""
    first = turn(0.5, said="Cold soup.", response="I am sorry.", think="Plan.")
    gives = turn(1.0, said="And?", action="voucher", response=f"A voucher for step {step}.")
    refuses = turn(0.0, said="And?", response="No.", reason="It is rude.")
    hostile = Record("other", None, (), NASTY[0])
    worst = task(NASTY[1], level=4, record=hostile)
    nasty = [turn(0.25, said=text, response=text, think=text, reason=text) for text in NASTY]
    return [
        dialogue(first, refuses, outcome=1.0, task=task("soup")),
        dialogue(first, gives, outcome=5.0, index=1, task=task("soup")),
        dialogue(*nasty, outcome=3.0, last_words=NASTY[0], task=worst),
        dialogue(
            turn(), failure="user_timeout", failure_message=NASTY[0], index=1, task=task(NASTY[1], record=hostile)
        ),
    ]


def sampled(turn, texts, logprobs, credit=None, ratios=None):
    """A turn whose transcript keeps its tokens."""
    notes = TokenNotes(texts, ratios)
    logprobs = np.array(logprobs, np.float32)
    return dataclasses.replace(turn, ids=np.arange(len(texts)), logprobs=logprobs, credit=credit, token_notes=notes)


def sampled_batch():
    """A group of two: one dialogue whose transcript keeps tokens, hostile ones in its last turn, and one's without."""
    words = sampled(turn(0.5, response="Sorry."), ["So", "", "rry.\n", "<|im_end|>"], [-0.01, -0.5, -3.0, -5.5])
    learnt = sampled(turn(1.0), ["Hi", "!"], [-0.05, -1.0], credit=-0.4, ratios=np.array([0.7, 1.1]))
    hostile = sampled(turn(0.25), list(NASTY), [-1.0] * len(NASTY))
    return [dialogue(words, learnt, hostile, outcome=2.0), dialogue(turn(0.5), index=1, outcome=3.0)]


def write_run(folder, name="a run", **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": name, "pid": {"target": 0.3}}))
    with RunLog(folder, COSTS) as log:
        for step in STEPS:
            log.write(record(step, **changes))
            log.write_transcripts(step, batch(step))
    return folder


class _Scripts(html.parser.HTMLParser):
    """Collects the content of script elements by id, all tags, and the values of links."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.scripts, self._open, self.policy = set(), [], {}, None, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        self.links += [value for name, value in attrs.items() if name in ("src", "href", "xlink:href")]
        if attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        self._open = attrs.get("id", "") if tag in ("script", "style") else None
        if self._open is not None:
            self.scripts[self._open or tag] = ""

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open is not None:
            last = list(self.scripts)[-1]
            self.scripts[last] += data


class RunPage:
    """A page: `runs` as its scripts read them, and `groups(key)` of the first."""

    def __init__(self, path):
        self.html = path.read_text()
        self.parsed = _Scripts(self.html)
        self.runs = json.loads(self.parsed.scripts["data"])["runs"]
        self.run = self.runs[0]

    def groups(self, key, run=0):
        return json.loads(gzip.decompress(base64.b64decode(self.parsed.scripts[f"chunk-{run}-{key}"])))

    def panels(self, run=0):
        return {panel["title"]: panel for section in self.runs[run]["sections"] for panel in section["panels"]}

    def column(self, name, run=0):
        source, _, inner = name.partition(".")
        found = self.runs[run]["sources"][source]
        return dict(zip(found["step"], found["columns"][inner], strict=True))
