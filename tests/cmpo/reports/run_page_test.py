"""The page of a run: what it carries, what it allows, and what it says where there is no run."""

import base64
import hashlib
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from cmpo.reports import plots, run_data, run_page
from cmpo.reports.conversations import list_conversations
from cmpo.run.alarms import WINDOW
from cmpo.run.log import RunLog, read_metrics
from configs import fds
from tests.builders import commands
from tests.builders.dialogues import COSTS, FDS, dialogue, task, turn
from tests.builders.evaluations import evaluation, write_evaluation
from tests.builders.run_pages import RunPage, sampled_batch
from tests.builders.runs import ROOT


@pytest.fixture
def run(tmp_path):
    """Two warm-up steps, three RL steps, a dialogue."""
    (tmp_path / "config.json").write_text(json.dumps({"name": "tiny <run>", "pid": {"target": 0.3}}))
    with RunLog(tmp_path, COSTS) as log:
        for step in (1, 2):
            log.write({"step": step, "phase": "sft", "loss": 3.0 / step, "seconds": {"update": 1.0}})
        for step, satisfaction, failed in ((3, 2.0, {}), (4, math.nan, {"user_timeout": 2}), (5, 4.0, {"judge": 1})):
            log.write(
                {
                    "step": step,
                    "phase": "rl",
                    "satisfaction": satisfaction,
                    "voucher_rate": step / 10,
                    "voucher_rate_smoothed": 0.4,
                    "lambda": 0.125 * step,
                    "dialogues_ok": 9,
                    "dialogues_failed": failed,
                    "seconds": {"sample": 2.0, "update": 0.5 * step},
                    "hidden_depth": {"left": step},
                }
            )
        log.write_transcripts(5, [dialogue(turn(0.75, response="<script>alert(1)</script>"), outcome=4.0)])
    return tmp_path


def write(run):
    return RunPage(run_page.write_report(run))


