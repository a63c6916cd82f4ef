"""The whole loop with dialogues that differ: what it learnt from, recomputed from the transcripts in plain NumPy."""

import collections
import dataclasses
import functools
import json
import pathlib
import shutil

import chex
import jax
import numpy as np
import pytest
import scipy.stats

from cmpo import evaluate, main
from cmpo.cli import agents
from cmpo.run.log import read_metrics
from cmpo.training import build, collecting, model_source, tasks, update_step
from models import qwen2
from models import tokenizer as tokenizers
from tests.builders.recomputed import (
    advantages,
    by_content,
    groups,
    next_lambdas,
    outcome,
    process_reward,
    stream_of,
    unpacked,
)
from tests.builders.runs import mesh_maker, taught, transcripts

SFT_STEPS, RL_STEPS, UPDATES = 30, 3, 4  # of each RL step, two parts twice over


def host(tree):
    """A copy that no donation touches."""
    return jax.tree.map(np.array, tree)


@dataclasses.dataclass(repr=False)
class Step:
    """What was seen of a step of phase 2."""

    lambdas: np.ndarray  # in force
    dialogues: list = None
    updates: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Update:
    """One update of phase 2."""

    rows: object
    advantages: np.ndarray  # [R, T]
    reference: np.ndarray  # [R, T]
    before: dict  # parameters
    after: dict
    adam: object  # the optimizer's moments after it


@dataclasses.dataclass(repr=False)
class Run:
    """A run, and what was seen of it."""

    config: object
    workdir: pathlib.Path
    state: object = None
    trainer: object = None
    sft: list = dataclasses.field(default_factory=list)  # the rows of each step
    taught: dict = None  # the parameters at the end of phase 1
    steps: list = dataclasses.field(default_factory=list)  # of phase 2
    seeds: list = dataclasses.field(default_factory=list)  # of the dialogues of each

    @functools.cached_property
    def transcripts(self):
        """The dialogues of each step of phase 2, as JSON has them."""
        return [[json.loads(line) for line in text.splitlines()] for text in transcripts(self.workdir).values()]

    @functools.cached_property
    def records(self):
        return [record for record in read_metrics(self.workdir) if record["phase"] == "rl"]

    @functools.cached_property
    def model(self):
        return model_source.read_architecture(self.config, self.workdir)


