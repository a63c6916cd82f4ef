"""What a run of `runs.taught` must learn from, from its transcripts, in NumPy, by the paper's formulas."""

import re

import numpy as np

GROUP = 4


def outcome(dialogue):
    """What the customer said last, or what a breach of the format is charged."""
    if dialogue["end"] in ("malformed", "second_voucher", "truncated"):
        return -2.5
    ratings = re.findall(r"\[end:(\d)\]", dialogue["last_words"])
    return float(min(ratings)) if dialogue["end"] == "rated" else 0.0


def process_reward(turn):
    """The judge's scores, weighted as the config says; nothing for a turn that it did not get to see."""
    weights = {"persona": 1.0, "stage": 3.0, "quality": 1.0, "rules": 0.5}
    return sum(weights[name] * score for name, score in turn["scores"].items()) / sum(weights.values())


def utilities(dialogue, lam):
    """Of every turn: 0.7 R_O + what is to come, discounted by 0.9: 2 R_P - lambda c."""
    found, ahead = [], 0.0
    for turn in reversed(dialogue["turns"]):
        ahead = 2.0 * process_reward(turn) - lam * (turn["action"] == "voucher") + 0.9 * ahead
        found.append(0.7 * outcome(dialogue) + ahead)
    return found[::-1]


def advantages(dialogues, lam):
    """Of every turn of every dialogue: the utility less its mean over all turns of its group."""
    found = []
    for group in groups(dialogues):
        of_dialogues = [utilities(dialogue, lam) for dialogue in group]
        every = np.concatenate(of_dialogues)
        found += [np.array(one) - every.mean() for one in of_dialogues]
    return found


def groups(dialogues):
    return [dialogues[begin : begin + GROUP] for begin in range(0, len(dialogues), GROUP)]


def next_lambdas(rates, first):
    """The paper's controller: incremental PID on a smoothed rate."""
    kp, ki, kd, target, smoothing = 0.5, 0.15, 0.25, 0.3, 0.7
    smoothed, before, earlier, lam, found = target, 0.0, 0.0, first, []
    for rate in rates:
        smoothed = (1 - smoothing) * smoothed + smoothing * rate
        error = smoothed - target
        lam = min(max(lam + kp * (error - before) + ki * error + kd * (error - 2 * before + earlier), 0.0), 5.0)
        before, earlier = error, before
        found.append((lam, smoothed))
    return found


def stream_of(dialogue, of_turns):
    """Tokens of a dialogue, which the agent wrote, the log-probabilities they were drawn with, and a value by turn."""
    columns = [[], [], [], []]
    for turn, value in zip(dialogue.turns, of_turns, strict=True):
        before, wrote = len(turn.incoming_ids), len(turn.ids)
        for column, part in zip(
            columns,
            (
                [*turn.incoming_ids, *turn.ids],
                [False] * before + [True] * wrote,
                [0.0] * before + [*turn.logprobs],
                [0.0] * before + [value] * wrote,
            ),
            strict=True,
        ):
            column += part
    return tuple(map(np.array, columns))


def unpacked(update):
    """Every dialogue in the rows of an update, its shared beginning before it: tokens, mask, columns by name."""
    rows = update.rows
    columns = {
        "tokens": rows.tokens,
        "positions": rows.positions,
        "mask": rows.mask,
        "sampled": rows.sampled_logprobs,
        "advantages": update.advantages,
        "reference": update.reference,
    }
    for number, segments in enumerate(rows.segment_ids):
        begins = {int(segment): rows.prefix_ids[number][segments == segment][0] for segment in set(segments) - {0}}
        for segment, beginning in begins.items():
            if segment in begins.values():
                assert not beginning and not rows.mask[number][segments == segment].any()
                continue
            places = np.concatenate([np.flatnonzero(segments == name) for name in (beginning, segment) if name])
            yield {name: column[number][places] for name, column in columns.items()}


def by_content(streams):
    """In an order of their own, for nothing says in which one rows are packed."""
    return sorted(streams, key=lambda one: (one["tokens"].tobytes(), one["sampled"].tobytes()))
