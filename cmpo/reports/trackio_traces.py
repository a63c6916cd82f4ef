"""Logs dialogues as traces of Trackio, for its dashboard. The package is an extra."""

from typing import Any

from cmpo.reports.conversations import Conversation, list_conversations
from cmpo.reports.run_data import Run


def import_trackio() -> Any:
    """Imports the package and returns it. Raises ValueError if it is not installed."""
    try:
        import trackio
    except ImportError as error:
        raise ValueError(f"--trackio: expected the package trackio (pip install -e '.[trackio]'): {error}") from None
    return trackio


def log_traces(run: Run, project: str) -> int:
    """Logs the dialogues of a run's steps and evaluations in a Trackio `project`; returns how many.

    They become a new run there, with the run's name and config. Those of an evaluation are at the run's last step.
    Trackio keeps them on this machine, unless its own environment variables name a server.

    Raises:
      ValueError: the package is not installed, or a file of the run is damaged.
    """
    trackio = import_trackio()
    batches = list(list_conversations(run))  # what is wrong with a file is said before anything is logged
    options = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    trackio.init(project=project, name=run.name, config=dict(run.config), **options)
    try:
        for batch, conversations in batches:
            traces = [
                trackio.Trace(list_messages(one), metadata=describe_trace(batch.key, one)) for one in conversations
            ]
            name = "dialogues" if batch.step is not None else batch.key
            trackio.log({name: traces}, step=run.step if batch.step is None else batch.step)
    finally:
        trackio.finish()
    return sum(len(conversations) for _, conversations in batches)


def list_messages(one: Conversation) -> list[dict[str, Any]]:
    """Lists the messages as the OpenAI protocol has them; the agent's thoughts are `reasoning_content`."""
    return [
        {"role": role, "content": text, **({"reasoning_content": thought} if thought else {})}
        for role, text, thought in one.messages
    ]


def describe_trace(key: str, one: Conversation) -> dict[str, Any]:
    """Describes a dialogue beside its messages: where it is from, its scores, and whether it failed."""
    status = {"status": "error", "error": one.failure} if one.failure else {"status": "ok"}
    return {"session_id": f"{key}/{one.task}", "number": one.number, **status, "scores": dict(one.scores), **one.about}
