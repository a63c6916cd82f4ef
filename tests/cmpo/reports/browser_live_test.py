"""A page that is served while its run goes on, in a real browser."""

import asyncio
import contextlib
import socket
import threading

import uvicorn
from playwright.sync_api import expect

from cmpo.reports import watching
from cmpo.run.log import RunLog
from rollouts.serving.guard import Guard
from tests.builders import browsers
from tests.builders.browsers import opened
from tests.builders.dialogues import COSTS
from tests.builders.run_pages import batch, record, write_run

pytestmark = browsers.needs_chromium


@contextlib.contextmanager
def served(folder):
    """Serves the page of a run on loopback; gives its address, and what stops the server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = Guard(watching.make_app(watching.Watch([folder])))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()

        def stop():
            server.should_exit = True
            thread.join()

        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/", stop
        finally:
            stop()


def test_a_live_page_follows_the_run_and_outlives_its_server(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    with served(folder) as (url, stop), opened(browser, url) as page:
        expect(page.locator("#live")).to_have_text("live, step 5")
        page.get_by_label("Smoothing").fill("0.5")
        page.get_by_label("Smoothing").blur()
        with RunLog(folder, COSTS) as log:
            log.write(record(6))
            log.write_transcripts(6, batch(6))
        expect(page.locator("#live")).to_have_text("live, step 6")
        expect(page.get_by_label("to", exact=True)).to_have_attribute("max", "6")
        expect(page.get_by_label("Smoothing")).to_have_value("0.5")
        page.goto(f"{url}#step/6/1/2")
        expect(page.get_by_text("A voucher for step 6.")).to_be_visible()
        stop()
        expect(page.locator("#live")).to_have_text("the server does not answer")
        expect(page.get_by_text("A voucher for step 6.")).to_be_visible()


def test_a_live_page_says_what_happens_to_its_server_and_its_run_while_a_field_has_the_focus(browser, tmp_path):
    folder = write_run(tmp_path / "run")
    with served(folder) as (url, _), opened(browser, f"{url}#scans") as page:
        live = page.locator("#live")
        page.route("**/data", lambda route: route.abort("connectionrefused"))
        expect(live).to_have_text("the server does not answer", timeout=10_000)
        page.unroute("**/data")
        expect(live).to_have_text("live, step 5", timeout=10_000)
        page.route("**/data", lambda route: route.abort("connectionrefused"))
        expect(live).to_have_text("the server does not answer", timeout=10_000)
        page.unroute("**/data")  # now it has the state, and the server answers that nothing is new
        expect(live).to_have_text("live, step 5", timeout=10_000)

        page.get_by_label("pattern").fill("a voucher for step")
        with RunLog(folder, COSTS) as log:
            log.write(record(6))
            log.write_transcripts(6, batch(6))
        expect(live).to_have_text("live, step 6", timeout=10_000)
        page.keyboard.press("Enter")  # the view is the old one, since its field has the focus
        found = page.get_by_role("region", name="a voucher for step", exact=True).locator("tbody tr")
        expect(found).to_have_count(4)

        folder.rename(tmp_path / "elsewhere")
        expect(page.locator("#notices")).to_contain_text("no such file", timeout=10_000)
        expect(page.get_by_label("pattern")).to_be_focused()
