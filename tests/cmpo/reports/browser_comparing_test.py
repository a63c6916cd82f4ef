"""Runs and evaluations beside each other, in a real browser."""

import re

from playwright.sync_api import expect

from cmpo.reports import run_page
from tests.builders import browsers
from tests.builders.browsers import opened
from tests.builders.evaluations import write_evaluation
from tests.builders.run_pages import write_run

pytestmark = browsers.needs_chromium


def test_two_runs_are_beside_each_other(browser, tmp_path):
    ours, theirs = write_run(tmp_path / "a", "ours"), write_run(tmp_path / "b", "theirs", rate=0.2)
    path = theirs / "transcripts" / "step_000004.jsonl"
    path.write_text(path.read_text().replace("A voucher for step 4.", "Have a voucher."))
    url = run_page.write_report(ours, against=[theirs]).as_uri()
    with opened(browser, url) as page:
        card = page.locator("figure", has=page.get_by_role("heading", name="User satisfaction (1 to 5)", exact=True))
        expect(card.get_by_role("button", name=re.compile(r"^theirs \d"))).to_have_count(1)
        expect(card.locator("path.curve")).to_have_count(2)
        page.get_by_role("link", name="Compare").click()
        expect(page.get_by_role("heading", name="ours minus theirs")).to_be_visible()
        expect(page.get_by_role("region", name="All steps")).to_contain_text("outcome")
        page.goto(f"{url}#step/4/1/2")
        expect(page.locator(".cell.top")).to_have_count(2)
        expect(page.get_by_text("Have a voucher.")).to_be_visible()
        expect(page.locator(".parting")).to_have_text("Here they part: the agent answers differently.")
        page.get_by_label("beside").select_option("nothing")
        expect(page.get_by_text("Have a voucher.")).to_have_count(0)


def test_two_evaluations_are_beside_each_other(browser, tmp_path):
    ours = write_evaluation(tmp_path / "a" / "evaluation_ours.json", [5.0, 3.0, 2.0])
    theirs = write_evaluation(tmp_path / "b" / "evaluation_theirs.json", [4.0, 3.0, 5.0])
    with opened(browser, run_page.write_report(ours, against=[theirs]).as_uri()) as page:
        expect(page.get_by_role("heading", name="a/ours minus b/theirs")).to_be_visible()
        expect(page.locator("#views a")).to_have_text(["Dialogues", "Compare", "Evaluations", "Scanners", "Config"])
        expect(page.get_by_role("region", name="Evaluation of a/ours and b/theirs")).to_contain_text("satisfaction")
        pairs = page.get_by_role("region", name="The same scenario and seed").locator("tbody tr")
        assert [row.split("\t")[:5] for row in pairs.all_inner_texts()] == [
            ["t2", "1000", "2", "5", "-3"],
            ["t0", "1000", "5", "4", "1"],
            ["t1", "1000", "3", "3", "0"],
        ]
        pairs.get_by_role("link", name="t2").click()
        expect(page.locator(".cell.top")).to_have_count(2)
        expect(page.get_by_text("evaluation_ours says 2.")).to_be_visible()
        expect(page.get_by_text("evaluation_theirs says 5.")).to_be_visible()
        expect(page.locator(".parting")).to_have_text("Here they part: the agent answers differently.")


def test_links_of_evaluations_of_one_name_lead_to_their_own_dialogues(browser, tmp_path):
    paths = []
    for name, outcome in (("a", 5.0), ("b", 1.0)):
        (tmp_path / name).mkdir()
        paths.append(write_evaluation(tmp_path / name / "run" / "evaluation_p q.json", [outcome]))
    with opened(browser, run_page.write_report(paths[0], against=paths[1:]).as_uri()) as page:
        expect(page.get_by_role("heading", name="a/run/p q minus b/run/p q")).to_be_visible()
        page.get_by_role("region", name="The same scenario and seed").get_by_role("link", name="t0").click()
        expect(page.get_by_text("evaluation_p q says 5.")).to_be_visible()
        expect(page.get_by_text("evaluation_p q says 1.")).to_be_visible()
        page.get_by_role("link", name="Evaluations").click()
        page.get_by_role("region", name="Evaluations").get_by_role("link", name="p q").click()
        expect(page.get_by_role("heading", name="Evaluation of p q")).to_be_visible()


def test_a_task_that_comes_again_is_beside_its_own_pair(browser, tmp_path):
    names = ["t0", "t1", "t0"]
    ours = write_evaluation(tmp_path / "a" / "evaluation_ours.json", [5.0, 3.0, 2.0], tasks=names)
    theirs = write_evaluation(tmp_path / "b" / "evaluation_theirs.json", [4.0, 3.0, 5.0], tasks=names)
    with opened(browser, run_page.write_report(ours, against=[theirs]).as_uri()) as page:
        pairs = page.get_by_role("region", name="The same scenario and seed").locator("tbody tr")
        assert [row.split("\t")[:5] for row in pairs.all_inner_texts()] == [
            ["t0 (2)", "1000", "2", "5", "-3"],
            ["t0", "1000", "5", "4", "1"],
            ["t1", "1000", "3", "3", "0"],
        ]
        pairs.get_by_role("link", name="t0 (2)").click()
        expect(page.get_by_text("evaluation_ours says 2.")).to_be_visible()
        expect(page.get_by_text("evaluation_theirs says 5.")).to_be_visible()


def test_an_evaluation_is_beside_another_of_the_same_run(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    rows = (folder / "transcripts" / "step_000004.jsonl").read_text()
    (folder / "evaluation_policy.transcripts.jsonl").write_text(rows)
    (folder / "evaluation_never.transcripts.jsonl").write_text(rows.replace("A voucher for step 4.", "Never."))
    url = run_page.write_report(folder).as_uri()
    with opened(browser, f"{url}#step/evaluation_policy/1/2") as page:
        page.get_by_label("beside").select_option("Evaluation of never")
        expect(page.locator(".cell .bubble.agent")).to_have_count(4)
        assert "Never." in page.locator(".cell").nth(5).inner_text()
