"""The page of a run that goes on: what the server answers, and that it touches nothing."""

import asyncio
import gzip
import html
import json
import re
import socket
import subprocess
import sys

import httpx
import pytest

from cmpo.reports import describing, watching
from cmpo.run.log import RunLog
from tests.builders import commands
from tests.builders.dialogues import COSTS
from tests.builders.evaluations import write_evaluation
from tests.builders.run_pages import batch, record, write_run
from tests.builders.runs import ROOT


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def read_files(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def ask(run, *paths, headers=None):
    """Asks one server for several paths; a function among them is called in its place."""

    async def talk():
        transport = httpx.ASGITransport(watching.make_app(watching.Watch([run])))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return [await client.get(path, headers=headers) if isinstance(path, str) else path() for path in paths]

    return asyncio.run(talk())


def test_data_follow_the_run(run):
    def go_on():
        with RunLog(run, COSTS) as log:
            log.write(record(6))
            log.write_transcripts(6, batch(6))

    before, _, after, chunk = ask(run, "/data", go_on, "/data", "/chunks/0/6")
    assert before.json()["runs"][0]["step"] == 5 and after.json()["runs"][0]["step"] == 6
    assert before.headers["etag"] != after.headers["etag"]
    groups = json.loads(gzip.decompress(chunk.content))
    assert groups[0]["dialogues"][1]["turns"][1]["said"] == "A voucher for step 6."


def test_a_line_that_is_being_written_is_not_there_yet(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "phase": "r')
    (data,) = ask(run, "/data")
    assert data.json()["runs"][0]["step"] == 5


def test_what_is_not_new_is_not_sent_again(run):
    (first,) = ask(run, "/data")
    (again,) = ask(run, "/data", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""


def test_batches_are_read_once(run, monkeypatch):
    read, read_groups = [], describing.read_groups
    monkeypatch.setattr(describing, "read_groups", lambda *given: read.append(given) or read_groups(*given))

    def go_on():
        with RunLog(run, COSTS) as log:
            log.write(record(6))

    ask(run, "/data", go_on, "/data", "/chunks/0/4")
    assert len(read) == 3


def test_an_evaluation_is_followed_too(tmp_path):
    path = write_evaluation(tmp_path / "x.json", [4.0])

    def go_on():
        write_evaluation(path, [4.0, 2.0])

    before, _, after, chunk = ask(path, "/data", go_on, "/data", "/chunks/0/evaluation_x")
    assert [one.json()["runs"][0]["batches"][0]["dialogues"] for one in (before, after)] == [1, 2]
    assert len(json.loads(gzip.decompress(chunk.content))) == 2


def test_what_can_no_longer_be_read_leaves_the_last_state_and_a_notice(run):
    metrics = run / "metrics.jsonl"
    whole = metrics.read_bytes()

    def damage():
        metrics.write_bytes(b"{}}\n" + whole)

    def mend():
        metrics.write_bytes(whole)

    before, _, broken, chunk, _, after = ask(run, "/data", damage, "/data", "/chunks/0/4", mend, "/data")
    assert broken.status_code == chunk.status_code == 200
    found = broken.json()["runs"][0]
    assert found.pop("notice").startswith(f"This is what was read last: {metrics}:1: expected a JSON object")
    assert found == {name: value for name, value in before.json()["runs"][0].items() if name != "notice"}
    assert after.json() == before.json()
    gone, _, last = ask(run, "/data", lambda: run.rename(run.with_name("elsewhere")), "/data")
    assert last.json()["runs"][0]["step"] == gone.json()["runs"][0]["step"] == 5
    assert "no such file" in last.json()["runs"][0]["notice"]


def test_it_only_reads(run):
    before = read_files(run)
    page, data, chunk, none, wrong = ask(run, "/", "/data", "/chunks/0/3", "/chunks/0/99", "/chunks/1/3")
    assert [one.status_code for one in (page, data, chunk, none, wrong)] == [200, 200, 200, 404, 404]
    assert read_files(run) == before
    assert "connect-src 'self'" in html.unescape(page.text) and "chunk-0-3" not in page.text


def test_a_port_that_is_in_use_is_said_before_an_address(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = commands.run("cmpo.report", f"--workdir={run}", "--serve", f"--port={port}")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: --port: cannot listen at {port}: Address already in use")


def test_the_address_of_any_free_port_is_where_the_page_is(run):
    command = [sys.executable, "-m", "cmpo.report", f"--workdir={run}", "--serve", "--port=0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*", url)
            assert httpx.get(f"{url}/data", trust_env=False, timeout=300).json()["runs"][0]["step"] == 5
        finally:
            process.kill()


def test_where_there_is_no_run_it_does_not_begin(tmp_path):
    done = commands.run("cmpo.report", f"--workdir={tmp_path}", "--serve")
    assert done.returncode == 1 and "metrics.jsonl: no such file" in done.stderr
