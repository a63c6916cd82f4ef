"""A file of `cmpo.evaluate`, as small as those who read it take it."""

from configs import fds
from tests.builders.dialogues import FDS


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