def test_the_page_needs_nothing_else_and_allows_nothing_else(run):
    page = write(run)
    assert not page.parsed.tags & {"link", "img", "iframe"}
    assert all(value.startswith("#") for value in page.parsed.links) and "@import" not in page.html
    rules = dict(rule.split(" ", 1) for rule in page.parsed.policy.split("; "))
    assert rules["default-src"] == "'none'" and not {"connect-src", "font-src", "frame-src"} & rules.keys()
    for name in ("script", "style"):  # the code is the only element of its kind without an id
        digest = base64.b64encode(hashlib.sha256(page.parsed.scripts[name].encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"


def test_nothing_that_others_wrote_ends_a_script_or_becomes_markup(run):
    hostile = "</script><script>alert(1)</script><!--"
    named = turn(said=hostile, think=hostile, response=hostile)
    path = RunLog(run, COSTS).write_transcripts(5, [dialogue(named, last_words=hostile, task=task(hostile))])
    (run / "config.json").write_text(json.dumps({"name": hostile, "pid": {"target": 0.3}, "algo": {"name": hostile}}))
    (run / "metrics.jsonl").open("a").write(
        json.dumps({"step": 6, "phase": "rl", "dialogues_failed": {hostile: 1}, "alarms": {hostile: hostile}}) + "\n"
    )
    page = write(run)
    scripts = [script for script in page.parsed.scripts if script != "style"]
    assert scripts == ["data", "script", "chunk-0-5"] and page.html.count("<script") == 3
    assert page.run["name"] == hostile and page.run["alarms"] == [[6, hostile, hostile]]
    (group,) = page.groups("5")
    assert group["id"] == hostile and group["dialogues"][0]["turns"][0]["said"] == hostile
    assert "<" not in path.read_text().replace(hostile, "")


def test_half_a_character_is_carried_as_it_is(run):
    said = "  two\n\nlines \ud800"
    RunLog(run, COSTS).write_transcripts(5, [dialogue(turn(response=said, think=said), last_words=said)])
    (group,) = write(run).groups("5")
    (found,) = group["dialogues"]
    assert found["turns"][0]["said"] == found["turns"][0]["thought"] == found["last"] == said


def test_curves_are_the_records(run):
    page = write(run)
    assert page.column("rl.satisfaction") == {3: 2.0, 4: None, 5: 4.0}
    assert page.column("sft.loss") == {1: 3.0, 2: 1.5} and page.column("rl.seconds.update") == {3: 1.5, 4: 2.0, 5: 2.5}
    assert page.column("rl.dialogues_failed.judge") == {3: 0, 4: 0, 5: 1}  # a cause without a count is one of none
    panels = page.panels()
    rate = panels["Voucher rate"]
    assert rate["lines"] == [{"at": 0.3, "label": "budget 30 %"}] and rate["percent"]
    assert [one["column"] for one in rate["series"]] == ["rl.voucher_rate", "rl.voucher_rate_smoothed"]
    assert [one["name"] for one in panels["Seconds by phase of a step"]["series"]] == ["sample", "update"]
    assert panels["Hidden depth, left"]["series"][0]["column"] == "rl.hidden_depth.left"  # of an unknown algorithm
    assert "KL to the reference" not in panels and page.run["sources"]["words"]["step"] == [5]


def test_the_words_of_a_step_are_measured(run):
    same = [turn(response="Sorry.", scores=(("rules", score),)) for score in (0.0, 0.5)]
    other = turn(response="A photo, please.", scores=(("rules", 1.0), ("persona", 1.0)))
    RunLog(run, COSTS).write_transcripts(5, [dialogue(*same), dialogue(other)])
    page = write(run)
    assert page.column("words.scores.rules") == {5: 0.5} and page.column("words.scores.persona") == {5: 1.0}
    assert page.column("words.distinct") == {5: pytest.approx(2 / 3, abs=1e-5)}
    assert page.column("words.length") == {5: pytest.approx((6 + 6 + 16) / 3, abs=1e-4)}


def test_the_plane_has_the_budget_the_best_possible_and_the_path_of_more_than_a_few_steps(run):
    assert write(run).run["plane"] is None
    with RunLog(run, COSTS) as log:
        for step in (6, 7):
            log.write({"step": step, "phase": "rl", "satisfaction": 3.0, "voucher_rate": 0.5})
    plane = write(run).run["plane"]
    assert plane["budget"] == 0.3 and plane["percent"] and plane["frontier"] is None  # whom it met is not known
    assert plane["path"] == {"cost": "rl.voucher_rate", "objective": "rl.satisfaction"}
    (run / "config.json").write_text(json.dumps(fds.get_config().to_dict()))
    plane = write(run).run["plane"]
    bound = FDS.find_bound(fds.get_config().to_dict())
    assert plane["title"] == bound.title and [0.0, bound.best_at(0.0)] in plane["frontier"]
    assert plane["frontier"][-1] == [1.0, bound.best[-1]]


def test_tables(run):
    page = write(run)
    latest, failures = page.run["latest"], page.run["failures"]
    assert latest["head"] == ["step", "satisfaction", "vouchers", "smoothed", "lambda"]
    assert latest["rows"] == [["3", "2.00", "30 %", "40 %", "0.375"], ["5", "4.00", "50 %", "40 %", "0.625"]]
    assert page.run["budgets"] == ["vouchers 30 %"]
    # 27 dialogues were ok and 3 failed.
    assert failures["rows"] == [["user_timeout", "2", "6.7 %", "4"], ["judge", "1", "3.3 %", "5"]]


def test_a_budget_that_is_out_of_reach_is_carried_with_its_step(run):
    assert write(run).run["alarms"] == []
    reason = "the multiplier is at its bound, 5, and the mean is 90%"
    with RunLog(run, COSTS) as log:
        log.write({"step": 6, "phase": "rl", "voucher_rate": 0.9, "alarms": {"voucher": reason}})
    assert write(run).run["alarms"] == [[6, "voucher", reason.replace("90%", "90 %")]]


def test_what_the_scores_of_the_judge_tell_is_said_of_the_latest_steps(run):
    assert write(run).run["principles"] is None
    with RunLog(run, COSTS) as log:
        for step in range(6, 7 + WINDOW):  # the first of them is one too many
            rules = -1.0 if step == 6 else 0.25 if step % 2 else 0.35
            log.write({"step": step, "phase": "rl", "judge_correlation": {"rules": rules, "stage": math.nan}})
    rows = write(run).run["principles"]["rows"]
    assert rows[0] == ["rules", "0.30", "0.28 to 0.32", str(WINDOW)]  # 2.093 * 0.0513 / sqrt(20) to each side
    blind = "not known: all scores of a step were equal, or all outcomes"
    assert rows[1:] == [["stage", blind, "–", "1 or none"]]  # a judge that sees no difference is not passed over


def test_the_picture_of_the_curves_draws_the_records(run):
    figure = plots.draw_curves(read_metrics(run), FDS, [0.3])
    axes = {axes.get_title(loc="left"): axes for axes in figure.axes}
    (line,) = axes["User satisfaction (1 to 5)"].lines
    np.testing.assert_array_equal(line.get_xydata(), [[3, 2.0], [4, math.nan], [5, 4.0]])
    raw, smoothed, budget = axes["Voucher rate"].lines
    np.testing.assert_array_equal(raw.get_ydata(), [0.3, 0.4, 0.5])
    np.testing.assert_array_equal(smoothed.get_ydata(), [0.4, 0.4, 0.4])
    assert list(budget.get_ydata()) == [0.3, 0.3] and budget.get_label() == "budget 30%"
    np.testing.assert_array_equal(axes["Warm-up (SFT) loss"].lines[0].get_ydata(), [3.0, 1.5])
    sample, update = axes["Seconds per step"].collections
    assert (sample.get_label(), update.get_label()) == ("sample", "update")
    assert update.get_datalim(axes["Seconds per step"].transData).ymax == 2.0 + 2.5
    assert [text.get_text() for text in axes["Entropy (nats per token)"].texts] == ["no data"]


def test_the_picture_leaves_out_what_is_no_number(run):
    with RunLog(run, COSTS) as log:
        log.write({"step": 6, "phase": "rl", "satisfaction": {"a": 1}, "voucher_rate": "high"})
    figure = plots.draw_curves(read_metrics(run), FDS, [0.3])
    axes = {axes.get_title(loc="left"): axes for axes in figure.axes}
    (line,) = axes["User satisfaction (1 to 5)"].lines
    np.testing.assert_array_equal(line.get_ydata(), [2.0, math.nan, 4.0, math.nan])
    np.testing.assert_array_equal(axes["Voucher rate"].lines[0].get_ydata(), [0.3, 0.4, 0.5, math.nan])


def test_evaluations_beside_the_run_and_beside_the_frontier(run):
    assert write(run).run["evaluations"] is None
    elsewhere = evaluation("gpt", 0.5, 3.25, **{"user.url": "http://127.0.0.1:1/v1", "user.model": "qwen"})
    for name, found in (
        ("policy", evaluation("policy", 0.25, 3.125)),
        ("a$b_$c", evaluation("a$b_$c", 0.25, 3.0)),
        ("never", evaluation("never", 0.0, 2.5, **{"data.difficulty": "normal"})),
        ("gpt", elsewhere),
        ("down", evaluation("down", None, None)),
    ):
        (run / f"evaluation_{name}.json").write_text(json.dumps(found))
    (run / "evaluation_torn.json").write_text(json.dumps(elsewhere)[:99])
    found = write(run).run["evaluations"]
    who = ["5", "embedded-user"]
    rows = found["table"]["rows"]
    assert ["policy", *who, "hard", "3.12", "–", "25.0", "–", "–", "1"] in rows
    assert ["never", *who, "normal", "2.50", "–", "0.0", "–", "–", "1"] in rows
    assert ["gpt", "5", "qwen", "hard", "3.25", "–", "50.0", "–", "–", "1"] in rows
    assert ["down", *who, "hard", *"–––––", "1"] in rows
    planes = {plane["title"]: plane for plane in found["planes"]}  # who met other users is in none, nor who failed
    assert [title.rpartition(" ")[2] for title in planes] == ["hard", "normal"]
    agents = {one["name"]: one for one in planes["The embedded gym, difficulty hard"]["agents"]}
    assert agents.keys() == {"a$b_$c", "policy"}
    assert agents["policy"] == {"name": "policy", "at": [0.25, 3.125], "spread": [0.01, 0.02]}
    assert planes["The embedded gym, difficulty hard"]["frontier"][0][0] == 0.0
    assert "evaluation_torn.json: expected a JSON object" in found["unread"][0]
    told = "\n".join(found["caveats"])
    assert "gpt, other than a$b_$c: user.model" in told and "policy, " not in told


def test_evaluations_by_other_rules_are_named_and_drawn_apart(run):
    for name, changes in (("a", {}), ("b", {"episode.max_turns": 9}), ("c", {"episode.max_turns": 2}), ("d", {})):
        (run / f"evaluation_{name}.json").write_text(json.dumps(evaluation(name, **changes)))
    found = write(run).run["evaluations"]
    agents = [[one["name"] for one in plane["agents"]] for plane in found["planes"]]
    assert agents == [["a", "d"], ["b"]]  # with two turns there is no frontier
    told = "\n".join(found["caveats"])
    assert "b, other than a: episode.max_turns 9 and 15" in told and "d, " not in told


def test_dialogues_are_those_of_the_present_past_in_their_groups(run):
    log = RunLog(run, COSTS)
    voucher = dialogue(turn(action="voucher", ids=range(3)), turn(0.5, ids=range(4)), outcome=2.0, task=task("b"))
    failed = dialogue(failure="user_timeout", failure_message="too slow", index=1, task=task("b"))
    log.write_transcripts(4, [dialogue(turn(), task=task("a")), voucher, failed])
    log.write_transcripts(6, [voucher])  # left by a run that was restarted from step 5
    page = write(run)
    batches = [(batch["key"], batch["step"], batch["dialogues"]) for batch in page.run["batches"]]
    assert batches == [("4", 4, 3), ("5", 5, 1)] and "chunk-0-6" not in page.parsed.scripts
    first, second = page.groups("4")
    assert (first["id"], second["id"]) == ("a", "b") and len(second["dialogues"]) == 2
    given, lost = second["dialogues"]
    assert given["end"] == ["rated 2/5", "bad"] and given["cost"] == {"voucher": 1.0} and given["tokens"] == 7
    assert given["reward"] == 0.25 and [one["reward"] for one in given["turns"]] == [0.0, 0.5]
    assert given["credit"] is None and first["labels"] == task().labels
    assert lost["end"] == ["failed: user_timeout", "bad"] and lost["outcome"] is None and lost["message"] == "too slow"


def test_tokens_are_in_the_page_where_transcripts_keep_them(run):
    RunLog(run, COSTS).write_transcripts(4, sampled_batch())
    (group,) = write(run).groups("4")
    words, learnt, _ = (one["sampled"] for one in group["dialogues"][0]["turns"])
    texts = ["So", "", "rry.\n", "<|im_end|>"]
    assert words == {"texts": texts, "logprobs": [-0.01, -0.5, -3.0, -5.5], "ratios": None, "advantages": None}
    assert learnt["ratios"] == [0.7, 1.1] and learnt["advantages"] is None
    assert group["dialogues"][1]["turns"][0]["sampled"] is None


def test_the_dialogues_of_an_evaluation_are_a_batch_too(run):
    played = dialogue(turn(), outcome=4.0)
    path = RunLog(run, COSTS).write_transcripts(5, [played])
    rows = [json.loads(path.read_text()) | {"seed": seed} for seed in (1, 2)]
    (run / "evaluation_never.transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write(run)
    title = "Evaluation of never"
    assert page.run["batches"][-1] == {"key": "evaluation_never", "title": title, "step": None, "dialogues": 2}
    assert [group["seed"] for group in page.groups("evaluation_never")] == [1, 2]
    assert "words" in page.run["sources"] and page.run["sources"]["words"]["step"] == [5]


def tear(path, *, size=40):
    """Cuts off the end of a file, as a crash does."""
    path.write_bytes(path.read_bytes()[:-size])
    return path


def test_of_transcripts_that_are_cut_off_all_before_is_shown_and_a_line_says_so(run):
    path = tear(RunLog(run, COSTS).write_transcripts(5, [dialogue(turn(), index=i) for i in range(3)]))
    done = subprocess.run(
        [sys.executable, "-m", "cmpo.report", f"--workdir={run}"], capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"the last line is cut off, and left out: {path}:3: expected a JSON object" in line
    page = RunPage(run / "report.html")
    assert page.run["notice"] == "The last line is cut off, and left out, in step_000005.jsonl."
    (group,) = page.groups("5")
    assert [one["index"] for one in group["dialogues"]] == [0, 1] and page.run["batches"][-1]["dialogues"] == 2
    ((_, played),) = [one for one in list_conversations(run_data.load_run(run)) if one[0].key == "5"]
    assert len(played) == 2


def test_many_files_that_are_cut_off_are_one_line(run):
    for number in range(5):
        rows = RunLog(run, COSTS).write_transcripts(5, [dialogue(turn())]).read_text()
        (run / f"evaluation_{number}.transcripts.jsonl").write_text(rows + rows[:40])
    names = ", ".join(f"evaluation_{number}.transcripts.jsonl" for number in range(3))
    assert write(run).run["notice"] == f"The last line is cut off, and left out, in {names} and 2 more."


def test_dialogues_of_an_older_version_are_left_out_and_a_line_says_so(run):
    path = RunLog(run, COSTS).write_transcripts(5, [dialogue(turn(), index=i) for i in range(3)])
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[1:]:
        del row["task"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write(run)
    said = "2 dialogues without a task, of an older version, are left out in step_000005.jsonl."
    assert page.run["notice"] == said and page.run["batches"][-1]["dialogues"] == 1


def test_transcripts_that_are_damaged_in_the_middle_are_refused_by_file_and_line(run):
    path = RunLog(run, COSTS).write_transcripts(5, [dialogue(turn(), index=i) for i in range(3)])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[1][:-40] + "\n", lines[2]]))
    done = commands.run("cmpo.report", f"--workdir={run}")
    assert done.returncode == 1 and done.stderr.startswith(f"error: {path}:2: expected a JSON object")


def test_every_evaluation_has_a_key_of_its_own_in_links(run):
    names = ["a b", "a-b", "a/../b".replace("/", "\\"), "ü", "ö", "a%2Fb", "<b>"]
    for name in names:
        write_evaluation(run / f"evaluation_{name}.json", [4.0])
    page = write(run)
    keys = [batch["key"] for batch in page.run["batches"] if batch["step"] is None]
    assert len(set(keys)) == len(names) and all(re.fullmatch(r"evaluation_[\w.=+~-]+", key, re.ASCII) for key in keys)
    for row, key in zip(page.run["evaluations"]["table"]["rows"], page.run["evaluations"]["keys"], strict=True):
        (group,) = page.groups(key)
        assert group["dialogues"][0]["turns"][1]["said"] == f"evaluation_{row[0]} says 4."
    assert "evaluation_a-b" in keys  # as it is, where that is possible


DIALOGUES = "transcripts/step_000005.jsonl"


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        (DIALOGUES, '{"task": {}}', r"task\.id: expected this field, found none in {'task': {}}"),
        (DIALOGUES, '{"task": 3}', "task: expected an object, got 3"),
        (DIALOGUES, "{}", "task: expected this field, found none in {}"),
        (DIALOGUES, lambda row: row | {"cost": None}, "cost: expected an object, got None"),
        (DIALOGUES, lambda row: row | {"cost": {"voucher": "x"}}, "cost.voucher: expected a number, got 'x'"),
        (DIALOGUES, lambda row: row | {"index": "0"}, "index: expected a whole number, got '0'"),
        (DIALOGUES, lambda row: row | {"last_words": None}, "last_words: expected a text, got None"),
        (DIALOGUES, lambda row: row | {"turns": 3}, "turns: expected a list, got 3"),
        (DIALOGUES, lambda row: row | {"labels": ["x"]}, "labels: expected an object, got "),
        (
            DIALOGUES,
            lambda row: row | {"turns": [row["turns"][0] | {"cost": None}]},
            "turns.0.cost: expected an object, got None",
        ),
        (DIALOGUES, "[]", r"expected a JSON object, got \[\]"),  # whole, and so not cut off
        ("metrics.jsonl", "7", "expected a JSON object, got 7"),
        ("metrics.jsonl", '{"phase": "rl"}', "step: expected this field, found none in {'phase': 'rl'}"),
        ("metrics.jsonl", '{"step": "6", "phase": "rl"}', "step: expected a whole number, got '6'"),
        ("metrics.jsonl", '{"step": true, "phase": "rl"}', "step: expected a whole number, got True"),
        *(
            ("metrics.jsonl", f'{{"step": 6, "phase": "rl", {field}}}', f"step 6: {message}")
            for field, message in (
                ('"dialogues_ok": "many"', "dialogues_ok: expected a whole number, got 'many'"),
                ('"dialogues_failed": [1]', r"dialogues_failed: expected an object, got \[1\]"),
                ('"dialogues_failed": {"a": "b"}', "dialogues_failed.a: expected a whole number, got 'b'"),
                ('"alarms": "x"', "alarms: expected an object, got 'x'"),
                ('"judge_correlation": {"a": "b"}', "judge_correlation.a: expected a number, got 'b'"),
            )
        ),
    ],
)
def test_a_file_that_holds_something_else_is_named(run, file, line, message):
    RunLog(run, COSTS).write_transcripts(5, [dialogue(turn())])
    rows = (run / file).read_text().splitlines()
    line = json.dumps(line(json.loads(rows[0]))) if callable(line) else line
    (run / file).write_text("\n".join([*rows, line]) + "\n")
    done = commands.run("cmpo.report", f"--workdir={run}")
    assert done.returncode == 1, done.stdout
    assert re.match(f"error: {run / file}:{len(rows) + 1}: {message}", done.stderr), done.stderr


