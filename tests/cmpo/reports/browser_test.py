"""The page of a run in a real browser: from the trend to the turn, by links and keys; texts that are no markup."""

import json
import math

import pytest
from playwright.sync_api import expect

from cmpo.reports import run_page
from cmpo.run.log import RunLog
from tests.builders import browsers
from tests.builders.browsers import opened
from tests.builders.dialogues import COSTS, dialogue, turn
from tests.builders.run_pages import NASTY, WORD, batch, record, sampled_batch, write_run

pytestmark = browsers.needs_chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return run_page.write_report(write_run(tmp_path_factory.mktemp("pages") / "run")).as_uri()


def test_from_the_trend_to_the_turn_and_back(browser, address):
    with opened(browser, address) as page:
        chart = page.get_by_role("slider", name="User satisfaction (1 to 5): the step shown")
        chart.focus()
        for key in ("ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
        expect(chart).to_have_attribute("aria-valuetext", "step 3: satisfaction 2.3")
        kl = page.locator("figure", has=page.get_by_role("heading", name="KL to the reference"))
        expect(kl.locator(".value")).to_have_text("0.03")  # the cursor is shared
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Step 3")).to_be_visible()
        page.get_by_role("link", name="Group 1").click()
        part = "Here they part: the agent answers differently."
        tops = page.locator(".cell.top").all_inner_texts()
        assert tops[0].startswith("Dialogue 2") and "voucher 1" in tops[0] and tops[1].startswith("Dialogue 1")
        turns = page.locator(".beside > *").all_inner_texts()
        assert [text.split("\n")[0] for text in turns[2:7]] == ["Turn 1", "Turn 1", part, "Turn 2", "Turn 2"]
        page.get_by_role("link", name="Dialogue 2").click()
        expect(page.get_by_text("A voucher for step 3.")).to_be_visible()
        page.get_by_role("link", name="Turn 2").click()
        assert page.url.endswith("#step/3/1/2/2")
        expect(page.locator(".turn.shown")).to_contain_text("reward 1 · voucher 1")
        for place in ("#step/3/1/2", "#step/3/1", "#step/3", ""):
            page.go_back()
            expect(page).to_have_url(address + place)


def test_keys_move_between_dialogues_and_steps(browser, address):
    with opened(browser, f"{address}#step/4/1/1") as page:
        page.get_by_role("heading", name="Group 1, dialogue 1", exact=True).wait_for()
        for key, heading in (("j", "Group 1, dialogue 2"), ("j", "Group 2, dialogue 1"), ("k", "Group 1, dialogue 2")):
            page.keyboard.press(key)
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        for key, heading in (("u", "Group 1"), ("u", "Step 4"), ("ArrowRight", "Step 5")):
            page.keyboard.press(key)
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()


def test_dialogues_are_filtered_and_sorted(browser, address):
    with opened(browser, f"{address}#step/5") as page:
        said = page.get_by_role("status")
        expect(said).to_have_text("4 dialogues in 2 groups")
        page.get_by_label("text", exact=True).fill("a VOUCHER for")
        expect(said).to_have_text("1 of 4 dialogues")
        page.get_by_label("text", exact=True).fill("")
        page.get_by_label("cost given").select_option("nothing")
        expect(said).to_have_text("3 of 4 dialogues")
        page.get_by_label("cost given").select_option("any")
        page.get_by_label("outcome from").fill("2")
        expect(said).to_have_text("2 of 4 dialogues")
        page.keyboard.press("j")  # a key in a field is a letter
        page.get_by_label("outcome from").fill("")
        page.get_by_label("reward to", exact=True).fill("0.3")  # of means of 0.25, 0.75 and 0.25
        expect(said).to_have_text("2 of 4 dialogues")
        page.get_by_label("level").select_option("4")
        expect(said).to_have_text("1 of 4 dialogues")
        page.get_by_label("reward to", exact=True).fill("")
        expect(said).to_have_text("2 of 4 dialogues")
        page.get_by_label("level").select_option("any")
        page.get_by_label("end").select_option("failed: user timeout")
        expect(page.locator(".group tbody tr")).to_have_count(1)
        page.get_by_label("end").select_option("any")
        page.get_by_label("order").select_option("Best outcome first")
        assert page.locator(".group").first.locator("td:first-child").all_inner_texts() == ["2 best", "1 worst"]


@pytest.mark.parametrize("width", [390, 1280])
def test_what_others_wrote_is_shown_and_does_nothing(browser, address, width):
    with opened(browser, f"{address}#step/5/2/1", width=width) as page:
        replies = page.locator(".bubble.agent > .text")
        expect(replies).to_have_count(len(NASTY))
        for i in (0, 1, 3):
            assert replies.nth(i).evaluate("(text) => text.textContent") == NASTY[i]
        assert "half" in replies.nth(2).inner_text() and len(replies.nth(4).inner_text()) < 4000
        replies.nth(4).get_by_role("button", name="Show all 100,000 characters").click()
        assert len(replies.nth(4).inner_text()) == len(WORD) + 1  # and a space
        widths = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1]
        page.goto(f"{address}#step/5/2/1/5")
        expect(page.locator(".turn.shown")).to_be_in_viewport()
        for place in ("#step/5/2/2", "#step/5/2", "#step/5", "#steps", "#config"):
            page.goto(f"{address}{place}")
            page.locator("main h2").wait_for()
        expect(page.locator("main img, main script")).to_have_count(0)


