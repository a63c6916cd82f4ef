"""Every released record: loads, renders through the chat template, plays one turn; counts beside the method's tables.

    .venv/bin/python -m benchmarks.records [DIRECTORY]

DIRECTORY holds hard/train.parquet and normal/train.parquet, as released; default: ../shared/data/fds. The agent is the
scripted generous one, user and judge are embedded. Exits with status 1 if a record fails.
"""

import collections
import pathlib
import statistics
import sys
import time

from cmpo import card
from cmpo.training import collecting, demonstrations
from configs import fds as configs
from models import tokenizer as tokenizers
from rollouts import chat
from rollouts.domains.fds import generator, released, turn_format
from rollouts.domains.fds.scenario import DEMANDS
from rollouts.domains.fds.scripted import ScriptedAgent
from rollouts.types import Message

COUNTS = {"hard": (720, 2400, 1920, 1920, 720), "normal": (696, 696, 2378, 2204, 1450)}  # the method's, by level
SAMPLE = 64  # one record in so many teaches the tokenizer


def check(path: pathlib.Path, difficulty: str) -> bool:
    """Prints what became of the records in `path`; returns whether all is well."""
    started = time.perf_counter()
    scenarios = list(released.read_records(str(path)))
    loaded = time.perf_counter() - started

    config = configs.get_config()
    config.episode.max_turns = 1
    agents = collecting.serve_agent(ScriptedAgent("generous"))
    dialogues = collecting.collect_dialogues(config, agents, scenarios, repeats=1, seed=0)
    good = sum(each.ok and len(each.turns) == 1 and bool(each.turns[0].notes["scores"]) for each in dialogues)
    causes = collections.Counter(each.failure for each in dialogues if each.failure)
    played = time.perf_counter() - started - loaded

    texts = (text for each in scenarios[::SAMPLE] for text in (each.agent_prompt, generator.user_prompt(each)))
    tokenizer = tokenizers.train_tokenizer(texts, config.model.vocab_size)
    prompts, faithful = [], 0
    for dialogue in dialogues:
        system = Message("system", dialogue.task.agent_prompt)
        ids = chat.encode_opening(tokenizer, [system, Message("user", dialogue.turns[0].messages[-1].content)])
        prompts.append(len(ids))
        faithful += dialogue.task.agent_prompt.strip() in tokenizer.decode(ids)
        demonstrations.encode_conversation(tokenizer, turn_format, demonstrations.from_dialogue(dialogue))
    rendered = time.perf_counter() - started - loaded - played

    found = card.count_scenarios(scenarios)
    levels = tuple(found.count_level(level) for level in range(1, 6))
    gap = max(
        abs(found.find_share(demand, level) - generator.DEMAND_WEIGHTS[demand][level - 1])
        for demand in DEMANDS
        for level in range(1, 6)
    )
    characters = [len(each.agent_prompt) for each in scenarios]
    rows = (
        ("loaded", f"{len(scenarios):,} in {loaded:.1f} s"),
        ("played one turn, judged", f"{good:,} in {played:.1f} s; failed: {dict(causes)}"),
        ("rendered, the prompt unchanged", f"{faithful:,} in {rendered:.1f} s"),
        ("prompt and opening", f"{statistics.mean(prompts):,.0f} tokens, at most {max(prompts):,}"),
        ("system prompt", f"{statistics.mean(characters):,.0f} characters, at most {max(characters):,}"),
        ("records by level", f"{levels}; the method: {COUNTS[difficulty]}"),
        ("P(demand given level)", f"within {100 * gap:.1f} points of the method's"),
        ("complaints", dict(found.complaints.most_common())),
        ("different personas, orders, scenarios", tuple(map(len, (found.personas, found.orders, found.scenarios)))),
    )
    print(f"\n| {difficulty} | |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows), flush=True)
    return good == faithful == len(scenarios) and levels == COUNTS[difficulty]


if __name__ == "__main__":
    directory = pathlib.Path(*sys.argv[1:] or ["../shared/data/fds"])
    checks = [check(directory / difficulty / "train.parquet", difficulty) for difficulty in COUNTS]
    sys.exit(not all(checks))
