"""The page in a real browser: dialogues, keyboard, colours, widths, and messages that are no markup."""

import contextlib
import re

import pytest
from playwright.sync_api import expect

from rollouts.serving import page_routes
from rollouts.types import Sample
from tests.builders import browsers
from tests.builders.pages import serve_page

pytestmark = browsers.needs_chromium

NASTY = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> \u202efed\u202c cba &amp; \U0001f600"


@pytest.fixture(scope="module")
def browser():
    with browsers.launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def server():
    with serve_page() as (url, _, models):
        yield url, models


@contextlib.contextmanager
def opened(browser, url, *, width=1280, scheme="light", ready="#modes"):
    """Gives the page, and fails if it asked another server, or if a script failed or was refused."""
    options = {"width": width, "scheme": scheme, "is_wrong": lambda message: "Content Security" in message.text}
    with browsers.watched(browser, **options) as (page, asked, wrong):
        page.goto(url)
        if ready:
            page.locator(ready).wait_for()
        yield page
    assert asked and all(address.startswith(f"{url}/") for address in asked) and wrong == []


def say(page, words):
    page.get_by_label("Your message").fill(words)
    page.keyboard.press("Enter")


def wait(page):
    """Waits until all have answered."""
    expect(page.locator("#send")).to_have_attribute("aria-disabled", "false")


def answers(page, name):
    return page.get_by_role("article", name=name)


