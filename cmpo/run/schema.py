"""The settings that every run has: type, range, default and meaning of each. A domain adds its own sections.

`configs/common.py` makes a config from the defaults, and `configs/fds.py` adds what FDS needs. A command checks a
config before it does anything else, so that a mistake does not cost the first minutes of a run. Endpoints are described
in `rollouts.endpoints.settings`. The engine, the mesh and the model check their own shapes when they are built.
"""

import dataclasses
import math
from typing import Annotated, Any, Literal

import pydantic
from ml_collections import ConfigDict

from cmpo import advantage, pid
from cmpo.gae import UNITS
from models.config import KERNELS
from rollouts import domains
from rollouts.domain import Domain
from rollouts.endpoints.settings import Endpoint
from rollouts.sections import (
    Axis,
    Count,
    Dtype,
    Natural,
    NotNegative,
    Positive,
    PositiveShare,
    Section,
    Seed,
    Share,
    check_section,
    flatten_config,
    per_cost,
)


class ModelSettings(Section):
    """Qwen2.5's architecture."""

    path: str = ""  # a directory in Hugging Face's format, or a name on the hub; "": a new model
    vocab_size: Natural = 2048  # of the tokenizer that the first start trains. With a path, each size must equal the
    # one in its config.json, or be 0
    hidden_size: Natural = 128
    intermediate_size: Natural = 384
    num_layers: Natural = 4
    num_heads: Natural = 2
    num_kv_heads: Natural = 1
    tie_embeddings: bool = True  # of a new model
    context_length: Count = 2048  # tokens that a dialogue may have, its prompt included
    initializer_range: NotNegative = 0.08  # of a new model, about 1 / sqrt(hidden_size)
    rope_theta: Positive = 1e4  # of a new model; Qwen2.5's own 10^6 is for contexts of 32,768
    dtype: Dtype = "float32"
    remat: bool = False  # compute layers again in the backward pass, which takes less memory and more time
    attention: Literal["auto", *KERNELS] = "auto"  # in training, see models/attention.py. auto: cudnn
    # on a single GPU in half precision, else blocks
    lora_rank: Natural = 0  # train adapters of this rank beside a frozen model; 0: train the model
    lora_alpha: NotNegative = 16.0


class MeshSettings(Section):
    """Devices on each axis; -1: all the remaining ones."""

    data: Axis = -1  # rows are split over data and fsdp
    fsdp: Axis = 1  # parameters are split over fsdp and tensor
    tensor: Axis = 1


class EngineSettings(Section):
    """The sampler."""

    slots: Count = 48  # dialogues sampled at a time. If there are more, a dialogue that waits for its user gives up
    # its slot
    chunk: Count = 32  # tokens of a prompt computed at a time
    rows: Natural = 8  # dialogues whose prompts are computed at a time; 0: all slots, as always on several devices
    steps: Count = 8  # tokens drawn before new requests join
    max_new_tokens: Count = 96  # a turn that is longer is cut: a format error
    temperature: Positive = 0.8  # of the policy, in sampling and training. Unlikely tokens of small models are noise
    top_k: Natural = 0  # 0: off. With top_k or top_p, the loss compares with the distribution drawn from
    top_p: PositiveShare = 1.0
    grammar: bool = False  # prevents malformed turns; log-probabilities stay those of the policy without the grammar


class RecordingSettings(Section):
    """Recordings of what endpoints answered."""

    record: str = ""  # a directory that keeps every request with its answer; a request that it holds is not sent again
    replay: str = ""  # answer from such a directory, without any endpoint


class EpisodeSettings(Section):
    """How long a dialogue may be."""

    max_turns: Count = 15
    farewell: bool = False  # whether the agent may answer once more after the end


class AlgoSettings(Section):
    """What is learnt from a batch, see docs/algorithms.md."""

    name: str = "cmpo"  # a method of cmpo/algorithms, or the package.module of your own
    group_size: Count = 4  # dialogues of a task
    outcome_weight: float = 1.0
    process_weight: float = 1.0  # the authors' code: 2
    normalize: Literal[advantage.NORMALIZE] = "center"  # the paper: trajectory, which with instant credit is blind to
    # the outcome
    credit: Literal[advantage.CREDIT] = "instant"  # the authors' code: dialogue
    discount: Share = 1.0
    price_scale: Literal[advantage.PRICE_SCALES] = "none"  # one_plus_lambda: advantages by 1 / (1 + sum of lambda)
    clip_low: Share = 0.2
    clip_high: NotNegative = 0.2
    kl_weight: NotNegative = 0.02  # the paper: 0.005, but its model loses its language less easily
    cost_weight: NotNegative = 0.0  # PPO and GDPO: the fixed price of a unit of each cost
    gae: Literal[UNITS] = "token"  # PPO: the steps of its critic
    gae_trace: Share = 0.95  # PPO: lambda of the generalized advantage
    value_learning_rate: NotNegative = 1e-3  # PPO: of the critic, whose schedule is that of config.train
    value_weight: NotNegative = 0.5  # PPO: of the critic's error in the loss of the policy below it
    value_clip: NotNegative = 0.2  # PPO: how far a value may move in a batch; 0: any way


class PidSettings(Section):
    """The controller of the multipliers. Each number may also be a mapping from every cost's name to a number."""

    enabled: bool = True  # False: lambda stays at its initial value
    form: Literal[pid.FORMS] = "incremental"
    every: Count = 1  # steps for which lambda is held; then it moves by their mean costs
    smoothing_of: Literal[pid.SMOOTHING_OF] = "both"  # proportional: the integral sees the costs as they are
    kp: per_cost(NotNegative) = 0.5
    ki: per_cost(NotNegative) = 0.15
    kd: per_cost(NotNegative) = 0.0
    target: per_cost(Share, NotNegative) = 0.30  # the budget: the most that a cost may be, in the mean over dialogues
    smoothing: per_cost(PositiveShare) = 0.7
    lambda_max: per_cost(Positive) = 5.0
    initial_lambda: per_cost(NotNegative) = 0.0


