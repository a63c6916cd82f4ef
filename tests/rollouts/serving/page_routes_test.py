"""What the page asks of its server, over real HTTP on loopback: what it offers, scenes, refusals, and files."""

import json
import pathlib
import re
import time

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from rollouts.serving import page_routes
from rollouts.serving.page_routes import FILES, HEADERS, make_page_routes
from rollouts.serving.scenes import PageTable
from tests.builders.pages import TURN, serve_page
from tests.builders.shop import Shop


@pytest.fixture(scope="module")
def page():
    with serve_page() as (url, agents, _), httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        client.agents = agents
        yield client


def begin(page, agents=("never", "generous"), task=0):
    begun = page.post("/page/scenes", json={"task": task, "agents": list(agents)})
    assert begun.status_code == 201
    return f"/page/scenes/{begun.json()['id']}"


def read(page, path, first=0, until="ready", count=2):
    """Reads the events of a scene from number `first` to the `count`th of the kind `until`."""
    found = []
    with page.stream("GET", f"{path}/events", params={"from": first}) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        for line in response.iter_lines():
            if line:
                found.append(json.loads(line))
                if sum(event["kind"] == until for event in found) == count:
                    break
    return found


def test_a_dialogue_from_greeting_to_rating(page):
    path = begin(page)
    events = read(page, path)
    assert [event["kind"] for event in events] == ["told", "ready", "ready"]
    assert page.post(f"{path}/words", json={"text": "It was cold!"}).status_code == 202
    events += read(page, path, len(events))
    said = {event["agent"]: event["text"] for event in events if event["kind"] == "said"}
    assert said == {"never": "It was cold!", "generous": "It was cold!"}
    rated = page.post(f"{path}/words", json={"text": "[end:2]", "agents": ["never"]})
    assert rated.status_code == 202
    events += read(page, path, len(events), "end", 1)
    assert page.post(f"{path}/words", json={"text": "[end:5]"}).status_code == 202  # to the one that goes on
    events += read(page, path, len(events), "end", 1)
    ends = {event["agent"]: event["badge"] for event in events if event["kind"] == "end"}
    assert ends == {"never": ["rated 2/5", "bad"], "generous": ["rated 5/5", "good"]}
    assert read(page, path, until="end") == events  # whoever comes back is told all of it
    assert page.post(f"{path}/words", json={"text": "Hello?"}).status_code == 409
    assert page.delete(path).status_code == 204 and page.delete(path).status_code == 404
    assert page.get(f"{path}/events").status_code == 404


def test_what_the_page_offers(page):
    offer = page.get("/page/about").json()
    assert offer["agents"] == ["never", "generous"] and offer["title"] == "a run, step 7"
    assert [ending["label"] for ending in offer["endings"]] == ["1", "2", "3", "4", "5", "quit"]
    assert offer["costs"] == {"voucher": "any"} and offer["budgets"] == {"voucher": 0.3}
    assert offer["reads_turns"] and not offer["customer_view"] and "[end:1]" in offer["help"]
    assert len(offer["tasks"]) == 24
    assert set(offer["tasks"][0]["labels"]) == {"level", "demand", "complaint"}
    assert offer["tasks"][0]["opening"].startswith("You are a service agent")


def test_marks_that_cannot_be_sent_on_become_signs(page):
    path = begin(page, ["never"])
    read(page, path, count=1)
    body = rb'{"text": "a\ud800b \u202ec <img src=x onerror=alert(1)> \ud83d\ude00"}'
    sent = page.post(f"{path}/words", content=body, headers={"Content-Type": "application/json"})
    assert sent.status_code == 202
    said, *_, turn = read(page, path, 2, "turn", 2)
    assert said["text"] == "a\ufffdb \u202ec <img src=x onerror=alert(1)> \U0001f600"
    assert turn["judged"]  # the words went to the judge as well


def test_words_before_an_answer_are_refused():
    with serve_page(["never"], seconds=30) as (url, _, _), httpx.Client(base_url=url, trust_env=False) as page:
        path = begin(page, ["never"])
        read(page, path, count=1)
        assert page.post(f"{path}/words", json={"text": "Hello"}).status_code == 202
        refused = page.post(f"{path}/words", json={"text": "Hello?"})
        assert refused.status_code == 409 and "not answered yet" in refused.json()["error"]["message"]


