"""Measures the page of a synthetic run: its size, and how long a browser takes to open it and what is in it.

    .venv/bin/python -m benchmarks.pages --steps=500 --dialogues=128 --tokens_every=10

Dialogues have 3 turns of 20 words; every tenth step has tokens, as in a run with the default config. It needs chromium.
"""

import dataclasses
import json
import pathlib
import random
import tempfile
import time

import numpy as np
from absl import app, flags

from cmpo.reports import run_page
from cmpo.run.log import RunLog
from rollouts.types import TokenNotes
from tests.builders import browsers
from tests.builders.dialogues import COSTS, dialogue, task, turn
from tests.builders.run_pages import record

_STEPS = flags.DEFINE_integer("steps", 10, "Steps with dialogues.")
_DIALOGUES = flags.DEFINE_integer("dialogues", 128, "Dialogues of a step.")
_EVERY = flags.DEFINE_integer("tokens_every", 10, "Steps from one to the next with tokens; 0: none.")
_GROUP, _TURNS, _WORDS = 4, 3, 20
_BANK = (
    "sorry",
    "order",
    "late",
    "photo",
    "could",
    "please",
    "refund",
    "possible",
    "voucher",
    "record",
    "shows",
    "the",
)


def write_run(folder: pathlib.Path, steps: int, count: int, every: int) -> None:
    """Writes what a run of that many steps and dialogues leaves."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"pid": {"target": 0.3}}))
    rng = random.Random(0)
    with RunLog(folder, COSTS) as log:
        for step in range(1, steps + 1):
            log.write(record(step))
            log.write_transcripts(step, [_play(rng, number, every and step % every == 0) for number in range(count)])


def _play(rng: random.Random, number: int, spelled: bool):
    turns = [_speak(rng, spelled) for _ in range(_TURNS)]
    name = task(f"t{number // _GROUP}")
    return dialogue(*turns, index=number % _GROUP, outcome=float(rng.randint(1, 5)), task=name)


def _speak(rng: random.Random, spelled: bool):
    said, words = (" ".join(rng.choices(_BANK, k=_WORDS)) for _ in range(2))
    texts = ["<think>", "</think>", "<response>", *(f" {word}" for word in words.split()), "</response>", "<|im_end|>"]
    logprobs = -np.array([rng.expovariate(1) for _ in texts], np.float32)
    made = turn(rng.choice([0, 0.5, 1]), said=said, response=words, events=[], ids=range(len(texts)), logprobs=logprobs)
    notes = TokenNotes(texts, np.exp([rng.gauss(0, 0.05) for _ in texts]))
    return dataclasses.replace(made, credit=rng.gauss(0, 1), token_notes=notes if spelled else None)


def measure_page(url: str, step: int) -> dict[str, float]:
    """Measures the seconds until things are seen in a new browser."""
    found = {}
    with browsers.launched() as browser:
        page = browser.new_page()

        def lap(name, act, selector):
            started = time.perf_counter()
            act()
            page.locator(selector).first.wait_for(state="attached")
            found[name] = time.perf_counter() - started

        lap("curves", lambda: page.goto(url), "path.curve")
        paints = (
            "() => performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint').startTime"
        )
        found["first paint"] = page.evaluate(paints) / 1000
        lap("a step", lambda: page.goto(f"{url}#step/{step}"), ".group")
        lap("a dialogue", lambda: page.goto(f"{url}#step/{step}/2/1"), ".turn")
        field = page.get_by_label("colour tokens by")
        if field.count():
            lap("its tokens", lambda: field.select_option("logprobs"), ".token")
    return found


def main(_) -> None:
    """Prints a table of one run."""
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder, "run")
        write_run(run, _STEPS.value, _DIALOGUES.value, _EVERY.value)
        started = time.perf_counter()
        path = run_page.write_report(run)
        print(f"{path.stat().st_size / 1e6:.2f} MB, written in {time.perf_counter() - started:.1f} s")
        last = _STEPS.value - _STEPS.value % (_EVERY.value or 1)
        for name, seconds in measure_page(path.as_uri(), last).items():
            print(f"{name:12} {seconds:.2f} s")


if __name__ == "__main__":
    app.run(main)
