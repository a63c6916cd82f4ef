"""CMPO on FDS, food-delivery disputes.

Default: a language model of a million parameters against the embedded user and judge, on a laptop.
  command   python -m cmpo.main --config=configs/fds.py --workdir=runs/fds      (or: make train)
  hardware  2 CPU cores, 15 minutes
  result    satisfaction 3.19 at a voucher rate of 30 %, every dialogue finished; the best possible at 30 %: 3.21
Variants, joined by commas after a colon, e.g. `configs/fds.py:smoke` or `configs/fds.py:algo=grpo,difficulty=normal`:
  smoke                 the whole loop in about a minute, too short to learn; with a model=, its fewest steps
  algo=NAME             cmpo | grpo | capo | ppo | reinforce | gdpo | sft, see docs/algorithms.md
  difficulty=hard|normal
  turns=NUMBER          also hold the mean number of the agent's turns at NUMBER
  model=NAME            qwen2.5-0.5b, -1.5b, -3b, -7b, -14b, -32b or -72b with the paper's settings, on all GPUs; any
                        other checkpoint by its directory or its name on the hub. --dry_run tells whether it fits
"""

import math

from ml_collections import ConfigDict

from configs import common
from rollouts.domains.fds.schema import FdsSettings

ALGOS = {
    "cmpo": {},
    "grpo": {"algo.normalize": "group"},
    "capo": {},
    # By tokens, or with a strong pull of its first large errors, an untrained critic spoils the policy in ten steps.
    "ppo": {"train.epochs": 2, "algo.gae": "turn", "algo.value_weight": 0.05, "algo.value_clip": 0.0},
    "reinforce": {},
    "gdpo": {},
    "sft": {"train.rl_steps": 0},
}
"""The methods of cmpo/algorithms, and what each changes in the config beside its name."""

_SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "tie_embeddings")
QWEN = {
    "qwen2.5-0.5b": (151936, 896, 4864, 24, 14, 2, True),
    "qwen2.5-1.5b": (151936, 1536, 8960, 28, 12, 2, True),
    "qwen2.5-3b": (151936, 2048, 11008, 36, 16, 2, True),
    "qwen2.5-7b": (152064, 3584, 18944, 28, 28, 4, False),
    "qwen2.5-14b": (152064, 5120, 13824, 48, 40, 8, False),
    "qwen2.5-32b": (152064, 5120, 27648, 64, 40, 8, False),
    "qwen2.5-72b": (152064, 8192, 29568, 80, 64, 8, False),
}
PAPER = {  # the authors' settings, as far as they are known
    "model.context_length": 8192,
    "model.dtype": "bfloat16",
    "model.remat": True,
    "mesh.data": 1,
    "mesh.fsdp": -1,
    "engine.slots": 64,
    "engine.chunk": 512,
    "engine.rows": 0,
    "engine.steps": 16,
    "engine.max_new_tokens": 1024,
    "engine.temperature": 1.0,
    "episode.format_outcome": 0.0,
    "algo.kl_weight": 0.005,
    "algo.normalize": "group",
    "pid.kp": 0.0,
    "pid.ki": 0.2,
    "sft.dialogues": 1536,
    "sft.batch_rows": 16,  # about 32 dialogues of 2,000 tokens
    "sft.learning_rate": 1e-5,  # open
    "train.sft_steps": 48,  # one epoch
    "train.rl_steps": 480,  # two epochs over the 7,680 hard records
    "train.scenarios_per_step": 32,  # 128 dialogues
    "train.row_length": 4096,  # a dialogue's usual length; rows double where one is longer
    "train.micro_rows": 1,
    "train.learning_rate": 1e-6,
    "train.warmup_fraction": 0.1,
    "eval.temperature": 1.0,
}


_VALUES = {"algo": tuple(ALGOS), "difficulty": ("hard", "normal")}
_ORDER = ("model", "difficulty", "smoke", "algo", "turns")
"""The order in which variants are applied, whatever their order in the string. A later one overrides an earlier one."""


def get_config(arg: str = "") -> ConfigDict:
    """The configuration for the variants named in `arg`. Raises ValueError for an unknown one."""
    config = common.get_config()
    config.domain = "fds"
    config.user = common.make_endpoint("embedded-user", temperature=1.2)
    config.judge = common.make_endpoint("embedded-judge", temperature=0.0, max_tokens=512)
    config.update(FdsSettings().model_dump())

    for kind, value in _read_variants(arg):
        _apply_variant(config, kind, value)
    return config


def _read_variants(arg: str) -> list[tuple[str, str]]:
    """Reads the variants in `arg` as pairs of kind and value, in the order in which they are applied."""
    found = {}
    for variant in filter(None, arg.split(",")):
        kind, _, value = variant.partition("=")
        free = value and (kind == "model" or (kind == "turns" and _is_number(value)))
        if variant != "smoke" and not (value and value in _VALUES.get(kind, ())) and not free:
            known = ["smoke", *(f"algo={name}" for name in ALGOS), "difficulty=hard|normal", "turns=…", "model=…"]
            raise ValueError(f"unknown variant {variant!r}; expected one of {known}")
        if found.setdefault(kind, value) != value:
            raise ValueError(f"expected one variant {kind}=, got {found[kind]!r} and {value!r}")
    return sorted(found.items(), key=lambda item: _ORDER.index(item[0]))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _apply_variant(config: ConfigDict, kind: str, value: str) -> None:
    if kind == "smoke":
        config.update_from_flattened_dict(
            {
                "sft.dialogues": 64,
                "train.sft_steps": 8,
                "train.rl_steps": 4,
                "train.scenarios_per_step": 4,
                "train.checkpoint_every": 4,
                "engine.slots": 16,
                "eval.scenarios": 16,
            }
        )
    elif kind == "algo":
        config.algo.name = value
        config.update_from_flattened_dict(ALGOS[value])
    elif kind == "turns":
        with config.ignore_type():
            config.pid.target = ConfigDict({"voucher": config.pid.target, "turns": float(value)})
            # How many turns a policy needs follows its multiplier late: a strong proportional part damps the swing.
            config.pid.kp = ConfigDict({"voucher": config.pid.kp, "turns": 8 * config.pid.kp})
            config.pid.ki = ConfigDict({"voucher": config.pid.ki, "turns": config.pid.ki})
        # Every turn costs one turn: compared with other turns alone, none would be to blame for those after it.
        config.algo.credit = "return_to_go"
    elif kind == "model":
        config.update_from_flattened_dict(PAPER)
        sizes = dict(zip(_SIZES, QWEN.get(value, (0, 0, 0, 0, 0, 0, False)), strict=True))
        config.model.update(sizes)
        size = value.removeprefix("qwen2.5-").upper()
        config.model.path = f"Qwen/Qwen2.5-{size}-Instruct" if value in QWEN else value
        if value in QWEN and config.model.hidden_size >= 5120:
            config.mesh.tensor, config.engine.slots = 2, 48  # for sampling, only the tensor axis splits a model
    else:
        config.data.difficulty = value