@pytest.mark.parametrize("section", ["algo", "user", "data", "judge", "pid"])
@pytest.mark.parametrize("value", ["x", None])
def test_a_section_of_the_config_that_is_none_is_named(run, section, value):
    (run / "config.json").write_text(json.dumps({section: value}))
    done = commands.run("cmpo.report", f"--workdir={run}")
    assert done.returncode == 1
    expected = f"error: {run / 'config.json'}: {section}: expected an object with the settings of this section, got "
    assert done.stderr == f"{expected}{value!r}\n"


def test_odd_names_of_runs_and_files_are_no_obstacle(run):
    path = RunLog(run, COSTS).write_transcripts(5, [dialogue(turn())])
    for other in ("step_x.jsonl", "step_5.jsonl"):
        path.with_name(other).write_text(path.read_text())
    for name, title in ((5, "5"), ("half \ud800", "half ?"), ("</title><script>", "&lt;/title&gt;&lt;script&gt;")):
        (run / "config.json").write_text(json.dumps({"name": name, "pid": {"target": 0.3}}))
        page = write(run)
        assert page.run["name"] == str(name) and f"<title>{title}</title>" in page.html
        assert [batch["key"] for batch in page.run["batches"]] == ["5"]


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("")
    page = write(tmp_path)
    assert page.run["name"] == tmp_path.name and page.run["latest"] is None and page.run["sections"] == []


