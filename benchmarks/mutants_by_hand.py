"""Mutants of the method and its wiring that went unnoticed once, or would be worst; and those that need not be noticed.

`HAND` must all be killed. `HARMLESS` are mutants that `benchmarks.mutations.generate` makes, with the reason why no
test need notice them.
"""

from benchmarks.mutations import Mutant

LOOP, RUBRICS = "tests/cmpo/loop_test.py", "tests/rollouts/domains/fds/rubrics_test.py"
ENGINE = "tests/rollouts/engine/slots_test.py::test_a_newcomer_takes_the_place_of_the_one_it_begins_like"
STEP = "tests/cmpo/training/update_step_test.py::test_cmpo_update_is_the_gradient_of_the_whole_batch"
RECORDS, COLLECTING = "tests/cmpo/run/recorder_test.py", "tests/cmpo/training/collecting_test.py"


def _in(file: str, *mutants: tuple[str, ...]) -> tuple[Mutant, ...]:
    """Mutants of a file: name, what stands there, what comes in its place, what that would mean, who should notice."""
    return tuple(
        Mutant(name, file, before, after, tuple(tests or [LOOP]), why=why)
        for name, before, after, why, *tests in mutants
    )


_SHUFFLE = 'np.random.default_rng(fold(int(state.seed), "sft", epoch)).permutation(count)'
_DONOR = "if donor and donor not in self._open:\n            return donor.slot"
_PRICE = ' * self.controls["enabled"]'
_ANSWER = "json.dumps(verdicts.score_turn(case.customer, steps[-1].before, steps[-1].events)"
_WARMTH = "it is learnt of another distribution than was drawn from"
_NOTHING = '{"persona": 0, "stage": 0, "quality": 0, "rules": 0}'

HAND = (
    *_in(
        "cmpo/algorithms/clipped.py",
        ("outcome-weight", '"outcome_weight", ', "", "the config's outcome_weight is not passed on"),
        ("process-weight", '"process_weight", ', "", "the config's process_weight is not passed on"),
        ("normalize", '"normalize", ', "", "the config's normalize is not passed on"),
        ("credit", '"credit", ', "", "the config's credit is not passed on"),
        ("discount", ', "discount")', ")", "the config's discount is not passed on"),
        ("pull-0", ', "kl_weight")', ")", "the config's kl_weight is not passed on"),
        ("clip", '"clip_high", ', "", "the config's clip_high is not passed on", LOOP, STEP),
    ),
    *_in(
        "cmpo/algorithms/cmpo.py",
        (
            "lambdas-0",
            "compare_turns(rewards, memory.lambdas, ",
            "compare_turns(rewards, 0 * memory.lambdas, ",
            "vouchers are free",
        ),
        ("other-metric", "summary[cost.measure]", 'summary["finish_rate"]', "another cost is held"),
        ("price", _PRICE, " * 0", "the best checkpoint spends the most", RECORDS),
        ("unpriced", _PRICE, "", "a price that nobody charges", RECORDS),
    ),
    *_in(
        "cmpo/training/packing.py",
        ("advantages-0", "credit.reshape(-1)", "0 * credit.reshape(-1)", "there is no policy gradient"),
    ),
    *_in(
        "cmpo/training/learner.py",
        ("reference", "state.reference, rows)", "state.policy.params, rows)", "SFT is forgotten"),
        ("untempered-score", "make_score(*on_mesh, **warmth)", "make_score(*on_mesh)", _WARMTH),
        ("untempered-update", "head=head, **warmth)", "head=head)", _WARMTH),
        ("sft-optimizer", 'optimizer["rl"], self', 'optimizer["sft"], self', "phase 2 has phase 1's schedule"),
        ("one-epoch", "parts * self.config.train.epochs", "parts", "a batch is gone through once"),
    ),
    *_in(
        "cmpo/training/player.py",
        ("same-dice", '"rl", number - 1)', '"rl")', "every step draws with the same seeds"),
    ),
    *_in(
        "cmpo/training/trainer.py",
        ("stale-sampler", "behaviour or state.policy.params", "state.reference", "SFT's end samples for ever"),
        ("same-customers", "cursor = state.cursor +", "cursor = 0 * state.cursor +", "the same customers come"),
        ("never-shuffled", _SHUFFLE, "np.arange(count)", "demonstrations come in order"),
        ("shuffled-once", '"sft", epoch)', '"sft")', "every epoch has the same order"),
    ),
    *_in(
        "cmpo/algorithms/optimizers.py",
        (
            "schedule",
            ' * train["epochs"] * train["minibatches"]',
            "",
            "the learning rate has fallen long before the end",
        ),
    ),
    *_in(
        "cmpo/cli/policies.py",
        ("start", "state.reference if start else ", "", "--agent=start evaluates CMPO"),
        ("eval-temperature", ", temperature=config.eval.temperature", "", "evaluations explore"),
    ),
    *_in(
        "rollouts/domains/fds/domain.py",
        ("judge-weights", "config.judge.weights[name] for", "1.0 for", "all principles weigh the same"),
        ("format-outcome", "format_outcome=config.episode.format_outcome,", "", "a malformed turn costs nothing"),
        ("farewell", "farewell=config.episode.farewell,", "", "nobody says goodbye", COLLECTING),
        ("max-turns", "max_turns=config.episode.max_turns,", "", "dialogues are as long as by default", COLLECTING),
        ("votes", "            votes=config.judge.votes,\n", "", "the judge is asked once", COLLECTING),
    ),
    *_in(
        "cmpo/run/recorder.py",
        ("window", "step - every < record", "0 < record", "early steps count for late checkpoints", RECORDS),
    ),
    *_in("rollouts/engine/engine.py", ("donors-slot", _DONOR, "", "what others could copy is overwritten", ENGINE)),
    *_in(
        "rollouts/domains/fds/rubrics.py",
        ("judge-0", "weights[name] * self.scores[name]", "0 * self.scores[name]", "turns are worth nothing", RUBRICS),
    ),
    *_in(
        "rollouts/domains/fds/embedded/app.py",
        ("embedded-judge-0", _ANSWER, f"{_ANSWER} | {_NOTHING}", "no turn is any good"),
    ),
)

