"""Evaluates an agent on tau2-bench with the benchmark's own client: ``python -m cmpo.tau2 --workdir=runs/telecom``.

The agent is a run's policy (--workdir), a checkpoint in Hugging Face's format (--hf), both of which `cmpo.serve`
serves, or any server of the OpenAI protocol (--agent_url, --agent_model). The user is an LLM: --user_url, --user_model.
Each of --domains is played --trials times over the tasks of --split. --out (default: DIR/tau2 of --workdir) gets the
client's results and logs, tau2.json and tau2.md. They lie in a folder playing_… of it until all domains are played, and
replace what an earlier command wrote only then. A dialogue that the client could not finish counts as a failure, and is
listed; if it finished none, the status is 1, and all stays in that folder. Beside every score stands that of an agent
that does nothing.
"""

import contextlib
import json
import math
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from absl import flags

from cmpo.cli import command, remote
from cmpo.evaluation import bootstrap, tables
from cmpo.run import files
from cmpo.run.workdir import load_config
from rollouts.domains.tau2 import official
from rollouts.domains.tau2.official import Model, Played
from rollouts.domains.tau2.package import DOMAINS, Package, load_package

_HF = flags.DEFINE_string("hf", None, "Directory of a model in Hugging Face's format, in place of --workdir.")
_USER_URL = flags.DEFINE_string("user_url", None, "Base URL of the LLM that plays the user.")
_USER = flags.DEFINE_string("user_model", None, "Its model; default: the first that it lists.")
_USER_KEY = flags.DEFINE_string("user_api_key_env", "", "Environment variable that holds the key of --user_url.")
_DOMAINS = flags.DEFINE_list("domains", ["airline", "retail", "telecom"], f"Some of {', '.join(DOMAINS)}.")
_TRIALS = flags.DEFINE_integer("trials", 4, "How often each task is played.", lower_bound=1)
_SPLIT = flags.DEFINE_string("split", "base", "Which tasks; base: the whole benchmark of a domain.")
_TASKS = flags.DEFINE_integer("tasks", None, "Only so many of them, the first ones.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 0.0, "Of the agent.", lower_bound=0.0)
_TOKENS = flags.DEFINE_integer("max_tokens", 1024, "Of an answer, of the agent or the user.", lower_bound=1)
_CONCURRENCY = flags.DEFINE_integer("concurrency", 8, "Dialogues at a time.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 300, "Of the client.", lower_bound=0)
_SERVE = flags.DEFINE_multi_string("serve_flag", [], "A further flag of cmpo.serve, such as --context_length=16384.")

_READY = 600.0  # seconds within which a server must be there
_PATIENCE = 60.0  # seconds within which one that is there must answer


def run() -> None:
    """Plays, reads the results and writes the table."""
    out = check_flags()
    user_key, agent_key = (read_key(flag) for flag in (_USER_KEY, remote.API_KEY_ENV))
    package = load_package()
    check_splits(package, _DOMAINS.value, _SPLIT.value)
    with open_folder(out) as folder:
        name = find_model(_USER_URL, _USER, user_key)
        user = Model(_USER_URL.value, name, 0.0, _TOKENS.value, _USER_KEY.value)
        with open_agent(folder, agent_key) as agent:
            played = {name: play_domain(name, agent, user, folder) for name in _DOMAINS.value}
        write_tables(folder, package, agent, user, played)


def check_flags() -> pathlib.Path:
    """Checks what the flags alone tell, and returns where results go. Raises ValueError or OSError, naming the flag."""
    if sum(map(bool, (command.WORKDIR.value, _HF.value, remote.URL.value))) != 1:
        raise ValueError("expected one of --workdir=DIR, --hf=DIR and --agent_url=URL")
    if not _DOMAINS.value:
        raise ValueError(f"--domains: expected some of {', '.join(DOMAINS)}, got none")
    if unknown := [name for name in _DOMAINS.value if name not in DOMAINS]:
        raise ValueError(f"--domains: expected some of {', '.join(DOMAINS)}, got {unknown[0]!r}")
    if twice := [name for name in _DOMAINS.value if _DOMAINS.value.count(name) > 1]:
        raise ValueError(f"--domains: expected each domain once, got {twice[0]!r} again")
    if not math.isfinite(_TEMPERATURE.value):
        raise ValueError(f"--temperature: expected a finite number, got {_TEMPERATURE.value}")
    if not _USER_URL.value:
        raise ValueError("--user_url: expected the base URL of an LLM that plays the user, got none")
    if not (command.OUT.value or command.WORKDIR.value):
        raise ValueError("--out: expected a directory for the results, got none")
    if command.WORKDIR.value:
        load_config(pathlib.Path(command.WORKDIR.value))  # or cmpo.serve finds that there is no run, in a log
    return pathlib.Path(command.OUT.value or pathlib.Path(command.WORKDIR.value, "tau2"))


def check_splits(package: Package, domains: Sequence[str], split: str) -> None:
    """Raises ValueError, naming the flag, if one of the domains does not have the split for the client."""
    for domain in domains:
        if split not in (known := official.list_splits(package, domain)):
            raise ValueError(f"--split: expected one of {', '.join(known)}, the splits of {domain}, got {split!r}")


@contextlib.contextmanager
def open_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a new folder in `out`. What is in it at the end goes to `out`, in place of what has the same name there.

    After an error, what was played stays in the folder, and nothing in `out` changes. Raises ValueError if `out` is no
    directory that can be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = pathlib.Path(tempfile.mkdtemp(prefix="playing_", dir=out))
    except OSError as error:
        raise ValueError(f"--out: {out}: expected a directory to write to: {error.strerror}") from None
    try:
        yield folder
        for path in list(folder.iterdir()):
            path.replace(out / path.name)
    finally:
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()


@contextlib.contextmanager
def open_agent(folder: pathlib.Path, key: str) -> Iterator[Model]:
    """Gives the agent, from a server that runs meanwhile if there is none. Raises ValueError if none answers."""
    sampling = _TEMPERATURE.value, _TOKENS.value
    if remote.URL.value:
        name = find_model(remote.URL, remote.MODEL, key)
        yield Model(remote.URL.value, name, *sampling, remote.API_KEY_ENV.value or "")
        return
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = f"--workdir={command.WORKDIR.value}" if command.WORKDIR.value else f"--hf={_HF.value}"
    serve = [sys.executable, "-m", "cmpo.serve", source, f"--port={port}", "--reasoning", *_SERVE.value]
    with (folder / "serve.log").open("w") as log, subprocess.Popen(serve, stdout=log, stderr=log) as server:
        try:
            url = f"http://127.0.0.1:{port}/v1"
            wait_for_server(server, url, folder / "serve.log")
            yield Model(url, find_listed_model(url, "--workdir"), *sampling)
        finally:
            server.terminate()


def wait_for_server(server: subprocess.Popen, url: str, log: pathlib.Path) -> None:
    """Waits until a server answers. Raises ValueError, with its last words, if it ends or takes too long."""
    until = time.monotonic() + _READY
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url.removesuffix("/v1") + "/health", timeout=_PATIENCE).status_code == 200:
                return
        time.sleep(0.2)
    raise ValueError(f"cmpo.serve does not answer: {find_last_line(log)}")


def read_key(flag: flags.FlagHolder) -> str:
    """Reads the key that a flag names the variable of; "": it names none. Raises ValueError if it is not set."""
    if flag.value and not os.environ.get(flag.value):
        raise ValueError(f"--{flag.name}: the environment variable {flag.value} is not set")
    return os.environ.get(flag.value or "", "")


def find_model(url: flags.FlagHolder, model: flags.FlagHolder, key: str = "") -> str:
    """Returns the name of a server's model, the one of a flag or else the first that it lists, once it has answered.

    Raises ValueError, naming the flag, if it does not: the client would play all dialogues without it.
    """
    flag = f"--{url.name}"
    name = model.value or find_listed_model(url.value, flag, key)
    ask_model(url.value, name, flag, key)
    return name


def find_listed_model(url: str, flag: str, key: str = "") -> str:
    """Returns the name of the first model that a server lists. Raises ValueError if it lists none."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/models", headers=_show_key(key), timeout=_PATIENCE)
        return answer.raise_for_status().json()["data"][0]["id"]
    except (httpx.HTTPError, httpx.InvalidURL, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{flag}: {url}: expected a server that lists its models: {error}") from None


def ask_model(url: str, name: str, flag: str, key: str = "") -> None:
    """Asks a model for one token. Raises ValueError, naming the flag, if it gives none."""
    body = {"model": name, "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 1}
    try:
        answer = httpx.post(f"{url.rstrip('/')}/chat/completions", json=body, headers=_show_key(key), timeout=_PATIENCE)
        if answer.status_code == 400 and "max_tokens" in answer.text:
            return  # a model that thinks first wants more of them, which the client sees to
        if answer.status_code != 200:
            raise ValueError(f"status {answer.status_code}: {answer.text:.200}")
        if "message" not in answer.json()["choices"][0]:
            raise ValueError(f"there is no message in {answer.text:.200}")
    except (httpx.HTTPError, httpx.InvalidURL, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{flag}: {url}: expected an answer of the model {name!r}: {error}") from None


def _show_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def play_domain(domain: str, agent: Model, user: Model, folder: pathlib.Path) -> list[Played]:
    """Lets the client play a domain; returns what it says. Raises ValueError, with its last words, if it fails."""
    log = folder / f"{domain}.log"
    asked = official.write_command(
        domain,
        agent,
        user,
        folder,
        trials=_TRIALS.value,
        split=_SPLIT.value,
        tasks=_TASKS.value,
        concurrency=_CONCURRENCY.value,
        seed=_SEED.value,
    )
    with log.open("w") as file:
        done = subprocess.run(
            asked, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=official.client_environment()
        )
    if done.returncode:
        raise ValueError(f"tau2's client ended with status {done.returncode} on {domain}: {find_last_line(log)}")
    return official.read_results(folder / f"{domain}.json")


def find_last_line(log: pathlib.Path) -> str:
    """Returns the last line of a log that says something, and where the log is."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else 'it said nothing'} ({log})"


def write_tables(
    folder: pathlib.Path, package: Package, agent: Model, user: Model, played: Mapping[str, Sequence[Played]]
) -> None:
    """Writes tau2.json and tau2.md, and prints the table. Raises ValueError, after that, if nothing was finished."""
    idle = {
        name: official.score_idle_agent(package, name, _SPLIT.value, {one.task for one in dialogues})
        for name, dialogues in played.items()
    }
    result = {
        "package": package.name,
        "data": {name: package.hash_data(name) for name in played},
        "agent": agent._asdict() | {"source": command.WORKDIR.value or _HF.value or remote.URL.value},
        "user": user._asdict(),
        "split": _SPLIT.value,
        "trials": _TRIALS.value,
        "seed": _SEED.value,
        "domains": {name: summarize(dialogues, idle[name], _TRIALS.value) for name, dialogues in played.items()},
    }
    files.replace_file(folder / "tau2.json", json.dumps(result, indent=1))
    table = format_table(result["domains"], _TRIALS.value)
    files.replace_file(folder / "tau2.md", table + "\n")
    print(table)
    if all(one.fault for dialogues in played.values() for one in dialogues):
        logs = ", ".join(str(folder / f"{name}.log") for name in played)
        raise ValueError(f"tau2's client finished no dialogue, so that every score is 0; it says why in {logs}")


def summarize(played: Sequence[Played], idle: Mapping[str, float], trials: int) -> dict[str, Any]:
    """Summarizes the dialogues of a domain: scores with intervals over tasks, and what was not finished."""
    by_task: dict[str, list[Played]] = {}
    for one in played:
        by_task.setdefault(one.task, []).append(one)
    values = np.array(
        [
            [one.reward, *(np.nan if value is None else float(value) for value in (one.told, one.kept, one.done))]
            for one in played
        ]
    )
    names = ("pass^1", "communication", "databases", "actions")
    estimates = bootstrap.estimate_means(
        values, np.array([one.trial for one in played]), np.array([one.task for one in played])
    )
    rewards = [[one.reward for one in ones] for ones in by_task.values()]
    several = {
        f"pass^{k}": float(np.mean([official.compute_pass_hat(each, k) for each in rewards]))
        for k in range(1, min(trials, *map(len, rewards)) + 1)
    }
    return {
        "tasks": len(by_task),
        "dialogues": len(played),
        "scores": {name: estimate._asdict() for name, estimate in zip(names, estimates, strict=True)},
        "pass": several,
        "idle": float(np.mean([idle[task] for task in by_task])),
        "ends": {end: sum(one.end == end for one in played) for end in sorted({one.end for one in played})},
        "unfinished": [f"{one.task}, trial {one.trial}" for one in played if one.fault],
    }


def format_table(domains: Mapping[str, Mapping[str, Any]], trials: int) -> str:
    """Formats the summaries as Markdown, in per cent."""
    passes = [f"pass^{k}" for k in range(2, trials + 1)]
    head = ["domain", "tasks", "Pass^1", "95 %", *(name.title() for name in passes), "communication", "databases"]
    head += ["actions", "doing nothing", "not finished"]
    rows = [_format_domain(name, found, passes) for name, found in domains.items()]
    mean = float(np.mean([found["scores"]["pass^1"]["mean"] for found in domains.values()]))
    idle = float(np.mean([found["idle"] for found in domains.values()]))
    blank = [""] * (len(passes) + 4)
    rows.append(["mean", "", _show(mean), *blank, _show(idle), ""])
    return tables.format_table(head, rows)


def _format_domain(name: str, found: Mapping[str, Any], passes: Sequence[str]) -> list[str]:
    first, *others = (found["scores"][score] for score in ("pass^1", "communication", "databases", "actions"))
    interval = f"{100 * first['low']:.1f}–{100 * first['high']:.1f}"
    several = [_show(found["pass"].get(each, float("nan"))) for each in passes]
    measured = [_show(score["mean"]) for score in others]
    unfinished = str(len(found["unfinished"]))
    return [
        name,
        str(found["tasks"]),
        _show(first["mean"]),
        interval,
        *several,
        *measured,
        _show(found["idle"]),
        unfinished,
    ]


def _show(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.1f}"


if __name__ == "__main__":
    command.run(run, of_a_run=False)