class SftSettings(Section):
    """Phase 1: demonstrations."""

    path: str = ""  # `messages` JSONL; "": the domain's scripted agent plays the demonstrations
    dialogues: Count = 3072
    exercise_steps: Natural = 0  # of config.train.sft_steps, the first, on exercises in reading: for a new model, which
    # has yet to learn that agents quote their prompts, see cmpo/training/exercises.py
    vary_facts: Share = 0.0  # share of the dialogues that are about invented names, prices and records, and of those
    vary_words: Share = 0.0  # whose customers' words are garbled: for small models, see cmpo/training/variations.py
    batch_rows: Count = 1
    learning_rate: NotNegative = 3e-3


class TrainSettings(Section):
    """How long a run trains, in what portions, and which failures it tolerates."""

    seed: Seed = 0
    sft_steps: Natural = 1200  # with half as many, CMPO has too little to choose from
    rl_steps: Natural = 160
    scenarios_per_step: Count = 12
    minibatches: Count = 1  # parts of a batch, in the order of its groups, each with its own update
    epochs: Count = 1  # how often all parts are used
    one_step_off: bool = False  # play a batch while the model is updated on the previous one, see docs/runs.md
    importance_cap: Annotated[float, pydantic.Field(ge=1)] = 2.0  # with one_step_off, the most that a token's
    # importance weight may be
    row_length: Count = 1280  # tokens of a packed row; doubled until the longest dialogue fits
    share_prefix: bool = True  # compute the common beginning of a group's dialogues once per row: the same loss from
    # fewer tokens. Has no effect for a model with a sliding window
    micro_rows: Count = 1  # rows a device computes at a time
    learning_rate: NotNegative = 3e-4
    warmup_fraction: Share = 0.03  # with a longer warm-up, lambda moves before the policy can follow
    final_fraction: Share = 0.2  # the cosine ends at this share of the learning rate
    weight_decay: NotNegative = 0.01
    max_grad_norm: Positive = 1.0
    momentum_dtype: Dtype = "float32"  # of AdamW's first moment; bfloat16 saves 2 of 16 bytes for each parameter
    checkpoint_every: Count = 20
    keep_checkpoints: Count = 2  # so many of the newest, and the best one, see docs/runs.md
    tokens_every: Natural = 10  # steps from one to the next whose transcripts keep each token's text, log-probability
    # and ratio, for the run's page; 0: none does
    replacements: Natural = 1  # how often to play a dialogue again whose endpoint failed
    max_failed_fraction: Share = 0.5  # if a larger share of a step's dialogues failed, the run is saved and stops
    max_skipped: Count = 5  # the run stops after so many steps in a row whose update was skipped, as it was not finite


class LogSettings(Section):
    """Where the numbers of a run go, beside its own directory."""

    wandb: str = ""  # a project of Weights & Biases, which the extra wandb is for, see docs/page.md; "": none


class EvalSettings(Section):
    """How an agent is evaluated."""

    scenarios: Count = 256
    seed: Seed = 1000  # of the held-out tasks
    temperature: NotNegative = 0.3  # a served agent need not explore; 0: always the most likely token
    evaluators: bool = True  # whether the domain's evaluators assess whole dialogues, too


class RunSettings(Section):
    """The sections that every run has."""

    domain: str = "fds"  # what dialogues are about, see docs/domains.md
    model: ModelSettings = ModelSettings()
    mesh: MeshSettings = MeshSettings()
    engine: EngineSettings = EngineSettings()
    endpoints: RecordingSettings = RecordingSettings()
    episode: EpisodeSettings = EpisodeSettings()
    algo: AlgoSettings = AlgoSettings()
    pid: PidSettings = PidSettings()
    sft: SftSettings = SftSettings()
    train: TrainSettings = TrainSettings()
    log: LogSettings = LogSettings()
    eval: EvalSettings = EvalSettings()


def check_config(config: ConfigDict) -> None:
    """Raises ValueError, naming the field, for a value that no run can start with."""
    tree = config.to_dict()
    flat = flatten_config(tree)
    for name, value in flat.items():
        if isinstance(value, float) and not math.isfinite(value) and not name.endswith(("_timeout", "_wait")):
            raise ValueError(f"config.{name}: expected a finite number, got {value}")
    check_section(RunSettings, tree)
    if (own := domains.load(tree).settings) is not None:
        check_section(own, tree)
    for name, value in flat.items():
        bits = 63 if ".budget_" in name else 31  # integers have 32 on devices
        if isinstance(value, int) and value >= 2**bits:
            raise ValueError(f"config.{name}: expected less than 2^{bits}, got {value!s:.30}")
    batch = config.train.scenarios_per_step * config.algo.group_size
    if config.train.minibatches > batch:
        raise ValueError(
            f"config.train.minibatches: expected at most the {batch} dialogues of a step, got "
            f"{config.train.minibatches}"
        )


def default_config(domain: Domain | None = None) -> dict[str, Any]:
    """Returns the sections that every run has, with their defaults, and those of a `domain` and its endpoints."""
    tree = RunSettings().model_dump()
    if domain is not None:
        own = domain.settings().model_dump() if domain.settings else {}
        asked = {name: dataclasses.asdict(Endpoint("", "")) for name in domain.endpoints}
        for name in own.keys() | asked.keys():
            tree[name] = tree.get(name, {}) | asked.get(name, {}) | own.get(name, {})
    return tree
