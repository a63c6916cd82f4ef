"""Writes dialogues as logs of Inspect (`inspect_ai`), for its viewer and its scanners. The package is an extra."""

import datetime
import pathlib
from collections.abc import Sequence
from typing import Any

from cmpo.reports.conversations import Conversation, Said, list_conversations
from cmpo.reports.run_data import Batch, Run
from rollouts import domains


def import_inspect() -> Any:
    """Imports the package's module of logs and returns it. Raises ValueError if it is not installed."""
    try:
        from inspect_ai import log
    except ImportError as error:
        raise ValueError(f"--inspect: expected the package inspect_ai (pip install -e '.[inspect]'): {error}") from None
    return log


def write_logs(run: Run, folder: pathlib.Path) -> list[pathlib.Path]:
    """Writes a log `folder`/KEY.eval for each batch of a run's dialogues, and returns their paths.

    A task is a sample, and its dialogues are its epochs, those of all its groups. The same run gives the same samples.

    Raises:
      ValueError: the package is not installed, or a file of the run is damaged.
    """
    log = import_inspect()
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for batch, conversations in list_conversations(run):
        name = batch.key if batch.step is None else f"step_{batch.step:06d}"
        paths.append(folder / f"{name}.eval")
        log.write_eval_log(_make_log(run, batch, conversations), paths[-1])
    return paths


def _make_log(run: Run, batch: Batch, conversations: Sequence[Conversation]) -> Any:
    from inspect_ai import log, model

    played = f"cmpo/{run.name}"
    created = datetime.datetime.fromtimestamp(batch.path.stat().st_mtime, datetime.UTC).isoformat()
    tasks = list(dict.fromkeys(one.task for one in conversations))
    return log.EvalLog(
        status="success",
        eval=log.EvalSpec(
            created=created,
            task=f"{run.name}, {batch.title.lower()}",
            model=played,
            dataset=log.EvalDataset(name=domains.name_of(run.config), samples=len(tasks), sample_ids=tasks),
            config=log.EvalConfig(epochs=max((one.number for one in conversations), default=1)),
        ),
        results=_summarize(log, conversations),
        stats=log.EvalStats(started_at=created, completed_at=created),
        samples=[_make_sample(log, model, played, one) for one in conversations],
    )


def _make_sample(log: Any, model: Any, played: str, one: Conversation) -> Any:
    from inspect_ai.scorer import Score

    messages = [_make_message(model, said) for said in one.messages]
    answers = [message for message in messages if message.role == "assistant"]
    choices = [model.ChatCompletionChoice(message=answer) for answer in answers[-1:]]
    return log.EvalSample(
        id=one.task,
        epoch=one.number,
        input=messages[:1] or "",
        target="",
        messages=messages,
        output=model.ModelOutput(model=played, choices=choices),
        scores={name: Score(value=value) for name, value in one.scores.items()},
        metadata=dict(one.about),
        error=log.EvalError(message=one.failure, traceback="", traceback_ansi="") if one.failure else None,
    )


def _make_message(model: Any, said: Said) -> Any:
    kinds = {"system": model.ChatMessageSystem, "user": model.ChatMessageUser, "tool": model.ChatMessageTool}
    if said.role != "assistant":
        return kinds[said.role](content=said.text)
    thought = [model.ContentReasoning(reasoning=said.thought)] if said.thought else []
    return model.ChatMessageAssistant(content=[*thought, model.ContentText(text=said.text)])


def _summarize(log: Any, conversations: Sequence[Conversation]) -> Any:
    """Gives the means of all scores over the dialogues that did not fail."""
    sound = [one for one in conversations if not one.failure]
    names = dict.fromkeys(name for one in sound for name in one.scores)
    scores = []
    for name in names:
        values = [one.scores[name] for one in sound if name in one.scores]
        mean = log.EvalMetric(name="mean", value=sum(values) / len(values))
        scores.append(log.EvalScore(name=name, scorer=name, metrics={"mean": mean}))
    return log.EvalResults(total_samples=len(conversations), completed_samples=len(sound), scores=scores)
