"""CMPO on FDS, food-delivery disputes.

Default: a language model of a million parameters against the embedded user and judge, on a laptop.
  command   python -m cmpo.main --config=configs/fds.py --workdir=runs/fds      (or: make train)
  hardware  2 CPU cores, 15 minutes
  result    satisfaction 3.19 at a voucher rate of 30 %, every dialogue finished; the best possible at 30 %: 3.21
Variants, joined by commas after a colon, e.g. `configs/fds.py:smoke` or `configs/fds.py:algo=grpo,difficulty=normal`:
  smoke                 the whole loop in about a minute, too short to learn; with a model=, its fewest steps
  algo=NAME             cmpo; grpo: outcome only, no price; capo: outcome and judge, no price; sft: phase 1 only
  difficulty=hard|normal
  turns=NUMBER          also hold the mean number of the agent's turns at NUMBER
  model=NAME            qwen2.5-0.5b, -1.5b, -3b, -7b, -14b, -32b or -72b with the paper's settings, on all GPUs; any
                        other checkpoint by its directory or its name on the hub. --dry_run tells whether it fits
"""

import math

from ml_collections import ConfigDict

ALGOS = {"cmpo": {}, "grpo": {"algo.normalize": "group"}, "capo": {}, "sft": {"train.rl_steps": 0}}
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
    config = ConfigDict()
    config.domain = "fds"  # what dialogues are about, see rollouts/domains

    config.data = ConfigDict()
    config.data.path = ""  # a released parquet file; "": the generator
    config.data.difficulty = "hard"  # hard | normal; the generator's mix of cooperation levels
    config.data.endless = True  # the generator always makes new scenarios; False: the paper's number, epoch by epoch
    config.data.dir = ""  # of prepared records; "": $TFDS_DATA_DIR or ~/tensorflow_datasets, as in that library

    config.model = ConfigDict()  # Qwen2.5's architecture
    config.model.path = ""  # a directory in Hugging Face's format, or a name on the hub; "": a new model
    config.model.vocab_size = 2048  # of the tokenizer that the first run trains; with a path, the sizes must
    # be those in its config.json, or 0
    config.model.hidden_size = 128
    config.model.intermediate_size = 384
    config.model.num_layers = 4
    config.model.num_heads = 2
    config.model.num_kv_heads = 1
    config.model.tie_embeddings = True  # of a new model
    config.model.context_length = 2048  # tokens that a dialogue may have, with the prompt
    config.model.initializer_range = 0.08  # of a new model, about 1 / sqrt(hidden_size)
    config.model.dtype = "float32"
    config.model.remat = False  # compute layers again in the backward pass: less memory, more time
    config.model.lora_rank = 0  # train adapters of this rank beside a frozen model; 0: train the model
    config.model.lora_alpha = 16.0

    config.mesh = ConfigDict()  # devices on each axis; -1: all that are left
    config.mesh.data = -1  # rows are split over data and fsdp,
    config.mesh.fsdp = 1  # parameters over fsdp
    config.mesh.tensor = 1  # and tensor

    config.engine = ConfigDict()  # the sampler
    config.engine.slots = 48  # dialogues sampled at a time; if there are more, those that wait for their user give up
    # their slot
    config.engine.chunk = 32  # tokens of a prompt computed at a time,
    config.engine.rows = 8  # for this many dialogues; 0: for all slots, as on several devices
    config.engine.steps = 8  # tokens drawn before newcomers join
    config.engine.max_new_tokens = 96  # a turn that is longer is cut: a format error; demonstrations have up to 82
    config.engine.temperature = (
        0.8  # of the policy, in sampling and training; unlikely tokens of small models are noise
    )
    config.engine.top_k = 0  # 0: off. With top_k or top_p, the loss compares with the distribution drawn from
    config.engine.top_p = 1.0
    config.engine.grammar = False  # keep the policy from writing malformed turns; log-probabilities stay the policy's

    config.user = _make_endpoint("embedded-user", temperature=1.2)
    config.judge = _make_endpoint("embedded-judge", temperature=0.0, max_tokens=512)
    config.judge.weights = ConfigDict({"persona": 1.0, "stage": 1.0, "quality": 1.0, "rules": 1.0})
    config.judge.votes = 1  # answers that are averaged, each with its own seed: needs a temperature above 0
    config.agent = _make_endpoint("", temperature=0.6, url="", max_tokens=1024)  # an agent to evaluate; "": none

    config.endpoints = ConfigDict()
    config.endpoints.record = ""  # a directory that keeps every exchange; what is in it is not asked again
    config.endpoints.replay = ""  # answer from such a directory, without any endpoint

    config.episode = ConfigDict()
    config.episode.max_turns = 15
    config.episode.farewell = False  # may the agent answer once more after the rating?
    config.episode.format_outcome = -3.0  # of a dialogue with a format error; the paper: 0, the authors' code: -10

    config.algo = ConfigDict()
    config.algo.name = "cmpo"  # a method of cmpo/algorithms, or the package.module of your own
    config.algo.group_size = 4  # dialogues of a scenario
    config.algo.outcome_weight = 1.0
    config.algo.process_weight = 1.0  # the authors' code: 2
    config.algo.normalize = "center"  # group | trajectory | center | none; the paper: trajectory
    config.algo.credit = "instant"  # instant | return_to_go
    config.algo.discount = 1.0
    config.algo.clip_low = 0.2
    config.algo.clip_high = 0.2
    config.algo.kl_weight = 0.02  # the paper: 0.005, for a model that does not lose its language so easily

    config.pid = ConfigDict()  # the controller of the voucher rate
    config.pid.enabled = True  # False: lambda stays at its initial value
    config.pid.form = "incremental"  # incremental | positional
    config.pid.kp = 0.5
    config.pid.ki = 0.15
    config.pid.kd = 0.0
    config.pid.target = 0.30  # share of dialogues that may cost a voucher; or a budget for each cost, by its name.
    # The other numbers here may be given by name, too
    config.pid.smoothing = 0.7
    config.pid.lambda_max = 5.0
    config.pid.initial_lambda = 0.0

    config.sft = ConfigDict()  # phase 1: demonstrations
    config.sft.path = ""  # `messages` JSONL; "": written by the scripted generous agent in the gym
    config.sft.dialogues = 3072
    config.sft.batch_rows = 1
    config.sft.learning_rate = 3e-3

    config.train = ConfigDict()
    config.train.seed = 0
    config.train.sft_steps = 1200  # with half as many, CMPO has too little to choose from
    config.train.rl_steps = 160
    config.train.scenarios_per_step = 12
    config.train.minibatches = 1  # parts of a batch, in the order of its groups, each with its own update,
    config.train.epochs = 1  # and how often all parts are used
    config.train.one_step_off = False  # play a batch while the model is updated on the batch before, see docs/runs.md;
    config.train.importance_cap = 2.0  # its tokens, from before that update, get importance weights of at most this
    config.train.row_length = 1280  # tokens of a packed row; grows by doubling where a dialogue is longer
    config.train.share_prefix = True  # compute the common beginning of a group's dialogues once in a row: the same
    # loss from fewer tokens; not for a model with a sliding window
    config.train.micro_rows = 1  # rows a device computes at a time
    config.train.learning_rate = 3e-4
    config.train.warmup_fraction = 0.03  # if it is longer, lambda moves before the policy can follow
    config.train.final_fraction = 0.2  # the cosine ends at this share of the learning rate
    config.train.weight_decay = 0.01
    config.train.max_grad_norm = 1.0
    config.train.momentum_dtype = "float32"  # of AdamW's first moment; bfloat16 saves 2 of 16 bytes for each parameter
    config.train.checkpoint_every = 20
    config.train.keep_checkpoints = 2  # the newest; and the best, see docs/runs.md
    config.train.replacements = 1  # how often a dialogue whose endpoint failed is played again
    config.train.max_failed_fraction = 0.5  # if more dialogues of a step failed in the end, the run is saved and stops
    config.train.max_skipped = 5  # skipped updates in a row, as loss or gradient was not finite, that stop the run

    config.eval = ConfigDict()
    config.eval.scenarios = 256
    config.eval.seed = 1000  # of the held-out scenarios
    config.eval.temperature = 0.3  # a served agent need not explore; 0: always the most likely token
    config.eval.evaluators = True  # the judge also evaluates communication, logic and compensation of dialogues

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


