"""A file of `cmpo.evaluate`, as small as those who read it take it."""

import json

from cmpo.run.json_lines import write_lines
from cmpo.run.transcripts import to_transcript
from configs import fds
from tests.builders.dialogues import COSTS, FDS, dialogue, task, turn


def evaluation(agent, rate=0.25, satisfaction=3.0, **changes):
    """What one dialogue could have left, but for these two means; `changes` are of the config."""
    config = fds.get_config()
    config.update_from_flattened_dict(changes)
    summary = {name: {"mean": None, "std": None, "count": 0} for name in FDS.measures}
    summary |= {"voucher_rate": {"mean": rate, "std": 0.01}, "satisfaction": {"mean": satisfaction, "std": 0.02}}
    return {
        "agent": agent,
        "step": 5,
        **{name: {"url": config[name].url, "model": config[name].model} for name in ("user", "judge")},
        "prompts": {"user": "0f"},
        "seeds": [{"seed": 1000, "scenarios": "5a"}],
        "code": "c0",
        "since_training": {},
        "summary": summary,
        "config": config.to_dict(),
        "dialogues": [{"seed": 1000, "scenario": "s", "values": dict.fromkeys(summary, 1.0)}],
    }


def write_evaluation(path, outcomes, *, tasks=(), **changes):
    """Writes what an evaluation of a dialogue for each outcome leaves: the file, and transcripts beside it.

    `tasks` are the names of the dialogues' tasks, t0, t1 and so on where there are none.
    """
    path.parent.mkdir(exist_ok=True)
    played = [
        dialogue(turn(0.5), turn(0.5, response=f"{path.stem} says {outcome:g}."), outcome=outcome, task=task(name))
        for name, outcome in zip(tasks or [f"t{i}" for i in range(len(outcomes))], outcomes, strict=True)
    ]
    rows = [
        {"seed": 1000, "scenario": one.task.id, "values": dict.fromkeys(FDS.measures, 1.0) | {"satisfaction": outcome}}
        for one, outcome in zip(played, outcomes, strict=True)
    ]
    found = evaluation(path.stem, satisfaction=sum(outcomes) / len(outcomes), **changes) | {"dialogues": rows}
    path.write_text(json.dumps(found))
    transcripts = [{"seed": 1000, **to_transcript(one, COSTS)} for one in played]
    write_lines(path.with_suffix(".transcripts.jsonl"), transcripts)
    return path