def test_a_browser_that_goes_away_frees_its_sessions():
    with serve_page(limits={"absence": 0.1}) as (url, agents, _), httpx.Client(base_url=url, trust_env=False) as page:
        path = begin(page)
        read(page, path)  # closes the connection in the middle of the events
        while any(agent.sessions != {"opened": 1, "closed": 1} for agent in agents.values()):
            time.sleep(0.01)
        assert page.get(f"{path}/events").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("scenes", b"{", 400, None),
        ("scenes", b"[1]", 400, None),
        ("scenes", b"[" * 100_000, 400, None),
        ("scenes", b"\xff", 400, None),
        ("scenes", {"agents": ["never"]}, 400, "task"),
        *(("scenes", {"task": task, "agents": ["never"]}, 400, "task") for task in (-1, 24, "0", 1.0, True, None)),
        *(
            ("scenes", {"task": 0, "agents": agents}, 400, "agents")
            for agents in ([], "never", ["nobody"], [1], [["never"]], [{}], None)
        ),
        ("scenes/{id}/words", {}, 400, "text"),
        *(("scenes/{id}/words", {"text": text}, 400, "text") for text in ("", " \n", 1, None, "x" * 4001)),
        ("scenes/{id}/words", {"text": "Hi", "agents": ["nobody"]}, 400, "agents"),
        ("scenes/{id}/words", {"text": "Hi", "agents": ["generous"]}, 409, None),  # not in this scene
        ("scenes/unknown/words", {"text": "Hi"}, 404, None),
        ("turns", {"text": "x" * 40_001}, 400, "text"),
        ("turns", {"text": 1}, 400, "text"),
    ],
)
def test_refusals_are_errors_of_the_protocol(page, path, body, status, field):
    scene = begin(page, ["never"])
    read(page, scene, count=1)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    place = f"/page/{path}".replace("/page/scenes/{id}", scene)
    answer = page.post(place, content=content, headers={"Content-Type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (status, field, "invalid_request_error")
    assert field is None or f"'{field}'" in error["message"]
    assert len(error["message"]) < 300 and "traceback" not in error["message"].lower()


@pytest.mark.parametrize("first", ["-1", "x", "1.0", "٣", "9" * 30, ""])
def test_a_number_that_is_none_is_refused(page, first):
    answer = page.get(f"{begin(page, ['never'])}/events", params={"from": first})
    assert answer.status_code == 400 and "'from'" in answer.json()["error"]["message"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_a_form_of_another_site_may_send_is_refused(page, kind):
    headers = {"Content-Type": kind} if kind else {}
    assert page.post("/page/scenes", content=b'{"task": 0, "agents": ["never"]}', headers=headers).status_code == 415


def test_a_turn_is_taken_apart_by_its_words(page):
    turn = page.post("/page/turns", json={"text": TURN.format("a voucher", "voucher")}).json()
    assert turn == {
        "said": "I hear: a voucher",
        "thought": "Plan: a voucher.",
        "badges": [["voucher", "cost"]],
        "remark": "",
        "raw": "",
        "spent": [["voucher", 1.0]],
    }
    headers = {"Content-Type": "application/json"}
    turn = page.post("/page/turns", content=rb'{"text": "Plain \ud800"}', headers=headers).json()
    assert (turn["badges"], turn["raw"]) == ([["format error", "bad"]], "Plain \ufffd")


def test_files_have_their_types_and_a_strict_policy(page):
    names = {path.name for path in FILES.iterdir()}
    assert {"index.html", "page.css", "page.js", "icon.svg"} <= names
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for path in ["/", *(f"/page/files/{name}" for name in names)]:
        answer = page.get(path)
        assert answer.status_code == 200, path
        kind = answer.headers["content-type"].split(";")[0].replace("application/java", "text/java")
        assert kind == kinds[pathlib.Path(path).suffix or ".html"]
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert page.get("/").content == (FILES / "index.html").read_bytes()
    assert HEADERS["Content-Security-Policy"].startswith("default-src 'self'; ") and "unsafe" not in str(HEADERS)
    assert page.get("/page/about").headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["..%2Fguard.py", "%2e%2e%2fguard.py", "../guard.py", "none.js", "", "..", "%00"])
def test_no_other_file_is_sent(page, name):
    address = page.base_url.host, page.base_url.port
    with httpx.Client(trust_env=False) as client:
        target = f"http://{address[0]}:{address[1]}/page/files/{name}"
        assert client.get(target).status_code in (404, 405)


def test_the_files_name_only_their_own_server():
    for path in FILES.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w-]+\.\w", text), path
        assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\.style=", text), path


def test_with_a_key_the_files_are_open_and_nothing_else():
    with serve_page(["never"], api_key="a-key") as (url, _, _), httpx.Client(base_url=url, trust_env=False) as page:
        for path in ("/", *(f"/page/files/{file.name}" for file in FILES.iterdir())):
            assert page.get(path).status_code == 200
        for path in ("/page/about", "/page/files/../about", "/v1/models", "/page/scenes"):
            assert page.get(path).status_code == 401
        assert page.get("/page/about", headers={"Authorization": "Bearer a-key"}).status_code == 200


@pytest.mark.parametrize("table", [None, PageTable(Shop())], ids=["nothing", "no tasks"])
def test_a_server_without_tasks_has_free_conversation_only(table):
    with TestClient(Starlette(routes=make_page_routes(table))) as page:
        offer = page.get("/page/about").json()
        assert (offer["tasks"], offer["agents"], offer["endings"], offer["help"]) == ([], [], [], "")
        assert page.post("/page/scenes", json={"task": 0, "agents": ["x"]}).status_code == 404
        assert page.get("/page/scenes/x/events").status_code == 404 and page.get("/").status_code == 200
        turn = page.post("/page/turns", json={"text": "Here.#1"})
        if table is None:
            assert turn.status_code == 404 and not offer["reads_turns"]
        else:
            assert turn.json()["said"] == "Here.#1" and turn.json()["spent"] == [["refund", 1.0], ["turns", 1.0]]


def test_a_stream_of_events_is_no_longer_than_a_server_may_wait(monkeypatch):
    monkeypatch.setattr(page_routes, "STREAM_SECONDS", 0.2)
    with serve_page(["never"]) as (url, _, _), httpx.Client(base_url=url, trust_env=False, timeout=30) as page:
        path = begin(page, ["never"])
        kinds = [json.loads(line)["kind"] for line in page.get(f"{path}/events").text.splitlines() if line]
        assert kinds == ["told", "ready"]
        assert page.get(f"{path}/events", params={"from": 2}).text.strip() == ""
