"""Describes dialogues of transcripts as the page shows them: plain texts and numbers, group by group."""

import collections
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cmpo.reports.run_data import Batch, Run, read_batch
from rollouts import domains
from rollouts.domain import Domain

_DIGEST = 16  # letters


def read_groups(run: Run, batch: Batch) -> tuple[list[dict[str, Any]], bool, int]:
    """Reads a file of transcripts as groups, see `describe_batch`; and what is amiss, as `run_data.read_batch` has it.

    Raises ValueError, naming the file, if it is damaged or no transcript of the run's domain.
    """
    rows, torn, older = read_batch(batch)
    try:
        return describe_batch(run.domain, rows), torn, older
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # of a domain that finds other things there
        raise ValueError(
            f"{batch.path}: expected dialogues of the domain {domains.name_of(run.config)!r} as transcripts have them, "
            f"got others ({type(error).__name__}: {error})"
        ) from error


def describe_batch(domain: Domain, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Describes the rows of a file of transcripts, as groups: neighbours with the same task and seed, by their numbers.

    A task may come again in a file. A group is told apart from all others by the digest of its task's description, its
    seed, and how many groups before it had both.
    """
    groups, seen = [], collections.Counter()
    for dialogues in _split_groups(rows):
        task, seed = dialogues[0]["task"], dialogues[0].get("seed")
        digest = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:_DIGEST]
        seen[digest, seed] += 1
        groups.append(
            {
                "id": task["id"],
                "seed": seed,
                "digest": digest,
                "repeat": seen[digest, seed] - 1,
                "lines": list(domain.show_task(task)),
                "labels": dialogues[0].get("labels", {}),
                "dialogues": [_describe_dialogue(domain, dialogue) for dialogue in dialogues],
            }
        )
    return groups


def _split_groups(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Splits rows where the task or the seed is another, or where dialogues are counted from the beginning again."""
    groups: list[list[Mapping[str, Any]]] = []
    for row in rows:
        last = groups[-1][-1] if groups else None
        names = [one and (one["task"]["id"], one.get("seed")) for one in (last, row)]
        if last is None or names[0] != names[1] or row["index"] <= last["index"]:
            groups.append([])
        groups[-1].append(row)
    return groups


def _describe_dialogue(domain: Domain, row: Mapping[str, Any]) -> dict[str, Any]:
    turns, failure = row["turns"], row["failure"]
    faults = domain.find_faults(row["task"], turns)
    credits = [turn["credit"] for turn in turns if turn.get("credit") is not None]
    return {
        "index": row["index"],
        "end": [f"failed: {failure}", "bad"] if failure else list(domain.show_end(row["end"], row["outcome"])),
        "kind": f"failed: {failure}" if failure else row["end"],
        "outcome": None if failure else row["outcome"],
        "success": row["success"],
        "cost": row["cost"],
        "reward": _average([turn["process_reward"] for turn in turns]) if turns and not failure else None,
        "credit": _average(credits) if credits else None,
        "tokens": sum(turn["tokens"] for turn in turns),
        "message": row["failure_message"],
        "last": row["last_words"],
        "turns": [_describe_turn(domain, turn, found) for turn, found in zip(turns, faults, strict=True)],
    }


def _describe_turn(domain: Domain, turn: Mapping[str, Any], faults: Sequence[str]) -> dict[str, Any]:
    shown = domain.show_turn(turn)
    return {
        "heard": [[message["role"], message["content"]] for message in turn["messages"]],
        "thought": shown.thought,
        "said": shown.said,
        "raw": "" if shown.said else turn.get("text", ""),
        "badges": [list(badge) for badge in shown.badges],
        "remark": shown.remark,
        "faults": list(faults),
        "scores": dict(domain.judge_scores(turn)),
        "reward": turn["process_reward"],
        "cost": turn["cost"],
        "tokens": turn["tokens"],
        "logprob": turn["mean_logprob"],
        "credit": turn.get("credit"),
        "sampled": _describe_tokens(turn) if "token_texts" in turn else None,
    }


def _describe_tokens(turn: Mapping[str, Any]) -> dict[str, Any]:
    """Describes the tokens of a turn in columns: texts, and numbers for each; a column is None where it is not known.

    Each token's advantage is the turn's where the transcript does not say otherwise.
    """
    return {
        "texts": turn["token_texts"],
        **{name: turn.get(f"token_{name}") for name in ("logprobs", "ratios", "advantages")},
    }


def measure_words(groups: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Measures what a batch's words and scores alone tell, by name; a name is absent where nothing has it.

    `distinct` is the number of different replies, divided by that of all; `length` and `thought` are in characters, and
    `scores.NAME` is a principle's mean.
    """
    said, thoughts, scores = [], [], {}
    for dialogue in (dialogue for group in groups for dialogue in group["dialogues"]):
        for turn in dialogue["turns"]:
            said.append(turn["said"] or turn["raw"])
            thoughts.append(len(turn["thought"]))
            for name, score in turn["scores"].items():
                scores.setdefault(name, []).append(score)
    if not said:
        return {}
    return {
        "distinct": len(set(said)) / len(said),
        "length": _average([len(words) for words in said]),
        "thought": _average(thoughts),
        **{f"scores.{name}": _average(values) for name, values in scores.items()},
    }


def _average(values: Sequence[float]) -> float:
    return sum(values) / len(values)
