"""Runs beside each other on one page: what is paired, by hand, and what is not."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from cmpo.reports import run_data, run_page
from cmpo.reports.conversations import make_conversations
from cmpo.reports.dialogues import describe_batch
from cmpo.run.log import RunLog
from cmpo.run.transcripts import to_transcript
from tests.builders import commands
from tests.builders.dialogues import COSTS, FDS, dialogue, task, turn
from tests.builders.evaluations import evaluation, write_evaluation
from tests.builders.run_pages import RunPage


def write_run(folder, outcomes, *, steps=(1,), **settings):
    """For each of two tasks two dialogues a step; a None among the outcomes is a failure."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"pid": {"target": 0.3}, **settings}))
    with RunLog(folder, COSTS) as log:
        for step in steps:
            log.write({"step": step, "phase": "rl", "satisfaction": 3.0})
            log.write_transcripts(
                step,
                [
                    dialogue(*[turn(0.5)] * 2, outcome=outcome or 0.0, index=i % 2, task=task(f"t{i // 2}"))
                    if outcome is not None
                    else dialogue(failure="user_timeout", index=i % 2, task=task(f"t{i // 2}"))
                    for i, outcome in enumerate(outcomes)
                ],
            )
    return folder


def compare(ours, theirs):
    page = RunPage(run_page.write_report(ours, against=[theirs]))
    data = json.loads(page.parsed.scripts["data"])
    return page, data["comparisons"][0]


def test_dialogues_are_paired_by_step_task_and_number(tmp_path):
    ours = write_run(tmp_path / "a", [5.0, 4.0, 3.0, 1.0], algo={"name": "cmpo"})
    theirs = write_run(tmp_path / "b", [4.0, None, 1.0, 2.0], algo={"name": "grpo"})
    page, found = compare(ours, theirs)
    assert [run["name"] for run in page.runs] == found["names"] == ["a", "b"]
    (pairs,) = found["pairs"]
    assert pairs["title"] == "All steps: 3 dialogues"
    rows = {name: cells for name, *cells in pairs["rows"]}
    # Without the second pair, one side of which failed: means of 5, 3, 1 and of 4, 1, 2; the tasks' are 1 and 0.5.
    assert rows["outcome"][:3] == ["3.000", "2.333", "0.667"] and rows["outcome"][3] == "0.500 to 1.000"
    assert rows["turns"] == ["2.000", "2.000", "0.000", "0.000 to 0.000"]
    assert found["settings"] == [["algo.name", '"cmpo"', '"grpo"']]
    assert page.groups("1", run=1)[0]["dialogues"][0]["outcome"] == 4.0


def test_tasks_of_one_name_that_are_not_the_same_are_not_paired(tmp_path, monkeypatch):
    ours = write_run(tmp_path / "a", [5.0, 4.0])
    theirs = write_run(tmp_path / "b", [4.0, 4.0])
    path = theirs / "transcripts" / "step_000001.jsonl"
    path.write_text(path.read_text().replace('"quantity": 1', '"quantity": 2'))
    assert compare(ours, theirs)[1]["pairs"] == []