_MAPPED = "mapped = jax.shard_map(run_on_device, mesh=mesh, in_specs=(*(by_rows,) * 3, P()), out_specs=P(),"
_FILL = "what stands outside the mask is left out again further down"

HARMLESS = {
    (
        "cmpo/training/update_step.py",
        "- constrain=lambda x: jax.lax.with_sharding_constraint(x, split),",
    ): "says where numbers lie, not which they are",
    (
        "cmpo/training/update_step.py",
        '- donate_argnames=("policy", "own"),',
    ): "saves memory, see tests/cmpo/training/memory_plan_test.py, and changes no number",
    (
        "cmpo/training/update_step.py",
        "- metrics = jax.eval_shape(lambda: compute_share(params, *_take_micro_batch((rows, signals), 0))[1])\n"
        "+ metrics = jax.eval_shape(lambda: compute_share(params, *_take_micro_batch((rows, signals), 1))[1])",
    ): "only shapes are asked for, and all micro-batches have the same",
    (
        "cmpo/training/update_step.py",
        f"- {_MAPPED} check_vma=False)\n+ {_MAPPED} )",
    ): "has JAX check what is the same on every device, as it is",
    (
        "cmpo/training/collecting.py",
        "- first = int(numbers[0]) * repeats if len(numbers) else 0\n"
        "+ first = int(numbers[0]) * repeats if len(numbers) else 1",
    ): "where there is no dialogue, none has a number",
    (
        "cmpo/advantage.py",
        "- outcome = jnp.where(turn_mask, jnp.expand_dims(outcome, 1), 0)\n"
        "+ outcome = jnp.where(turn_mask, jnp.expand_dims(outcome, 1), 1)",
    ): _FILL,
    (
        "cmpo/training/packing.py",
        "- longest = max((len(part.tokens) for part in parts), default=0)\n"
        "+ longest = max((len(part.tokens) for part in parts), default=1)",
    ): "a row has a token at least",
    (
        "cmpo/loss.py",
        "- logprobs, *data = (jnp.where(mask, x, 0).astype(dtype) for x in floats)\n"
        "+ logprobs, *data = (jnp.where(mask, x, 1).astype(dtype) for x in floats)",
    ): _FILL,
    (
        "cmpo/loss.py",
        "- means = {name: value / jnp.where(divisor > 0, divisor, 1) for name, value in sums.items()}\n"
        "+ means = {name: value / jnp.where(divisor > 1, divisor, 1) for name, value in sums.items()}",
    ): "dividing by 1 is no division",
    (
        "cmpo/run/recorder.py",
        "- return self._open.__exit__(*error)\n+ return None",
    ): "none of those on leaving has an error forgotten",
}
"""(file, the lines that differ) -> why."""
