"""The page of a run in a real browser: from the trend to the turn, by links and keys; texts that are no markup."""

import contextlib
import json
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from cmpo.reports import run_page
from cmpo.run.log import RunLog
from tests.builders.dialogues import COSTS, dialogue, task, turn

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium in the PATH: apt-get install chromium")

WORD = "w" * 100_000
NASTY = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>",
    "</script><script>window.hacked = 1</script>",
    "half \ud800 a character",
    "\u202efed\u202c cba \u2066",
    WORD,
)
STEPS = (3, 4, 5)


def record(step, rate=0.5):
    return {
        "step": step,
        "phase": "rl",
        "satisfaction": 2.0 + step / 10,
        "voucher_rate": rate,
        "voucher_rate_smoothed": 0.4,
        "lambda": 0.1 * step,
        "kl": 0.01 * step,
        "dialogues_ok": 4,
        "dialogues_failed": {},
        "seconds": {"sample": 2.0, "update": 1.0},
    }


def batch(step):
    """Two groups: in the first, two dialogues part in their second turn; in the second, all texts are nasty."""
    first = turn(0.5, said="Cold soup.", response="I am sorry.", think="Plan.")
    gives = turn(1.0, said="And?", action="voucher", response=f"A voucher for step {step}.")
    refuses = turn(0.0, said="And?", response="No.", reason="It is rude.")
    worst = task(NASTY[1], record=NASTY[0])
    nasty = [turn(0.25, said=text, response=text, think=text, reason=text) for text in NASTY]
    return [
        dialogue(first, refuses, outcome=1.0, task=task("soup")),
        dialogue(first, gives, outcome=5.0, index=1, task=task("soup")),
        dialogue(*nasty, outcome=3.0, last_words=NASTY[0], task=worst),
        dialogue(
            turn(), failure="user_timeout", failure_message=NASTY[0], index=1, task=task(NASTY[1], record=NASTY[0])
        ),
    ]


def write_run(folder, name="a run", **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"name": name, "pid": {"target": 0.3}}))
    with RunLog(folder, COSTS) as log:
        for step in STEPS:
            log.write(record(step, **changes))
            log.write_transcripts(step, batch(step))
    return folder


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return run_page.write_report(write_run(tmp_path_factory.mktemp("pages") / "run")).as_uri()


@contextlib.contextmanager
def opened(browser, url, *, width=1280, scheme="light"):
    """Gives the page, and fails if it asked anybody for anything, or if a script failed or was refused."""
    asked, wrong = [], []
    with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844}) as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(url)
        yield page
        assert page.evaluate("() => window.hacked") is None
    assert wrong == []
    assert [one for one in asked if not one.startswith(("blob:", "data:"))] == [url.partition("#")[0]]


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
    assert found["CSV"].decode().splitlines() == ["step,satisfaction", "3,2.3", "4,2.4", "5,2.5"]


@pytest.mark.parametrize("place", ["#step/99", "#step/3/9", "#step/3/1/9", "#nothing"])
def test_a_link_to_what_is_not_there_says_so(browser, address, place):
    with opened(browser, address + place) as page:
        expect(page.get_by_role("alert")).to_be_visible()
