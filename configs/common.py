"""What config files share: the sections that every run has, and variants that any domain may have.

`cmpo/run/schema.py` says what each setting means.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from cmpo.run import schema
from rollouts.endpoints.settings import Endpoint

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
_PACE = {"ppo": 1 / 3}  # of the learning rate; with all of it PPO fell apart after 26 steps

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
LARGE = {  # what a large model is trained with, on all GPUs
    "model.dtype": "bfloat16",
    "model.remat": True,
    "mesh.data": 1,
    "mesh.fsdp": -1,
    "engine.chunk": 512,
    "engine.rows": 0,
    "engine.steps": 16,
    "engine.max_new_tokens": 1024,
    "engine.temperature": 1.0,
    "sft.learning_rate": 1e-5,
    "train.micro_rows": 1,
    "train.learning_rate": 1e-6,
    "train.warmup_fraction": 0.1,
    "eval.temperature": 1.0,
}


def get_config() -> ConfigDict:
    """A config of the defaults, to which a domain's config file adds what is the domain's own."""
    config = ConfigDict(schema.default_config())
    config.agent = make_endpoint("", url="", temperature=0.6, max_tokens=1024)  # an agent to evaluate; "": none
    return config


def make_endpoint(model: str, *, url: str = "embedded", **changes) -> ConfigDict:
    """An endpoint's section; `rollouts/endpoints/settings.py` says what each setting means."""
    return ConfigDict(dataclasses.asdict(Endpoint(url, model, **changes)))


def choose_model(config: ConfigDict, name: str) -> None:
    """Changes the config to a large model: one of QWEN, or any other checkpoint by its directory or name on the hub."""
    config.update_from_flattened_dict(LARGE)
    size = name.removeprefix("qwen2.5-").upper()
    begin_with(config, f"Qwen/Qwen2.5-{size}-Instruct" if name in QWEN else name)
    if name in QWEN:
        config.model.update(dict(zip(_SIZES, QWEN[name], strict=True)))
    if config.model.hidden_size >= 5120:
        config.mesh.tensor = 2  # for sampling, only the tensor axis splits a model


def begin_with(config: ConfigDict, path: str) -> None:
    """Changes the config to begin with the checkpoint at `path`, which settles all sizes."""
    config.model.update(dict.fromkeys(_SIZES, 0) | {"path": path, "tie_embeddings": False})


def choose_algorithm(config: ConfigDict, name: str) -> None:
    """Changes the config to a method of ALGOS."""
    config.algo.name = name
    config.update_from_flattened_dict(ALGOS[name])
    config.train.learning_rate *= _PACE.get(name, 1.0)


def read_variants(arg: str, kinds: Mapping[str, Sequence[str] | Callable[[str], bool]]) -> list[tuple[str, str]]:
    """Reads the variants in `arg` as pairs of kind and value, in the order of `kinds`.

    A kind has the values that it may have, or what tells whether it may have one; with none, it stands alone.
    Raises ValueError for an unknown variant, and for two of one kind.
    """
    found: dict[str, str] = {}
    for variant in filter(None, arg.split(",")):
        kind, _, value = variant.partition("=")
        allowed = kinds.get(kind)
        fits = bool(value) and (allowed(value) if callable(allowed) else value in (allowed or ()))
        if not fits and not (variant == kind and allowed == ()):
            raise ValueError(f"unknown variant {variant!r}; expected one of {[_show(*kind) for kind in kinds.items()]}")
        if found.setdefault(kind, value) != value:
            raise ValueError(f"expected one variant {kind}=, got {found[kind]!r} and {value!r}")
    return sorted(found.items(), key=lambda variant: list(kinds).index(variant[0]))


def _show(kind: str, allowed: Sequence[str] | Callable[[str], bool]) -> str:
    if callable(allowed):
        return f"{kind}=…"
    return f"{kind}={'|'.join(allowed)}" if allowed else kind
