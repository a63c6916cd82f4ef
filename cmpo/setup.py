"""What a run needs before its first step: a workdir of its own, demonstrations, a tokenizer, a model, a sampler."""

import functools
import json
import pathlib
from collections.abc import Callable

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from cmpo import demonstrations, pid, rollout, sharding
from cmpo import state as train_state
from cmpo.data import Source
from cmpo.demonstrations import Conversation
from cmpo.state import TrainState
from models import qwen2
from models import tokenizer as tokenizers
from models.tokenizer import Tokenizer
from rollouts.engine import Engine, Sampling
from rollouts.seeds import fold


class ConfigConflict(ValueError):
    """The workdir belongs to a run with another config."""


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
    """Makes `workdir` this run's, or checks that it already is. Raises ConfigConflict naming the fields that differ.

    A workdir with nothing but a config in it, left by a run that failed at once, may be taken by another.
    """
    path = workdir / "config.json"
    if path.exists() and [other for other in workdir.iterdir() if other != path]:
        check(workdir, config)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def check(workdir: pathlib.Path, config: ConfigDict, prefix: str = "") -> None:
    """Compares `config` with the one that `workdir` was made with, as far as field names begin with `prefix`.

    Raises FileNotFoundError if there is no run, ConfigConflict naming the fields that differ.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"--workdir: expected a run with a config.json, found none in {str(workdir)!r}")
    here, there = _flatten(config.to_dict()), _flatten(json.loads(path.read_text(encoding="utf-8")))
    names = (name for name in sorted(here.keys() | there.keys()) if name.startswith(prefix))
    differ = [
        f"{name} is {there.get(name)!r} there, {here.get(name)!r} here"
        for name in names
        if here.get(name) != there.get(name)
    ]
    if differ:
        raise ConfigConflict(
            f"{workdir} holds a run with another config ({', '.join(differ[:3])}); choose another --workdir"
        )


def prepare(
    config: ConfigDict, workdir: pathlib.Path, source: Source, done: Callable[[], None] = lambda: None
) -> tuple[list[Conversation], Tokenizer]:
    """The demonstrations and the tokenizer, made on the first run and kept in the workdir.

    Without config.sft.path, the scripted generous agent plays config.sft.dialogues training scenarios.
    """
    path = pathlib.Path(config.sft.path or workdir / "demonstrations.jsonl")
    if not config.sft.path and not path.exists():
        dialogues = rollout.collect(
            config,
            rollout.scripted_agents("generous"),
            source.train(0, config.sft.dialogues),
            repeats=1,
            seed=fold(config.train.seed, "demonstrations"),
            judged=False,
            done=done,
        )
        demonstrations.write(path, (demonstrations.from_dialogue(dialogue) for dialogue in dialogues if dialogue.ok))
    conversations = demonstrations.read(path)
    directory = workdir / "tokenizer"
    if not (directory / "tokenizer_config.json").exists():
        texts = (message.content for conversation in conversations for message in conversation)
        tokenizers.train(texts, config.model.vocab_size).save(directory)
    return conversations, tokenizers.load(directory)


def model(config: ConfigDict, tokenizer: Tokenizer) -> qwen2.Qwen2Config:
    """The policy's architecture."""
    sizes = {name: value for name, value in config.model.items() if name not in ("vocab_size", "context_length")}
    return qwen2.Qwen2Config(vocab_size=tokenizer.vocab_size, max_positions=config.model.context_length, **sizes)


def engine(config: ConfigDict, model: qwen2.Qwen2Config, tokenizer: Tokenizer, **changes) -> Engine:
    """The sampler, without weights yet; `changes` replace options of config.engine."""
    options = {"capacity": config.model.context_length, **config.engine, **changes}
    return Engine(model, tokenizer.im_end, Sampling(**options))


def controller(config: ConfigDict) -> tuple[pid.PIDGains, pid.PIDState]:
    """The multiplier's controller and its first state."""
    names = ("kp", "ki", "kd", "target", "smoothing", "lambda_max", "form")
    gains = pid.PIDGains(**{name: config.pid[name] for name in names})
    return gains, pid.init(gains, config.pid.initial_lambda)


def optimizers(config: ConfigDict) -> dict[str, optax.GradientTransformation]:
    """The optimizers of the phases "sft" and "rl"; their states have the same structure."""
    train = config.train
    return {
        phase: train_state.optimizer(
            learning_rate=rate,
            steps=steps,
            warmup_fraction=train.warmup_fraction,
            final_fraction=train.final_fraction,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
        )
        for phase, rate, steps in (
            ("sft", config.sft.learning_rate, train.sft_steps),
            ("rl", train.learning_rate, train.rl_steps),
        )
    }


def mesh(config: ConfigDict, model: qwen2.Qwen2Config) -> Mesh:
    """The mesh that config.mesh names. Raises ValueError, naming the axis, if it fits not the devices or the model."""
    made = sharding.make_mesh(**config.mesh)
    sharding.check(made, model)
    return made


def abstract_state(config: ConfigDict, model: qwen2.Qwen2Config, mesh: Mesh) -> TrainState:
    """Shapes and shardings of the run's state, of every checkpoint too, as `jax.ShapeDtypeStruct`s."""
    shapes = jax.eval_shape(functools.partial(_new_state, config, model))

    def placed(leaf, sharding):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(placed, shapes, sharding.tree(mesh, shapes))


def initial_state(config: ConfigDict, model: qwen2.Qwen2Config, mesh: Mesh) -> TrainState:
    """The state before the first step, made on the devices that hold it."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, model, mesh))
    return jax.jit(functools.partial(_new_state, config, model), out_shardings=shardings)()


def _new_state(config: ConfigDict, model: qwen2.Qwen2Config) -> TrainState:
    return train_state.init(model, optimizers(config)["sft"], controller(config)[1], config.train.seed)


def _flatten(tree: dict, prefix: str = "") -> dict[str, object]:
    flat = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