@pytest.mark.parametrize("missing, expected", [("metrics.jsonl", "numbers per step"), ("config.json", "configuration")])
def test_no_run_is_one_line_and_status_1(run, missing, expected):
    (run / missing).unlink()
    done = commands.run("cmpo.report", f"--workdir={run}")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and expected in line
    assert line.startswith(f"error: {run / missing}: no such file; expected")


def test_command_saves_page_and_picture(run):
    picture = run / "curves.png"
    done = commands.run("cmpo.report", f"--workdir={run}", f"--png={picture}")
    assert done.returncode == 0 and done.stdout.splitlines() == [str(run / "report.html"), str(picture)]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--png={run}/x.txt", r"--png: expected a file that ends in one of .*png.*, got '.*x\.txt'"),
        ("--png={run}/config.json/x.png", r"\[Errno 17\] cannot write "),
        ("--out={run}/config.json/x.html", r"\[Errno 17\] cannot write "),
        ("--out={run}", r"\[Errno 21\] cannot write .*Is a directory"),
        ("--inspect={run}/logs", "--inspect: expected the package inspect_ai"),
        ("--trackio=shop", "--trackio: expected the package trackio"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_page_is_replaced(run, monkeypatch, option, message):
    for name in ("inspect_ai", "inspect_ai.log", "trackio"):
        monkeypatch.setitem(sys.modules, name, None)
    (run / "report.html").write_text("the old one")
    done = commands.run("cmpo.report", f"--workdir={run}", option.format(run=run))
    assert done.returncode == 1 and re.match(f"error: {message}", done.stderr) and done.stdout == ""
    assert (run / "report.html").read_text() == "the old one"


def test_every_script_is_in_the_page_in_the_order_of_its_needs():
    """The list of scripts is kept by hand: each file once, and none before what it imports."""
    templates = run_page._TEMPLATES.loader
    files = {name.removesuffix(".js") for name in templates.list_templates() if name.endswith(".js")}
    assert sorted(run_page._SCRIPTS) == sorted(files)
    for number, name in enumerate(run_page._SCRIPTS):
        lines = [line for line in run_page._read_template(f"{name}.js").splitlines() if line.startswith("import")]
        needed = [re.fullmatch(r'import \{.*\} from "\./(\w+)\.js";', line)[1] for line in lines]
        assert set(needed) <= set(run_page._SCRIPTS[:number])