def test_a_dialogue_from_greeting_to_rating_with_two_side_by_side(browser, server):
    with opened(browser, server[0]) as page:
        assert page.get_by_role("radio", name=re.compile("cooperative")).count() == 24
        assert page.get_by_role("radio", name=re.compile("cooperative.* level [1-5]$")).count() == 24
        page.get_by_role("radio", name=re.compile("taste below expectations")).nth(1).check()
        page.get_by_role("button", name="Begin").click()
        wait(page)
        assert "You are a customer of a food delivery" in page.locator("#told_text").inner_text()
        expect(page.get_by_label("Your message")).to_be_focused()
        say(page, "The soup tasted awful.")
        for name in ("never", "generous"):
            turn = answers(page, name).first
            expect(turn.locator(".said")).to_be_visible()
            expect(turn.locator(".thought p")).to_contain_text("Plan: ")
            expect(turn.locator(".badge").first).to_have_text("chat")
            expect(turn.locator(".badge")).to_have_count(5)  # the action, and the judge's four scores
            expect(turn.locator(".remark")).to_contain_text("Judge: evidence 0")
        assert page.locator(".exchange > .person").all_inner_texts() == ["The soup tasted awful."]
        left, right = (answers(page, name).first.bounding_box() for name in ("never", "generous"))
        assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]
        wait(page)
        page.get_by_role("button", name="End with never: 2").click()
        expect(answers(page, "never").locator(".end")).to_contain_text("rated 2/5")
        expect(answers(page, "never").locator(".end")).to_contain_text("satisfaction 2 of 5, no voucher")
        expect(page.get_by_role("button", name="End with never: 2")).to_be_hidden()
        for words in ("[Sent Picture: a grey soup] What can you do to make this right?", "A voucher would be fine."):
            say(page, words)
            wait(page)
        expect(answers(page, "generous").last.locator(".said")).to_be_visible()
        expect(answers(page, "generous")).to_have_count(3)
        expect(answers(page, "never")).to_have_count(1)  # it has ended
        page.get_by_role("button", name="End with generous: 5").click()
        expect(answers(page, "generous").last.locator(".end")).to_contain_text("rated 5/5")
        expect(page.locator("#over")).to_have_text("All dialogues have ended.")
        expect(page.get_by_label("Your message")).to_be_hidden()
        expect(page.get_by_role("button", name="New conversation")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Begin")).to_be_visible()


def test_a_voucher_is_marked_as_a_cost(browser):
    with serve_page(["always"]) as (url, _, _), opened(browser, url) as page:
        page.get_by_role("button", name="Begin").click()
        wait(page)
        for words in ("It was cold.", "[Sent Picture: it] And now?", "Fine, I take the voucher."):
            say(page, words)
            wait(page)
        given = page.locator(".answer .badge.cost")
        assert given.all_inner_texts() == ["voucher"]
        assert page.locator("#names .badge").all_inner_texts() == ["voucher 1"]
        expect(page.locator("#names")).to_contain_text("voucher: mean 1.00 of 1, budget 0.30")
        colours = [
            given.evaluate(f"(badge) => getComputedStyle(badge).{part}") for part in ("backgroundColor", "color")
        ]
        plain = page.locator(".answer .badge.plain").first.evaluate(
            "(badge) => getComputedStyle(badge).backgroundColor"
        )
        assert colours[0] not in (plain, colours[1])
        page.get_by_role("button", name="New conversation").click()
        page.get_by_role("button", name="Begin").click()
        wait(page)
        say(page, "It was cold.")
        wait(page)
        expect(page.locator("#names")).to_contain_text("voucher: mean 0.50 of 2, budget 0.30")


def test_thoughts_fold(browser, server):
    with opened(browser, server[0]) as page:
        page.get_by_role("button", name="Begin").click()
        wait(page)
        say(page, "It was cold.")
        wait(page)
        thoughts = page.locator(".thought p")
        expect(thoughts).to_have_count(2)
        page.get_by_label("Show thoughts").uncheck()
        for thought in thoughts.all():
            expect(thought).to_be_hidden()
        say(page, "[Sent Picture: it]")
        wait(page)
        expect(thoughts).to_have_count(4)
        assert not any(thought.is_visible() for thought in thoughts.all())
        page.locator(".thought summary").last.click()
        expect(thoughts.last).to_be_visible()


@pytest.mark.parametrize("mode", ["scenario", "yourself"])
def test_messages_are_shown_and_not_run(browser, server, mode):
    with opened(browser, server[0]) as page:
        if mode == "yourself":
            page.get_by_label("Be yourself").check()
        page.get_by_role("button", name="Begin").click()
        wait(page)
        say(page, NASTY)
        wait(page)
        bubble = page.locator(".exchange > .person")
        assert bubble.evaluate("(bubble) => bubble.textContent") == NASTY
        if mode == "yourself":  # the models echo, the second one without a format
            assert answers(page, "plain").locator(".raw").evaluate("(answer) => answer.textContent") == NASTY
            expect(answers(page, "policy").locator(".said")).to_contain_text("<img src=x onerror=")
        assert page.locator("#talk script, #talk img").count() == 0
        assert bubble.evaluate("(bubble) => getComputedStyle(bubble).unicodeBidi") == "isolate"
        page.get_by_label("Your message").evaluate("(field) => { field.value = 'half \\ud800 a pair' }")
        page.get_by_role("button", name="Send").click()
        wait(page)
        expect(page.locator(".exchange > .person").last).to_have_text(re.compile("^half \ufffd a pair$"))


def test_a_turn_that_breaks_out_of_its_place_does_not(browser):
    """What a judge or an agent says is text too: the policy forbids to make markup of it at all."""
    with serve_page(["never"]) as (url, agents, _), opened(browser, url) as page:
        said = f"<think>{NASTY}</think><response>{NASTY}</response><action>chat</action>"
        agents["never"].agent = Quotes(said)
        page.get_by_role("button", name="Begin").click()
        wait(page)
        say(page, "Hello")
        wait(page)
        for part in (".said", ".thought p"):
            assert page.locator(part).evaluate("(part) => part.textContent") == NASTY
        refused = page.evaluate(
            "() => { try { document.body.innerHTML = '<b>x</b>' } catch (error) { return error.name } }"
        )
        assert refused == "TypeError"


class Quotes:
    """An agent that says what it is given."""

    def __init__(self, text):
        self.text = text

    async def open(self, task, seed):
        return Quotes(self.text)

    async def reply(self, messages, seed):
        return Sample(self.text)

    def close(self):
        pass


def test_the_keyboard_is_enough(browser, server):
    with opened(browser, server[0]) as page:
        press = page.keyboard.press

        def focused():
            return page.evaluate("() => document.activeElement.value ?? document.activeElement.textContent")

        order = []
        for _ in range(5):  # modes, two agents, tasks, the button
            press("Tab")
            order.append(focused())
        assert order[:4] == ["scenario", "never", "generous", "0"] and order[4] == ""  # a button has an empty value
        press("Shift+Tab")
        press("ArrowDown")
        assert focused() == "1"
        press("Shift+Tab")
        press("Space")  # without the second agent
        press("Tab")
        press("Enter")  # sends the form
        wait(page)
        assert page.locator("#names h2").all_inner_texts() == ["never"]
        page.keyboard.type("Hello")
        press("Shift+Enter")
        page.keyboard.type("there")
        press("Enter")
        wait(page)
        assert page.locator(".exchange > .person").inner_text() == "Hello\nthere"
        expect(page.get_by_label("Your message")).to_be_focused()
        press("Shift+Tab")  # back to the last way to end
        assert page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "End with never: quit"
        outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"  # where one is can be seen
        press("Shift+Tab")
        press("Space")
        expect(page.locator(".end")).to_contain_text("rated 5/5")
        expect(page.get_by_role("button", name="New conversation")).to_be_focused()


def test_everything_has_a_name(browser, server):
    with opened(browser, server[0]) as page:
        for mode in ("Play a scenario", "Be yourself"):
            page.get_by_label(mode).check()
            check_names(page)
            page.get_by_role("button", name="Begin").click()
            wait(page)
            say(page, "Hello")
            wait(page)
            check_names(page)
            page.get_by_role("button", name="New conversation").click()


def check_names(page):
    """Every control that is seen has a name of its own kind, and headings do not skip a level."""
    tree = page.locator("body").aria_snapshot()
    nameless = [
        line
        for line in tree.splitlines()
        if re.match(r"\s*- (button|textbox|combobox|checkbox|radio|spinbutton)\b(?! \")", line)
    ]
    assert nameless == [], tree
    levels = [int(level) for level in re.findall(r"heading .*\[level=(\d)\]", tree)]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids)) and page.evaluate("() => document.documentElement.lang") == "en"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_and_colours(browser, server, width, scheme):
    with opened(browser, server[0], width=width, scheme=scheme) as page:
        fits(page, width)
        page.get_by_role("button", name="Begin").click()
        wait(page)
        fits(page, width)
        say(page, "W" * 300 + " https://example.org/" + "x" * 200)
        wait(page)
        expect(page.locator(".remark")).to_have_count(2)
        fits(page, width)
        boxes = [answers(page, name).bounding_box() for name in ("never", "generous")]
        side_by_side = boxes[0]["y"] == boxes[1]["y"]
        assert side_by_side == (width == 1280)
        if not side_by_side:
            assert boxes[0]["x"] == boxes[1]["x"] and boxes[0]["y"] + boxes[0]["height"] < boxes[1]["y"]
        seen = page.locator("body").evaluate(SEEN)
        assert (seen["page"] > 0.5) == (scheme == "light")
        assert seen["least"] >= 4.5, seen["least_of"]  # WCAG 2, AA


