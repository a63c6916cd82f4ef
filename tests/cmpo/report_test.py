"""The page of a run: what it shows, what it escapes, and what it says where there is no run."""

import html.parser
import json
import math
import re

import numpy as np
import pytest

from cmpo.reports import plots, run_page
from cmpo.run.alarms import WINDOW
from cmpo.run.log import RunLog, read_metrics
from tests.builders import commands
from tests.builders.dialogues import COSTS, FDS, dialogue, turn
from tests.builders.evaluations import evaluation


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
                }
            )
        log.write_transcripts(5, [dialogue(turn(0.75, response="<script>alert(1)</script>"), outcome=4.0)])
    return tmp_path


class Tags(html.parser.HTMLParser):
    """Collects tags, attributes and table rows."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.rows, self.open = set(), [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        assert tag in self.open, tag
        while self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_everything_others_wrote_is_escaped(run):
    hostile = "<script>alert(1)</script>"
    named = turn(said=hostile, think=hostile, response=hostile)
    malformed = turn(action="", text=hostile)
    batch = [
        dialogue(named, malformed, last_words=hostile),
        dialogue(failure=hostile, failure_message=hostile),
    ]
    log = RunLog(run, COSTS)
    path = log.write_transcripts(5, batch)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["turns"][0] |= {"reason": hostile, "scores": {hostile: 1.0}}
    rows[0]["end"] = hostile
    for row in rows:
        row["task"] |= {"id": hostile, "demand": hostile}
        row["task"]["order"] |= {"complaint": hostile, "tag": hostile}
        row["task"]["order"]["items"][0]["name"] = row["task"]["order"]["record"]["text"] = hostile
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = run_page.write_report(run).read_text()
    assert "script" not in Tags(page).tags
    # First: user, think, response, text, last words, reason, score, end; second: failure and its message; both: 6 more.
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 8 + 2 + 2 * 6
    assert "<title>tiny &lt;run&gt;</title>" in page


def test_page_needs_nothing_else(run):
    page = run_page.write_report(run).read_text()
    tags = Tags(page)
    assert not tags.tags & {"link", "script", "img", "iframe"}
    assert all(value.startswith("#") for name, value in tags.attributes if name in ("src", "href", "xlink:href"))
    assert "@import" not in page and "prefers-color-scheme: dark" in page
    assert "currentColor" in page and plots.INK in page  # the style sheet's; none is left in the picture
    assert plots.INK not in page[page.index("<svg") : page.index("</svg>")]


def test_tables(run):
    rows = Tags(run_page.write_report(run).read_text()).rows
    assert ["step", "satisfaction", "vouchers", "smoothed", "lambda"] in rows
    assert ["3", "2.00", "30%", "40%", "0.375"] in rows and ["5", "4.00", "50%", "40%", "0.625"] in rows
    # 27 dialogues were ok and 3 failed.
    assert ["user_timeout", "2", "6.7%", "4"] in rows and ["judge", "1", "3.3%", "5"] in rows


def test_a_budget_that_is_out_of_reach_is_said(run):
    assert "out of reach" not in run_page.write_report(run).read_text()
    reason = "the multiplier is at its bound, 5, and the mean is 90%"
    with RunLog(run, COSTS) as log:
        log.write({"step": 6, "phase": "rl", "voucher_rate": 0.9, "alarms": {"voucher": reason}})
    assert f"The budget of voucher may be out of reach: {reason}." in run_page.write_report(run).read_text()


def test_what_the_scores_of_the_judge_tell_is_said_of_the_latest_steps(run):
    assert "What the judge" not in run_page.write_report(run).read_text()
    with RunLog(run, COSTS) as log:
        for step in range(6, 7 + WINDOW):  # the first of them is one too many
            rules = -1.0 if step == 6 else 0.25 if step % 2 else 0.35
            log.write({"step": step, "phase": "rl", "judge_correlation": {"rules": rules, "stage": math.nan}})
    rows = Tags(run_page.write_report(run).read_text()).rows
    assert ["rules", "0.30", "0.28 to 0.32", str(WINDOW)] in rows  # 2.093 * 0.0513 / sqrt(20) to each side


def test_the_effective_price_has_a_column_where_it_is_known(run):
    with RunLog(run, COSTS) as log:
        log.write({"step": 6, "phase": "rl", "satisfaction": 3.0, "lambda": 0.5, "effective_price": 1.25})
    rows = Tags(run_page.write_report(run).read_text()).rows
    assert ["step", "satisfaction", "vouchers", "smoothed", "lambda", "effective price"] in rows
    assert ["6", "3.00", "0.500", "1.250"] in rows  # empty cells are left out


def test_curves_draw_the_records(run):
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


def test_evaluations_beside_the_run_and_beside_the_frontier(run):
    assert "Evaluations" not in run_page.write_report(run).read_text()
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
    page = run_page.write_report(run).read_text()
    rows = Tags(page).rows
    who = ["5", "embedded-user"]
    assert ["policy", *who, "hard", "3.12", "–", "25.0", "–", "–", "1"] in rows
    assert ["never", *who, "normal", "2.50", "–", "0.0", "–", "–", "1"] in rows
    assert ["gpt", "5", "qwen", "hard", "3.25", "–", "50.0", "–", "–", "1"] in rows
    assert ["down", *who, "hard", *"–––––", "1"] in rows
    assert page.count("<svg") == 3  # the curves, and two frontiers: who met other users is in none, nor who failed
    assert page.count("difficulty hard<") == page.count("difficulty normal<") == 1
    pictures = page[page.index("<svg") : page.rindex("</svg>")]
    frontiers = page[page.index("<figure class=half>") : page.rindex("</svg>")]
    assert not any(f">{name}<" in frontiers for name in ("gpt", "down")) and ">policy<" in frontiers
    assert "#000000" not in pictures and pictures.count("<text") == len(re.findall("<text[^>]*fill:", pictures))
    assert "evaluation_torn.json: expected a JSON object" in page
    assert "gpt, other than a$b_$c: user.model" in page and ">policy, " not in page


def test_evaluations_by_other_rules_are_named_and_drawn_apart(run):
    for name, changes in (("a", {}), ("b", {"episode.max_turns": 9}), ("c", {"episode.max_turns": 2}), ("d", {})):
        (run / f"evaluation_{name}.json").write_text(json.dumps(evaluation(name, **changes)))
    page = run_page.write_report(run).read_text()
    _, *pictures = page[: page.rindex("</svg>")].split("<figure class=half>")
    labels = [[name for name in "abcd" if f">{name}<" in picture] for picture in pictures]
    assert labels == [["a", "d"], ["b"]]  # with two turns there is no frontier
    assert "b, other than a: episode.max_turns 9 and 15" in page and ">d, " not in page


def test_dialogues_are_a_mix_of_the_present_past(run):
    log = RunLog(run, COSTS)
    plain, voucher = dialogue(turn(), outcome=4.0), dialogue(turn(action="voucher"), outcome=2.0)
    broken = dialogue(turn(action=""), end="malformed")
    log.write_transcripts(4, [plain])
    log.write_transcripts(5, [plain] * 8 + [voucher, broken])
    log.write_transcripts(6, [broken])  # left by a run that was restarted from step 5
    page = run_page.write_report(run).read_text()
    assert "Dialogues of step 5" in page
    assert page.count("<article>") == 6
    assert page.count(">rated 4/5<") == 4 and page.count(">rated 2/5<") == page.count(">malformed 0/5<") == 1


def test_what_is_said_keeps_its_white_space_and_no_half_character_stops_the_page(run):
    said = "  two\n\nlines \ud800"
    RunLog(run, COSTS).write_transcripts(5, [dialogue(turn(response=said, think=said), last_words=said)])
    page = run_page.write_report(run).read_text()
    shown = said.replace("\ud800", "?")
    assert f'<div class="bubble agent"><p class=think>{shown}</p><p>{shown}</p></div>' in page
    assert f'<p class="bubble user">{shown}</p>' in page


def test_a_run_that_has_just_begun(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("")
    page = run_page.write_report(tmp_path).read_text()
    assert f"<h1>{tmp_path.name}</h1>" in page and "No reinforcement learning step yet." in page


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