def test_zoom_smoothing_and_hidden_curves(browser, address):
    with opened(browser, address) as page:
        card = page.locator("figure", has=page.get_by_role("heading", name="Seconds by phase of a step"))
        expect(card.locator("path.curve")).to_have_count(2)
        card.get_by_role("button", name="sample").click()
        expect(card.locator("path.curve")).to_have_count(1)
        page.get_by_label("Smoothing").fill("0.5")
        expect(card.locator("path.curve")).to_have_count(2)  # each step, and the mean
        plot = card.locator(".plot")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 60)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] - 14, box["y"] + 60, steps=4)
        page.mouse.up()
        expect(page.get_by_label("From step")).to_have_value("4")
        expect(page).to_have_url(address)  # a zoom is no click
        page.get_by_role("button", name="All steps").click()
        expect(page.get_by_label("From step")).to_have_value("")


def test_figures_and_tables_are_saved(browser, address, tmp_path):
    with opened(browser, address) as page:
        card = page.locator("figure", has=page.get_by_role("heading", name="User satisfaction (1 to 5)", exact=True))
        card.locator("summary").click()
        found = {}
        for kind in ("SVG", "PNG", "CSV"):
            with page.expect_download() as waiting:
                card.get_by_role("button", name=kind, exact=True).click()
            waiting.value.save_as(tmp_path / kind)
            found[kind] = (tmp_path / kind).read_bytes()
    assert found["PNG"].startswith(b"\x89PNG") and b"<path" in found["SVG"] and b"class=" not in found["SVG"]
    assert b">User satisfaction (1 to 5)</text>" in found["SVG"] and b">2.5</text>" in found["SVG"]
    assert found["CSV"].decode().splitlines() == ["step,satisfaction", "3,2.3", "4,2.4", "5,2.5"]


def test_a_link_to_what_is_not_there_says_so(browser, address):
    with opened(browser, address) as page:
        for place, words in (
            ("#step/99", "This page has no dialogues of 99."),
            ("#step", "The address names no step"),
            ("#step/3/9", 'There is no group "9": there are 2, counted from 1.'),
            ("#step/3/0", 'There is no group "0"'),
            ("#step/3/abc", 'There is no group "abc"'),
            ("#step/3/1/9", 'There is no dialogue "9": there are 2'),
            ("#step/3/1/1/99", 'There is no turn "99": there are 2'),
            ("#step/3/1/1/1/7", 'There is nothing in a turn, but the address goes on with "7".'),
            ("#nothing", 'There is no view "nothing".'),
            ("#%", "This is no address of the page: #%"),
            ("#%E0", "This is no address of the page: #%E0"),
        ):
            page.goto(address + place)
            expect(page.get_by_role("alert")).to_contain_text(words)
            expect(page.locator("#views a").first).to_be_visible()
    with opened(browser, f"{address}#%") as page:  # as the first address, too
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.locator("#views a").first).to_be_visible()


def test_the_skip_link_moves_the_focus_and_leaves_the_view(browser, address):
    with opened(browser, f"{address}#step/3") as page:
        expect(page.get_by_role("heading", name="Step 3")).to_be_visible()
        page.locator(".skip").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        expect(page).to_have_url(f"{address}#step/3")
        expect(page.get_by_role("heading", name="Step 3")).to_be_visible()


