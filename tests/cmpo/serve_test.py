"""The command that serves a run, or a checkpoint."""

import json
import signal
import socket
import subprocess
import sys
import time

import httpx
import jax
import pytest

from models import hf, qwen2
from rollouts.serving import listening
from tests.builders import commands
from tests.builders.engines import CONFIG
from tests.builders.runs import ROOT
from tests.builders.servers import trained

USER = {"role": "user", "content": "My soup arrived cold!"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --workdir=DIR of a run, or --hf=DIR of a model"),
        (["--workdir={}/no"], "--workdir: expected a run with a config.json"),
        (["--hf={}"], "expected a model in Hugging Face's format"),
        (["--workdir={}", "--host=0.0.0.0"], "--host: 0.0.0.0 is open to others"),
        (["--hf={}", "--budget=voucher:0.3"], "--budget: expected --workdir"),
        (["--hf={}", "--customer_view"], "--customer_view: expected --workdir"),
        (["--workdir={}", "--enforce"], "--enforce: expected --budget=COST:NUMBER beside it"),
        (["--workdir={}", "--window=30"], "--window: expected --budget"),
        (["--workdir={}", "--agents="], "--agents: expected some of policy, best, start, got none"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_is_loaded(tmp_path, arguments, message):
    done = commands.run("cmpo.serve", *(argument.format(tmp_path) for argument in arguments))
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_run_is_served_with_its_start_beside_it_its_page_and_its_ledger(whole_run, tmp_path, monkeypatch):
    workdir, _ = whole_run
    found = {}

    async def serve_app(app, default_port):
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
        ):
            found["models"] = [model["id"] for model in (await http.get("/v1/models")).json()["data"]]
            for name in found["models"]:
                body = {"model": name, "messages": [USER], "seed": 1}
                found[name] = (await http.post("/v1/chat/completions", json=body)).json()
            outcome = {"id": found["policy"]["id"], "resolved": True}
            found["outcome"] = (await http.post("/v1/outcomes", json=outcome)).status_code
            found["page"] = (await http.get("/page/about")).json()
            found["metrics"] = (await http.get("/metrics")).text

    monkeypatch.setattr(listening, "serve_app", serve_app)
    log = tmp_path / "ledger.jsonl"
    flags = ["--agents=policy,start", "--customer_view", "--budget=voucher:0.3", "--window=20", f"--ledger={log}"]
    done = commands.run("cmpo.serve", f"--workdir={workdir}", *flags)
    assert done.returncode == 0, done.stderr
    assert "serving policy, start at http://127.0.0.1:8000/v1" in done.stdout
    assert found["models"] == ["policy", "start"] and found["outcome"] == 200
    for name in found["models"]:
        assert "action" in found[name]["choices"][0]["message"]
    assert found["page"]["customer_view"] and len(found["page"]["tasks"]) == 24
    assert found["page"]["agents"] == ["policy", "start"] and found["page"]["budgets"] == {"voucher": 0.3}
    assert 'cmpo_budget{cost="voucher"} 0.3' in found["metrics"]
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds.count("answer") == 2 and kinds.count("report") == 1 and kinds.count("end") == 2


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_checkpoint_is_served_until_it_is_told_to_end(tmp_path, told):
    path = tmp_path / "tiny"
    hf.save(path, CONFIG, qwen2.init(CONFIG, jax.random.key(0)))
    trained().save(path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cmpo.serve", f"--hf={path}", f"--port={port}", "--slots=2"]
    with subprocess.Popen([*command, "--context_length=128"], cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:
                until_it_answers(http)
                body = {"model": "tiny", "messages": [USER], "max_tokens": 3}
                answer = http.post("/v1/chat/completions", json=body).json()
                assert answer["usage"]["completion_tokens"] <= 3
                assert http.get("/page/about").json()["tasks"] == [] and http.get("/").status_code == 200
            server.send_signal(told)
            assert server.wait(60) == 0 and "Traceback" not in server.stderr.read()
        finally:
            server.kill()


def until_it_answers(http):
    deadline = time.monotonic() + 300
    while True:
        try:
            if http.get("/health").status_code == 200:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