def _make_endpoint(model: str, temperature: float, url: str = "embedded", max_tokens: int = 256) -> ConfigDict:
    return ConfigDict(
        {
            "url": url,  # "embedded", or http(s)://…/v1, any OpenAI-compatible server; replicas are joined by commas
            "model": model,
            "api_key_env": "",  # name of the environment variable that holds the key
            "temperature": temperature,
            "max_tokens": max_tokens,  # with its thoughts; an answer that is cut off is not used
            "response_format": "json_schema",  # how a judge's schema is passed on: json_schema | json_object+schema |
            # json_object | none, see docs/endpoints.md; its answers are held to it in any case
            "max_tokens_field": "max_tokens",  # its name in a request: max_tokens | max_completion_tokens
            "temperature_field": "temperature",  # temperature | none: it is not sent
            "seed_field": "seed",  # seed | random_seed | none
            "system_role": "system",  # role of the prompt: system | developer | user, together with the first message
            "extra_body": "",  # further fields of a request: '{"chat_template_kwargs": {"enable_thinking": false}}'
            "concurrency": 64,  # requests at a time, to all replicas together
            "requests_per_minute": 0,  # 0: no limit
            "tokens_per_minute": 0,  # of prompts and answers
            "connect_timeout": 5.0,  # seconds, as all times here
            "read_timeout": 120.0,  # without a byte of the answer
            "total_timeout": 300.0,  # of one attempt
            "retries": 3,
            "backoff": 1.0,  # before the first retry; doubled before each further one
            "max_wait": 60.0,  # before a retry, whatever the server asks for
            "breaker_failures": 10,  # after so many failures in a row, only probes are sent until one is answered:
            "breaker_rest": 5.0,  # the first after this time;
            "breaker_wait": 120.0,  # after this time without an answer, requests fail
            "max_answer_bytes": 4_000_000,
            "prompt_price": 0.0,  # per million tokens, in any currency
            "answer_price": 0.0,
            "budget_calls": 0,  # requests in a run; when a budget is reached, the run is saved and stops. 0: no limit
            "budget_tokens": 0,
            "budget_cost": 0.0,
        }
    )


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