def adam_of(opt_state):
    (found,) = [part for part in jax.tree.leaves(opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu")]
    return found


def in_rows(tree):
    """Micro-batches [M, U, T] as rows [R, T]."""
    return jax.tree.map(lambda x: np.array(x).reshape(-1, x.shape[-1]), tree)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run, seen at the boundary to its updates."""
    workdir = tmp_path_factory.mktemp("whole")
    run = Run(taught(workdir / "terse.jsonl"), workdir / "run")
    prepare, sft_step, rl_step = main.Trainer.__init__, main.Trainer.sft_step, main.Trainer.rl_step
    make_update, collect = update_step.make_update, collecting.collect_dialogues

    def preparing(trainer, *arguments):
        prepare(trainer, *arguments)
        run.trainer = trainer

    def making(*arguments, **options):
        update = make_update(*arguments, **options)

        def updating(policy, own, frozen, rows, signals):
            if not run.steps:
                run.sft.append(in_rows(rows))
                return update(policy, own, frozen, rows, signals)
            seen = Update(
                *in_rows((rows, signals.advantages, signals.reference)),
                before=host(policy.params),
                after=None,
                adam=None,
            )
            policy, own, values = update(policy, own, frozen, rows, signals)
            seen.after, seen.adam = host(policy.params), host(adam_of(policy.opt_state))
            run.steps[-1].updates.append(seen)
            return policy, own, values

        return updating

    def sft_stepping(trainer, state):
        result = sft_step(trainer, state)
        run.taught = host(result[0].policy.params)
        return result

    def rl_stepping(trainer, state):
        run.steps.append(Step(np.array(state.memory.lambdas)))
        result = rl_step(trainer, state)
        run.steps[-1].dialogues = result[2]
        return result

    def noting(*arguments, seed, **options):
        run.seeds.append(seed)
        return collect(*arguments, seed=seed, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collecting, "collect_dialogues", noting)
        patch.setattr(update_step, "make_update", making)
        for name, seen in (("__init__", preparing), ("sft_step", sft_stepping), ("rl_step", rl_stepping)):
            patch.setattr(main.Trainer, name, seen)
        run.state = main.train(run.config, run.workdir)
    return run


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """What differs between meshes is seen in tests/cmpo/training/update_step_test.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "make_mesh", mesh_maker(1))
        yield


@functools.partial(jax.jit, static_argnames=("model", "temperature"))
def _scores(params, tokens, *, model, temperature):
    return qwen2.token_logprobs(model, params, tokens, temperature=temperature)[0]


def scored(run, params, dialogues, temperature):
    """The log-probability of every token, each dialogue in a row of its own, [dialogues, 1024]."""
    tokens = np.zeros((len(dialogues), 1024), np.int32)
    for row, dialogue in zip(tokens, dialogues, strict=True):
        stream, *_ = stream_of(dialogue, [0.0] * len(dialogue.turns))
        row[: len(stream)] = stream
    return np.array(_scores(params, tokens, model=run.model, temperature=temperature))


def test_the_dialogues_differ(whole):
    """Or nothing below would mean anything."""
    dialogues = sum(whole.transcripts, [])
    assert len(dialogues) == RL_STEPS * 12
    vouchers = [any(turn["action"] == "voucher" for turn in dialogue["turns"]) for dialogue in dialogues]
    assert 0.1 < np.mean(vouchers) < 0.9
    assert np.mean([turn["action"] != "" for dialogue in dialogues for turn in dialogue["turns"]]) > 0.5
    assert len({dialogue["outcome"] for dialogue in dialogues}) >= 3 and -2.5 in map(outcome, dialogues)
    assert len({len(dialogue["turns"]) for dialogue in dialogues}) >= 3
    assert any(
        len({outcome(dialogue) for dialogue in group}) > 1 for step in whole.transcripts for group in groups(step)
    )
    assert all(step.lambdas > 0.5 for step in whole.steps)


def test_every_step_has_customers_and_dice_of_its_own(whole):
    dealt = tasks.open_source(whole.config).train(tasks.count_shown(whole.config), 3 * RL_STEPS)
    served = [dialogue["task"]["id"] for step in whole.transcripts for dialogue in step[::4]]
    assert served == [scenario.id for scenario in dealt] and int(whole.state.cursor) == 3 * RL_STEPS
    assert len(whole.seeds) == len(set(whole.seeds)) == RL_STEPS


def test_what_dialogues_are_worth_follows_from_what_was_said_and_from_the_config(whole):
    for dialogue in sum(whole.transcripts, []):
        assert dialogue["outcome"] == outcome(dialogue)
        for turn in dialogue["turns"]:
            assert set(turn["scores"]) == ({"persona", "stage", "quality", "rules"} if turn["action"] else set())
            assert turn["process_reward"] == pytest.approx(process_reward(turn))
            assert turn["cost"] == {"voucher": turn["action"] == "voucher"}
    rewards = {turn["process_reward"] for step in whole.transcripts for dialogue in step for turn in dialogue["turns"]}
    assert len(rewards) >= 3 and max(rewards) > 0.5


def test_every_token_is_learnt_from_once_an_epoch_with_its_turns_advantage_and_the_references_opinion(whole):
    for step, said in zip(whole.steps, whole.transcripts, strict=True):
        (lam,) = step.lambdas
        assert [dialogue["index"] for dialogue in said] == [0, 1, 2, 3] * 3
        assert all(len({dialogue["task"]["id"] for dialogue in group}) == 1 for group in groups(said))
        opinions = scored(whole, whole.taught, step.dialogues, 0.8)
        expected = []
        for dialogue, of_turns, opinion in zip(step.dialogues, advantages(said, lam), opinions, strict=True):
            tokens, mask, sampled, worth = stream_of(dialogue, of_turns)
            columns = {"positions": np.arange(len(tokens)), "reference": np.where(mask, opinion[: len(tokens)], 0.0)}
            expected.append(columns | {"tokens": tokens, "mask": mask, "sampled": sampled, "advantages": worth})
        assert len(step.updates) == UPDATES
        for epoch in (step.updates[:2], step.updates[2:]):
            found = [stream for update in epoch for stream in unpacked(update)]
            for one, wanted in zip(by_content(found), by_content(expected), strict=True):
                for name in ("tokens", "positions", "mask"):
                    np.testing.assert_array_equal(one[name], wanted[name])
                for name in ("sampled", "advantages", "reference"):
                    np.testing.assert_allclose(one[name][one["mask"]], wanted[name][one["mask"]], atol=2e-4)
        for dialogue, of_turns in zip(said, advantages(said, lam), strict=True):
            np.testing.assert_allclose([turn["credit"] for turn in dialogue["turns"]], of_turns, atol=2e-4)
        every = np.concatenate([update.advantages[update.rows.mask] for update in step.updates])
        assert every.max() > 0.5 and every.min() < -0.5


def test_the_policy_that_is_updated_sampled_and_the_reference_is_the_end_of_phase_1_and_stays(whole):
    for step in whole.steps:
        logprobs = scored(whole, step.updates[0].before, step.dialogues, 0.8)
        for dialogue, found in zip(step.dialogues, logprobs, strict=True):
            _, mask, sampled, _ = stream_of(dialogue, [0.0] * len(dialogue.turns))
            np.testing.assert_allclose(found[: len(mask)][mask], sampled[mask], atol=2e-4)
    chex.assert_trees_all_equal(host(whole.state.reference), whole.taught)
    chex.assert_trees_all_equal(whole.steps[0].updates[0].before, whole.taught)


def test_what_was_better_than_its_group_becomes_likelier_beside_what_was_worse(whole):
    gains = collections.defaultdict(list)
    for step in whole.steps:
        before, after = (
            scored(whole, params, step.dialogues, 0.8) for params in (step.updates[0].before, step.updates[-1].after)
        )
        worth = advantages(whole.transcripts[whole.steps.index(step)], step.lambdas[0])
        for dialogue, of_turns, change in zip(step.dialogues, worth, after - before, strict=True):
            _, mask, _, value = stream_of(dialogue, of_turns)
            for sign in (-1, 1):
                chosen = mask & (np.sign(value) == sign)
                gains[sign] += (change[: len(mask)] * np.abs(value))[chosen].tolist()
    worse, better = (np.array(gains[sign]) for sign in (-1, 1))  # nats for each token, by the size of its advantage
    assert better.sum() - worse.sum() > 20 and better.mean() - worse.mean() > 0.05


def test_the_transcripts_of_some_steps_say_what_was_made_of_every_token(whole):
    tokenizer = tokenizers.load(whole.workdir / "tokenizer")
    kept = [any("token_texts" in turn for dialogue in said for turn in dialogue["turns"]) for said in whole.transcripts]
    assert kept == [False, True, False]  # step 32 is the second of phase 2
    step, said = whole.steps[1], whole.transcripts[1]
    afterwards, moved = scored(whole, step.updates[-1].after, step.dialogues, 0.8), []
    for dialogue, told, after in zip(step.dialogues, said, afterwards, strict=True):
        _, mask, sampled, _ = stream_of(dialogue, [0.0] * len(dialogue.turns))
        expected = np.split(np.exp(after[: len(mask)] - sampled)[mask], np.cumsum([len(t.ids) for t in dialogue.turns]))
        for turn, of_dialogue, ratios in zip(dialogue.turns, told["turns"], expected[:-1], strict=True):
            assert "".join(of_dialogue["token_texts"]) == tokenizer.decode(turn.ids)
            assert len(of_dialogue["token_texts"]) == of_dialogue["tokens"] > 1
            np.testing.assert_allclose(of_dialogue["token_logprobs"], turn.logprobs, atol=0.0051)
            np.testing.assert_allclose(of_dialogue["token_ratios"], ratios, rtol=1e-3, atol=0.0006)
            assert "token_advantages" not in of_dialogue  # each has its turn's
            moved += np.log(ratios).tolist()
    assert np.abs(moved).max() > 0.1  # or the step taught nothing


def test_the_loss_on_record_is_the_papers(whole):
    for step, record in zip(whole.steps, whole.records, strict=True):
        losses, divergences = [], []
        for update in step.updates:
            streams = list(unpacked(update))
            tokens = np.zeros((12, 1024), np.int32)
            for row, stream in zip(tokens, streams, strict=False):
                row[: len(stream["tokens"])] = stream["tokens"]
            logprobs = np.array(_scores(update.before, tokens, model=whole.model, temperature=0.8), float)
            new, old, reference, worth = (
                np.concatenate(parts)
                for parts in zip(
                    *(
                        (row[: len(one["mask"])][one["mask"]], *(one[name][one["mask"]] for name in COLUMNS))
                        for row, one in zip(logprobs, streams, strict=False)
                    ),
                    strict=True,
                )
            )
            ratio, gap = np.exp(new - old), reference - new
            gained = np.minimum(ratio * worth, np.clip(ratio, 0.9, 1.3) * worth)
            divergences.append(np.mean(np.exp(gap) - gap - 1))
            losses.append(np.mean(-gained) + 0.1 * divergences[-1])
        assert record["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
        assert record["kl"] == pytest.approx(np.mean(divergences), abs=1e-4)
    assert whole.records[-1]["kl"] > 1e-3 and whole.records[-1]["clip_fraction"] > 0


COLUMNS = ("sampled", "reference", "advantages")


def test_the_price_of_vouchers_follows_the_published_formula(whole):
    rates = [np.mean([dialogue["cost"]["voucher"] for dialogue in step]) for step in whole.transcripts]
    expected = next_lambdas(rates, 0.8)
    in_force = [0.8, *(lam for lam, _ in expected)]
    np.testing.assert_allclose([step.lambdas[0] for step in whole.steps], in_force[:-1], rtol=1e-5)
    np.testing.assert_allclose(whole.state.memory.lambdas, in_force[-1:], rtol=1e-5)
    np.testing.assert_allclose([record["lambda"] for record in whole.records], in_force[:-1], rtol=1e-5)
    smoothed = [record["voucher_rate_smoothed"] for record in whole.records]
    np.testing.assert_allclose(smoothed, [rate for _, rate in expected], rtol=1e-5)
    assert len(set(rates)) > 1 and len(set(in_force)) == RL_STEPS + 1


def test_the_record_says_what_the_transcripts_say(whole):
    for record, said in zip(whole.records, whole.transcripts, strict=True):
        turns = [turn for dialogue in said for turn in dialogue["turns"]]
        wanted = {
            "satisfaction": np.mean([max(outcome(dialogue), 0.0) for dialogue in said]),
            "process_reward": np.mean([np.mean([*map(process_reward, one["turns"])]) for one in said]),
            "finish_rate": np.mean([dialogue["end"] == "rated" for dialogue in said]),
            "voucher_rate": np.mean([any(t["action"] == "voucher" for t in dialogue["turns"]) for dialogue in said]),
            "turns_mean": len(turns) / len(said),
            "new_tokens": sum(turn["tokens"] for turn in turns),
            "dialogues_ok": 12,
            "updates_skipped": 0,
        }
        assert {name: record[name] for name in wanted} == pytest.approx(wanted)
        assert record["ends"] == collections.Counter(dialogue["end"] for dialogue in said)
        assert record["dialogues_failed"] == record["dialogues_replaced"] == {}
        assert record["effective_price"] == record["effective_price_high"] == record["lambda"]  # nothing divides it
        judged = [one for one in said if any(turn["scores"] for turn in one["turns"])]
        scores = [np.mean([t["scores"]["rules"] for t in one["turns"] if t["scores"]]) for one in judged]
        ranked = scipy.stats.spearmanr(scores, [outcome(one) for one in judged]).statistic
        assert record["judge_correlation"]["rules"] == pytest.approx(ranked)
        assert record["tokens_per_second"] > 0 and set(record["seconds"]) == {"sample", "reference", "update"}


def test_the_learning_rate_rises_at_once_and_falls_until_the_last_update_of_the_run(whole):
    """Read off the changes of the parameters: AdamW's are the learning rate times what its moments say."""
    updates, rates = [update for step in whole.steps for update in step.updates], []
    total = RL_STEPS * UPDATES
    for number, update in enumerate(updates, start=1):
        assert int(update.adam.count) == number
        first, second = (
            np.concatenate([leaf.ravel() / (1 - decay**number) for leaf in jax.tree.leaves(moment)])
            for moment, decay in ((update.adam.mu, 0.9), (update.adam.nu, 0.999))
        )
        before, after = (
            np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (update.before, update.after)
        )
        direction = first / (np.sqrt(second) + 1e-8) + 0.01 * before
        rates.append(float((before - after) @ direction / (direction @ direction)))
    cosine = 0.5 * (1 + np.cos(np.pi * (np.arange(1, total) - 1) / (total - 1)))
    expected = [0.0, *(3e-3 * (0.2 + 0.8 * cosine))]
    np.testing.assert_allclose(rates, expected, rtol=1e-2, atol=1e-6)


def test_demonstrations_are_shuffled_anew_each_epoch_and_all_are_seen(whole):
    made = whole.trainer.demonstrations
    names = {row.tobytes(): number for number, row in enumerate(made.tokens)}
    drawn = [names[row.tobytes()] for rows in whole.sft for row in rows.tokens[rows.segment_ids.any(1)]]
    assert len(whole.sft) == SFT_STEPS and len(drawn) == 2 * SFT_STEPS and len(names) > 4
    epochs = [drawn[begin : begin + len(names)] for begin in range(0, len(drawn), len(names))]
    assert all(sorted(epoch) == list(range(len(names))) for epoch in epochs[:-1])
    assert len(set(map(tuple, epochs[:-1]))) == len(epochs) - 1 > 2
    assert [*range(len(names))] not in epochs


def test_demonstrations_teach_what_the_agent_wrote_and_nothing_else(whole):
    tokenizer = tokenizers.load(whole.workdir / "tokenizer")
    lines = pathlib.Path(whole.config.sft.path).read_text().splitlines()
    wrote = ["".join(message["content"] for message in json.loads(line)["messages"][2::2]) for line in lines]
    rows, found = whole.trainer.demonstrations, []
    for tokens, mask, segments in zip(rows.tokens, rows.mask, rows.segment_ids, strict=True):
        found += [tokenizer.decode(tokens[mask & (segments == segment)]) for segment in set(segments) - {0}]
    assert sorted(text.replace("<|im_end|>", "") for text in found) == sorted(wrote)
    losses = [record["loss"] for record in read_metrics(whole.workdir) if record["phase"] == "sft"]
    assert losses[-1] < 0.1 * losses[0]


def test_resumed_amid_phase_2_it_is_the_same_run(whole, tmp_path):
    """As after a crash in its last step: the checkpoint after the step before is the newest."""
    workdir = tmp_path / "run"
    shutil.copytree(whole.workdir, workdir)
    shutil.rmtree(workdir / "checkpoints" / str(SFT_STEPS + RL_STEPS))
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir())[-1] == str(SFT_STEPS + RL_STEPS - 1)
    chex.assert_trees_all_equal(main.train(whole.config, workdir), whole.state)
    assert transcripts(workdir) == transcripts(whole.workdir)
    but = {"seconds": None, "tokens_per_second": None, "spent": None}  # the last step's dialogues were paid for twice
    assert [one | but for one in read_metrics(workdir)] == [one | but for one in read_metrics(whole.workdir)]


@pytest.mark.parametrize("start", [False, True])
def test_the_trained_policy_or_what_it_started_from_is_served_at_the_temperature_of_evaluations(whole, start):
    params = whole.taught if start else host(whole.state.policy.params)
    served_by, step = agents.load_policy(whole.config, whole.workdir, start=start)
    assert step == SFT_STEPS + RL_STEPS
    dialogues = [one.dialogue for one in evaluate.play_evaluation(whole.config, served_by, seeds=1)]
    assert len(dialogues) == 4
    tempered, own = (scored(whole, params, dialogues, temperature) for temperature in (0.5, 1.0))
    for dialogue, drawn, models in zip(dialogues, tempered, own, strict=True):
        _, mask, sampled, _ = stream_of(dialogue, [0.0] * len(dialogue.turns))
        np.testing.assert_allclose(sampled[mask], drawn[: len(mask)][mask], atol=2e-4)
        own_words = np.concatenate([turn.model_logprobs for turn in dialogue.turns])
        np.testing.assert_allclose(own_words, models[: len(mask)][mask], atol=2e-4)
