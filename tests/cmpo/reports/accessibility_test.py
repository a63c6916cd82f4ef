"""Every view of the page, looked at by axe: no error for who sees little, hears the page, or has a keyboard only."""

import importlib.resources
import json
import re

import pytest

from cmpo.reports import run_page
from cmpo.run.log import RunLog
from tests.builders import browsers
from tests.builders.dialogues import COSTS
from tests.builders.evaluations import evaluation, write_evaluation
from tests.builders.run_pages import sampled_batch, write_run

axe = pytest.importorskip("axe_playwright_python", reason="needs axe-playwright-python: pip install -e '.[dev]'")
pytestmark = browsers.needs_chromium

LOOKS = [(1440, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    """The addresses of views, by the page that they are in: of a run, two runs, and two evaluations."""
    folder = tmp_path_factory.mktemp("pages")
    run, other = (write_run(folder / name, name) for name in ("run", "other"))
    for name, rate in (("policy", 0.25), ("never", 0.0)):
        (run / f"evaluation_{name}.json").write_text(json.dumps(evaluation(name, rate)))
    (run / "evaluation_torn.json").write_text("{")
    RunLog(run, COSTS).write_transcripts(4, sampled_batch())
    ours, theirs = (write_evaluation(folder / name / "x.json", [4.0, 2.0]) for name in "ab")
    alone = run_page.write_report(run, scans=["voucher"]).as_uri()
    both = run_page.write_report(run, against=[other]).as_uri()
    evaluations = run_page.write_report(ours, against=[theirs]).as_uri()
    views = ["curves", "steps", "step/4", "step/4/1", "step/4/1/1", "step/5/2/1", "evaluations", "scans", "config"]
    return [
        *(f"{alone}#{view}" for view in views),
        *(f"{both}#{view}" for view in ("curves", "compare", "step/5/1/2")),
        *(f"{evaluations}#{view}" for view in ("compare", "steps", "step/evaluation_x/1/1")),
    ]


def use_fields(page):
    """Uses what a view has of fields: the filters by reward, the pattern, and tokens' colours one after the other."""
    for label in ("reward from", "reward to"):
        if (field := page.get_by_label(label, exact=True)).count():
            field.fill("0.5")
            yield
    if (pattern := page.get_by_label("pattern")).count():
        pattern.fill("sorry")
        page.keyboard.press("Enter")
        yield
    if (choice := page.get_by_label("colour tokens by")).count():
        for kind in ("advantages", "logprobs", "ratios"):
            choice.select_option(kind)
            page.locator(".tokens[role=listbox]").first.focus()
            yield
    yield


@pytest.mark.parametrize("width, scheme", LOOKS)
def test_axe_finds_no_error_in_any_view(browser, addresses, width, scheme):
    script = importlib.resources.files(axe).joinpath("axe.min.js").read_text(encoding="utf-8")
    found = []
    # The page's own policy would not let a foreign script in; browser_test sees to that.
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}, "bypass_csp": True}
    for address in addresses:
        with browser.new_context(**options) as context:
            page = context.new_page()
            page.goto(address)
            page.locator("main h2").first.wait_for(state="attached")
            for _ in use_fields(page):
                page.evaluate(script)
                violations = page.evaluate("async () => (await axe.run(document)).violations")
                where = re.sub(r".*/", "", address)
                found += [(where, one["id"], [node["html"][:200] for node in one["nodes"][:2]]) for one in violations]
    assert found == []