def fits(page, width):
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    small = page.evaluate(
        "() => [...document.querySelectorAll('button, label:has(input)')].map((one) => [one.textContent, "
        "one.getBoundingClientRect()]).filter(([, box]) => box.width && (box.width < 24 || box.height < 24))"
    )
    assert small == []  # WCAG 2.2: targets of 24 pixels at least


# Luminance of the page, and the least contrast of a text with what is behind it.
SEEN = """(body) => {
  const read = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (element) => {
    const [r, g, b, alpha = 1] = read(getComputedStyle(element).backgroundColor);
    return alpha === 1 ? [r, g, b] : behind(element.parentElement ?? document.body);
  };
  let least = 99, leastOf = "";
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility({ visibilityProperty: true })) continue;
    const pair = [light(read(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (contrast < least) [least, leastOf] = [contrast, `${element.className} ${walker.currentNode.textContent}`];
  }
  return { page: light(behind(body)), least, least_of: leastOf };
}"""


def test_a_free_conversation(browser, server):
    url, models = server
    with opened(browser, url) as page:
        page.get_by_label("Be yourself").check()
        page.get_by_label("As in a scenario").select_option(index=2)
        assert page.get_by_label("System text").input_value().startswith("You are a service agent")
        page.get_by_label("System text").fill("Be short.")
        page.get_by_text("Sampling").click()
        page.get_by_label("Temperature", exact=True).fill("0.5")
        page.get_by_role("button", name="Begin").click()
        wait(page)
        del models.asked[:]
        say(page, "May I have a voucher?")
        wait(page)
        turn = answers(page, "policy")
        expect(turn.locator(".said")).to_have_text("I hear: May I have a voucher?")
        expect(turn.locator(".thought p")).to_have_text("Plan: May I have a voucher?.")
        expect(turn.locator(".badge.cost")).to_have_text("voucher")
        expect(page.locator("#names").get_by_text("voucher 1")).to_be_visible()
        say(page, "refuse")
        wait(page)
        expect(answers(page, "policy").last.locator(".failure")).to_contain_text("'messages': too long <b>for me</b>")
        expect(answers(page, "plain").last.locator(".raw")).to_have_text("refuse")
        say(page, "Good.")
        wait(page)
    asked = [body for body in models.asked if body["model"] == "policy"]
    told, first = {"role": "system", "content": "Be short."}, {"role": "user", "content": "May I have a voucher?"}
    answer = (
        "<think>Plan: May I have a voucher?.</think><response>I hear: May I have a voucher?</response>"
        "<action>voucher</action>"
    )
    assert [body["messages"] for body in asked] == [
        [told, first],
        [told, first, {"role": "assistant", "content": answer}, {"role": "user", "content": "refuse"}],
        [told, first, {"role": "assistant", "content": answer}, {"role": "user", "content": "Good."}],
    ]
    assert all(body["temperature"] == 0.5 and body["stream"] and "seed" not in body for body in asked)