def write_again(folder, batches, *, steps=(1,)):
    """A step for each batch, of groups: the name of a task, and outcomes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"pid": {"target": 0.3}}))
    with RunLog(folder, COSTS) as log:
        for step, batch in enumerate(batches, start=1):
            log.write({"step": step, "phase": "rl", "satisfaction": 3.0})
            played = [
                dialogue(turn(0.5), outcome=outcome, index=i, task=task(name))
                for name, outcomes in batch
                for i, outcome in enumerate(outcomes)
            ]
            log.write_transcripts(step, played)
    return folder


def test_a_task_that_comes_again_in_a_step_is_paired_in_the_order_of_the_file(tmp_path):
    """Next to itself, as at the end of an epoch, and apart."""
    ours = write_again(tmp_path / "a", [[("t0", [5.0, 4.0]), ("t0", [2.0, 1.0]), ("t1", [3.0]), ("t0", [1.0])]])
    theirs = write_again(tmp_path / "b", [[("t1", [1.0]), ("t0", [4.0, 4.0]), ("t0", [4.0, 4.0])]])
    page, found = compare(ours, theirs)
    groups = page.groups("1")
    assert [(one["id"], one["repeat"], len(one["dialogues"])) for one in groups] == [
        ("t0", 0, 2),
        ("t0", 1, 2),
        ("t1", 0, 1),
        ("t0", 2, 1),
    ]
    assert groups[0]["digest"] == groups[1]["digest"] == groups[3]["digest"] != groups[2]["digest"]
    (pairs,) = found["pairs"]
    assert pairs["title"] == "All steps: 5 dialogues"
    rows = {name: cells for name, *cells in pairs["rows"]}
    # Differences of 1 and 0, of -2 and -3, and of 2; the interval is over two tasks, whose means are -1 and 2.
    assert rows["outcome"] == ["3.000", "3.400", "-0.400", "-1.000 to 2.000"]


@hypothesis.given(
    st.lists(st.tuples(st.sampled_from(["x", "a/x", "x (2)", "b/a/x"]), st.lists(st.sampled_from("ab"), max_size=3)))
)
def test_no_two_sources_have_one_name(sources):
    names, folders = [name for name, _ in sources], [above for _, above in sources]
    found = run_data.tell_apart(names, folders)
    assert len(set(found)) == len(found)
    if len(set(names)) == len(names):
        assert found == names


def test_names_of_sources_by_hand():
    def tell(*sources):
        return run_data.tell_apart([name for name, _ in sources], [above.split("/") for _, above in sources])

    assert tell(("x", "r/a"), ("x", "r/b"), ("y", "r/b")) == ["a/x", "b/x", "y"]
    assert tell(("x", "r/a/e"), ("x", "r/b/e")) == ["a/e/x", "b/e/x"]
    assert tell(("x", "r/a"), ("x", "r/a"), ("x", "r/b")) == ["a/x", "a/x (2)", "b/x"]
    assert tell(("x", "r/a"), ("x", "r/a")) == ["x", "x (2)"]


def test_evaluations_of_one_name_are_told_apart(tmp_path):
    paths = []
    for name in "ab":
        (tmp_path / name).mkdir()
        paths.append(write_evaluation(tmp_path / name / "run" / "evaluation_policy.json", [4.0, 2.0]))
    ours, theirs = paths
    page = RunPage(run_page.write_report(ours, against=[theirs, ours]))
    assert [one["name"] for one in page.runs] == ["a/run/policy", "b/run/policy", "a/run/policy (2)"]
    comparisons = json.loads(page.parsed.scripts["data"])["comparisons"]
    assert comparisons[0]["names"] == ["a/run/policy", "b/run/policy"]
    assert [one["title"] for one in comparisons[0]["evaluations"]] == ["Evaluation of a/run/policy and b/run/policy"]


def test_runs_of_one_name_are_told_apart(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    ours, theirs = (write_run(tmp_path / name / "fds", [3.0]) for name in "ab")
    assert [one["name"] for one in compare(ours, theirs)[0].runs] == ["a/fds", "b/fds"]
    named, other = (write_run(tmp_path / name, [3.0], name="my run") for name in ("first", "second"))
    assert [one["name"] for one in compare(named, other)[0].runs] == ["first/my run", "second/my run"]


@hypothesis.given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, 1, 2]), st.integers(1, 3))))
def test_no_dialogue_is_lost_and_no_two_are_at_one_place(groups):
    rows = [
        {**to_transcript(dialogue(index=i, task=task(name)), COSTS), **({} if seed is None else {"seed": seed})}
        for name, seed, count in groups
        for i in range(count)
    ]
    described = describe_batch(FDS, rows)
    assert [(one["id"], one["seed"], len(one["dialogues"])) for one in described] == groups
    assert len({(one["digest"], one["seed"], one["repeat"]) for one in described}) == len(groups)
    played = make_conversations(described)
    assert len({(one.task, one.number) for one in played}) == len(played) == len(rows)


def test_the_last_steps_have_a_table_of_their_own(tmp_path):
    ours = write_run(tmp_path / "a", [5.0, 4.0, 3.0, 1.0], steps=range(1, 24))
    theirs = write_run(tmp_path / "b", [5.0, 4.0, 3.0, 1.0], steps=range(2, 23))
    titles = [one["title"] for one in compare(ours, theirs)[1]["pairs"]]
    assert titles == ["All steps: 84 dialogues", "The last 20 steps: 80 dialogues"]


def test_evaluations_of_one_name_are_compared_if_they_can_be(tmp_path):
    ours, theirs = (write_run(tmp_path / name, [3.0]) for name in "ab")
    for name, changes in (("policy", {}), ("other", {"episode.max_turns": 9})):
        (ours / f"evaluation_{name}.json").write_text(json.dumps(evaluation(name, 0.5, 3.5)))
        (theirs / f"evaluation_{name}.json").write_text(json.dumps(evaluation(name, **changes)))
    (ours / "evaluation_alone.json").write_text(json.dumps(evaluation("alone")))
    other, policy = compare(ours, theirs)[1]["evaluations"]
    assert other == {"title": "Evaluation of other", "rows": [], "caveats": ["episode.max_turns 15 and 9"]}
    rows = {name: cells for name, *cells in policy["rows"]}
    assert rows["satisfaction, 1 to 5"][:2] == ["3.50", "3.00"] and policy["caveats"] == []


def test_two_evaluations_are_compared_whatever_their_names(tmp_path):
    ours = write_evaluation(tmp_path / "a" / "evaluation_policy.json", [5.0, 3.0])
    theirs = write_evaluation(tmp_path / "b" / "other.json", [4.0, 4.0], **{"engine.slots": 3})
    (ours.parent / "evaluation_alone.json").write_text(json.dumps(evaluation("alone")))
    page, found = compare(ours, theirs)
    assert found["names"] == [run["name"] for run in page.runs] == ["a/policy", "b/other"]
    assert [run["kind"] for run in page.runs] == ["evaluation", "evaluation"] and found["pairs"] == []
    (compared,) = found["evaluations"]
    rows = {name: cells for name, *cells in compared["rows"]}
    assert rows["satisfaction, 1 to 5"] == ["4.00", "4.00", "0.00", "-1.00 to 1.00"] and compared["caveats"] == []
    assert found["settings"] == [["engine.slots", "48", "3"]]
    assert [row[0] for row in page.run["evaluations"]["table"]["rows"]] == ["policy"]  # and not what lies beside it
    assert [batch["key"] for batch in page.run["batches"]] == ["evaluation_policy"]
    assert page.groups("evaluation_other", run=1)[1]["dialogues"][0]["outcome"] == 4.0


def test_evaluations_that_cannot_be_compared_say_why(tmp_path):
    ours = write_evaluation(tmp_path / "a" / "x.json", [5.0])
    theirs = write_evaluation(tmp_path / "b" / "x.json", [4.0], **{"episode.max_turns": 9})
    (compared,) = compare(ours, theirs)[1]["evaluations"]
    assert compared["rows"] == [] and compared["caveats"] == ["episode.max_turns 15 and 9"]


def test_a_run_is_not_set_against_an_evaluation(tmp_path):
    run, alone = write_run(tmp_path / "a", [3.0]), write_evaluation(tmp_path / "b" / "x.json", [4.0])
    done = commands.run("cmpo.report", f"--workdir={run}", f"--against={alone}")
    assert done.returncode == 1 and "--against: expected a run, as --workdir is one, got" in done.stderr
    with pytest.raises(ValueError, match="--against: expected an evaluation, as"):
        run_page.write_report(alone, against=[run])


def test_what_cannot_be_loaded_or_drawn_is_named(tmp_path):
    alone = write_evaluation(tmp_path / "x.json", [4.0, 2.0])
    done = commands.run("cmpo.report", f"--workdir={tmp_path / 'nothere.json'}")
    assert done.returncode == 1 and "nothere.json: no such file or directory; expected that of a run, or" in done.stderr
    done = commands.run("cmpo.report", f"--workdir={alone}", f"--png={tmp_path / 'x.png'}")
    assert done.returncode == 1 and "--png: expected --workdir=DIR of a run" in done.stderr
    assert not alone.with_suffix(".html").exists()


def test_an_evaluation_of_any_name_can_be_linked_to(tmp_path):
    alone = write_evaluation(tmp_path / "evaluation_100%[1] a.json", [4.0, 2.0])
    page = RunPage(run_page.write_report(alone))
    assert [batch["key"] for batch in page.run["batches"]] == ["evaluation_100--1--a~fde59d6d"]


def test_the_page_of_one_evaluation_lies_beside_it(tmp_path):
    alone = write_evaluation(tmp_path / "a" / "x.json", [4.0, 2.0])
    alone.with_suffix(".transcripts.jsonl").unlink()
    done = commands.run("cmpo.report", f"--workdir={alone}")
    assert done.stdout.strip() == str(tmp_path / "a" / "x.html") and done.returncode == 0
    assert RunPage(tmp_path / "a" / "x.html").run["batches"] == []
    torn = tmp_path / "torn.json"
    torn.write_text("{}")
    done = commands.run("cmpo.report", f"--workdir={torn}")
    assert done.returncode == 1 and "expected a file that cmpo.evaluate wrote" in done.stderr


def test_the_command_writes_one_page_of_several_runs(tmp_path):
    folders = [write_run(tmp_path / name, [3.0, 4.0]) for name in "abc"]
    out = tmp_path / "compare.html"
    against = [f"--against={folder}" for folder in folders[1:]]
    done = commands.run("cmpo.report", f"--workdir={folders[0]}", *against, f"--out={out}")
    assert done.stdout.strip() == str(out) and len(RunPage(out).runs) == 3
    assert not (folders[0] / "report.html").exists()


@pytest.mark.parametrize("wrong", ["(", "*a"])
def test_a_scan_that_is_no_pattern_is_refused(tmp_path, wrong):
    folder = write_run(tmp_path / "a", [3.0])
    done = commands.run("cmpo.report", f"--workdir={folder}", f"--scan={wrong}")
    assert done.returncode == 1 and done.stderr.startswith(
        f"error: --scan: expected a regular expression, got {wrong!r}"
    )