def test_a_filter_is_on_display_wherever_it_applies(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    RunLog(folder, COSTS).write_transcripts(4, [dialogue(turn(), outcome=4.0)])
    url = run_page.write_report(folder).as_uri()
    with opened(browser, f"{url}#step/5") as page:
        page.get_by_label("level").select_option("4")
        page.get_by_label("end").select_option("failed: user timeout")
        expect(page.get_by_role("status")).to_have_text("1 of 4 dialogues")
        page.goto(f"{url}#step/4")  # one dialogue, of level 2, that was rated
        said = page.get_by_role("status")
        expect(said).to_have_text("0 of 1 dialogues")
        expect(page.get_by_label("end")).to_have_value("failed: user_timeout")
        page.get_by_label("end").select_option("any")
        expect(said).to_have_text("0 of 1 dialogues")
        expect(page.get_by_label("level")).to_have_value("4")
        page.get_by_label("level").select_option("any")
        expect(said).to_have_text("1 dialogues in 1 groups")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_long_word_makes_no_view_wide(browser, tmp_path, width):
    folder = write_run(tmp_path / "run")
    path = folder / "transcripts" / "step_000005.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["task"]["id"] = WORD
        row["labels"] = {WORD[:2000]: f"{WORD}{number}", "plain": WORD}
        row["end"] = WORD
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    url = run_page.write_report(folder).as_uri()
    with opened(browser, f"{url}#step/5", width=width) as page:
        for place, heading in (("#step/5", "Step 5"), ("#step/5/1", "Group 1"), ("#step/5/1/1", "Group 1, dialogue 1")):
            page.goto(f"{url}{place}")
            expect(page.get_by_role("heading", level=2)).to_have_text(heading)
            widths = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert widths[0] <= widths[1], place
            widest = page.locator("main *").evaluate_all("(all) => Math.max(...all.map((one) => one.scrollWidth))")
            assert widest < 4000, place


def test_alarms_lead_to_dialogues_where_there_are_any_and_labels_are_read_over_curves(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    with RunLog(folder, COSTS) as log:
        for step in (6, 7):
            log.write(record(step) | {"alarms": {"voucher": "it is high"}})
        log.write_transcripts(6, batch(6))
    with opened(browser, run_page.write_report(folder).as_uri()) as page:
        links = page.get_by_role("region", name="Alarms").locator("tbody a")
        assert links.all_inner_texts() == ["6"]
        label = page.locator("figure svg.chart text.label").first
        expect(label).to_have_text("budget 30 %")
        assert label.evaluate("(text) => getComputedStyle(text).paintOrder.split(' ')[0]") == "stroke"


def test_a_curve_that_ends_early_says_where(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    with RunLog(folder, COSTS) as log:
        log.write(record(6) | {"judge_correlation": {"rules": 0.25, "stage": 0.5}})
        log.write(record(7) | {"judge_correlation": {"rules": 0.75, "stage": math.nan}})
    with opened(browser, run_page.write_report(folder).as_uri()) as page:
        told = page.locator("figure", has=page.get_by_role("heading", name="How well each principle tells the outcome"))
        assert told.locator(".value").all_inner_texts() == ["0.75", "0.5 (step 6)"]


def test_what_was_cut_off_is_said_in_every_view(browser, tmp_path):
    run = write_run(tmp_path / "run")
    path = run / "transcripts" / "step_000005.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    url = run_page.write_report(run).as_uri()
    for place in ("", "#step/5"):
        with opened(browser, url + place) as page:
            said = "The last line is cut off, and left out, in step_000005.jsonl."
            expect(page.locator("#notices .notice")).to_have_text(said)
    with opened(browser, f"{url}#step/5") as page:
        expect(page.get_by_role("status")).to_have_text("3 dialogues in 2 groups")


def test_scanners_lead_to_the_turns_they_found(browser, tmp_path):
    url = run_page.write_report(write_run(tmp_path / "run"), scans=["a voucher for step 4"]).as_uri()
    with opened(browser, f"{url}#scans") as page:
        page.get_by_label("pattern").fill("a voucher FOR step [35]")
        page.keyboard.press("Enter")
        found = page.get_by_role("region", name="a voucher FOR step [35]").locator("tbody tr")
        expect(found).to_have_count(2)
        assert found.all_inner_texts() == ["Step 5\t1\t25 %\t1\t1/2/2", "Step 3\t1\t25 %\t1\t1/2/2"]
        page.get_by_label("pattern").fill("(")
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Invalid regular expression")
        page.get_by_role("region", name="a voucher for step 4").get_by_role("link", name="1/2/2").click()
        expect(page.locator(".turn.shown")).to_contain_text("A voucher for step 4.")


def test_what_the_domain_found_leads_to_the_turn_that_says_it(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    path = folder / "transcripts" / "step_000004.jsonl"
    events = '"events": ["promise"], "response": "Your refund will arrive tomorrow."'
    path.write_text(path.read_text().replace('"response": "A voucher for step 4."', events))
    with opened(browser, f"{run_page.write_report(folder).as_uri()}#scans") as page:
        found = page.get_by_role("region", name="promise that cannot be kept").locator("tbody tr")
        expect(found).to_have_text(["Step 4125 %11/2/2"])
        found.get_by_role("link", name="1/2/2").click()
        shown = page.locator(".turn.shown")
        expect(shown).to_contain_text("Your refund will arrive tomorrow.")
        expect(shown.locator(".badge.bad")).to_have_text("promise that cannot be kept")


def test_tokens_are_coloured_on_demand_and_each_says_its_numbers(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    RunLog(folder, COSTS).write_transcripts(4, sampled_batch())
    url = run_page.write_report(folder).as_uri()
    with opened(browser, f"{url}#step/4/1/1") as page:
        expect(page.get_by_role("listbox")).to_have_count(0)
        choice = page.get_by_label("colour tokens by")
        assert choice.locator("option").all_inner_texts() == [
            "nothing",
            "advantage",
            "log-probability",
            "ratio to the sampler",
        ]
        choice.select_option("log-probability")
        legend = page.get_by_role("list", name="Colours of the log-probability")
        assert legend.locator("li").all_inner_texts() == [
            "below -4",
            "-4 to -2",
            "-2 to -0.7",
            "-0.7 to -0.1",
            "above -0.1",
        ]
        tokens = page.get_by_role("listbox", name="Tokens of turn 1").get_by_role("option")
        levels = tokens.evaluate_all("(all) => all.map((one) => one.className.replace('token', '').trim())")
        assert levels == ["", "low1", "low3", "low4"]
        assert tokens.evaluate_all("(all) => all.map((one) => one.textContent)") == ["So", "⋯", "rry.\n", "<|im_end|>"]
        colours = tokens.evaluate_all("(all) => all.map((one) => getComputedStyle(one).backgroundColor)")
        assert len(set(colours)) == 4
        expect(tokens.nth(2)).to_have_attribute("title", '3: "rry.\\n", log-probability -3')
        expect(tokens.nth(2)).to_have_attribute("aria-label", '3: "rry.\\n", log-probability -3')
        page.get_by_role("listbox", name="Tokens of turn 2").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".token[aria-selected=true]")).to_have_text("!")
        expect(page.get_by_text('2: "!", advantage -0.4, log-probability -1, ratio to the sampler 1.1')).to_be_visible()
        expect(page).to_have_url(f"{url}#step/4/1/1")  # arrows go through tokens, not on to the next dialogue

        choice.select_option("ratio to the sampler")
        expect(page.get_by_role("listbox")).to_have_count(1)  # of the other turns, no ratio is known
        tokens = page.locator(".token")
        assert [one.get_attribute("class") for one in tokens.all()] == ["token low3", "token high2"]
        choice.select_option("advantage")
        assert [one.get_attribute("class") for one in tokens.all()] == ["token low2", "token low2"]  # the turn's

        page.goto(f"{url}#step/4/1/2")
        expect(page.get_by_role("heading", name="Group 1, dialogue 2")).to_be_visible()
        expect(page.get_by_label("colour tokens by")).to_have_count(0)
        page.goto(f"{url}#step/4/1")
        expect(page.get_by_role("heading", name="Group 1")).to_be_visible()
        expect(page.locator(".token")).to_have_count(0)  # where no colour can be chosen, there are words
        page.goto(f"{url}#step/4/1/1")
        expect(page.get_by_role("listbox")).to_have_count(1)  # the choice stays
        page.get_by_label("colour tokens by").select_option("nothing")
        expect(page.get_by_role("listbox")).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1280])
def test_hostile_tokens_are_shown_and_do_nothing(browser, tmp_path, width):
    folder = write_run(tmp_path / "run")
    RunLog(folder, COSTS).write_transcripts(4, sampled_batch())
    with opened(browser, f"{run_page.write_report(folder).as_uri()}#step/4/1/1/3", width=width) as page:
        page.get_by_label("colour tokens by").select_option("log-probability")
        tokens = page.get_by_role("listbox", name="Tokens of turn 3").get_by_role("option")
        texts = tokens.evaluate_all("(all) => all.map((one) => one.textContent)")
        assert texts[:2] == list(NASTY[:2]) and texts[3] == NASTY[3] and texts[4] == "w" * 80 + "…"
        expect(page.locator("main img, main script")).to_have_count(0)
        for number in range(len(NASTY)):
            tokens.nth(number).hover()
        widths = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert widths[0] <= widths[1]