def test_the_view_of_a_customer(browser):
    with (
        serve_page(models=["customer's"], customer_view=True) as (url, _, _),
        opened(browser, url) as page,
    ):
        page.get_by_label("Be yourself").check()
        page.get_by_role("button", name="Begin").click()
        wait(page)
        say(page, "a voucher")
        wait(page)
        expect(page.locator(".said")).to_have_text("a voucher")
        assert page.locator(".answer .badge").all_inner_texts() == ["voucher"]  # and no error of a format
        expect(page.locator("#names .cost")).to_have_text("voucher 1")


def test_an_answer_can_be_stopped(browser, server):
    with opened(browser, server[0]) as page:
        page.get_by_label("Be yourself").check()
        page.get_by_role("button", name="Begin").click()
        wait(page)
        say(page, "wait")
        expect(answers(page, "policy").locator(".said")).to_have_text("I hear: wait")  # as far as it has come
        page.get_by_role("button", name="Stop").click()
        wait(page)
        expect(answers(page, "policy").locator(".remark")).to_contain_text("Stopped.")
        expect(page.get_by_label("Your message")).to_be_focused()


def test_leaving_the_page_frees_the_sessions(browser):
    with serve_page(limits={"absence": 3600.0}) as (url, agents, _), opened(browser, url) as page:
        for leave in (lambda: page.get_by_label("Be yourself").check(), lambda: page.goto("about:blank")):
            page.get_by_role("button", name="Begin").click()
            wait(page)
            assert all(agent.sessions["opened"] == agent.sessions["closed"] + 1 for agent in agents.values())
            leave()
            for _ in range(2000):
                if all(agent.sessions["opened"] == agent.sessions["closed"] for agent in agents.values()):
                    break
                page.wait_for_timeout(10)
            else:
                pytest.fail("the sessions are still open")
            page.goto(url)
            page.locator("#modes").wait_for()


def test_events_come_in_several_answers_each_once(browser, monkeypatch):
    monkeypatch.setattr(page_routes, "STREAM_SECONDS", 0.1)
    with serve_page(seconds=0.3) as (url, _, _), opened(browser, url) as page:
        page.get_by_role("button", name="Begin").click()
        wait(page)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        for words in ("It was cold.", "[Sent Picture: it]"):
            say(page, words)
            wait(page)
        assert page.locator(".exchange > .person").all_inner_texts() == ["It was cold.", "[Sent Picture: it]"]
        expect(page.locator(".turn")).to_have_count(4)
        assert len([address for address in asked if "/events?from=" in address]) > 3


def test_a_dialogue_that_was_let_go_says_so(browser):
    with serve_page(limits={"age": 0.5}) as (url, _, _), opened(browser, url) as page:
        page.get_by_role("button", name="Begin").click()
        expect(page.get_by_role("alert")).to_contain_text("it was let go; begin another")
        expect(page.locator("#over")).to_have_text("All dialogues have ended.")
        expect(page.get_by_label("Your message")).to_be_hidden()


def test_a_key_is_asked_for(browser):
    with serve_page(["never"], api_key="a-key") as (url, _, _), opened(browser, url, ready="dialog") as page:
        expect(page.get_by_label("API key")).to_be_focused()
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("The server refused this key.")).to_be_visible()
        page.keyboard.type("a-key")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Begin").click()
        wait(page)
        say(page, "Hello")
        expect(page.locator(".said")).to_be_visible()
