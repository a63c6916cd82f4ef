"""A real browser, and pages in it that are watched: what they ask for, and what goes wrong."""

import contextlib
import shutil

import pytest
from playwright.sync_api import sync_playwright

_CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(_CHROMIUM is None, reason="needs chromium in the PATH: apt-get install chromium")


@contextlib.contextmanager
def launched():
    """Gives a browser."""
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])


@contextlib.contextmanager
def watched(browser, *, width, scheme, is_wrong):
    """Gives an empty page, the addresses that it asks for, and errors of scripts and messages that are wrong.

    Fails at the end if a text of the page ran as a script.
    """
    asked, wrong = [], []
    with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 844}) as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if is_wrong(message) else None)
        yield page, asked, wrong
        assert page.evaluate("() => window.hacked") is None


@contextlib.contextmanager
def opened(browser, url, *, width=1280, scheme="light"):
    """Gives the page, and fails if it asked anybody for anything, or if a script failed or was refused."""
    options = {"width": width, "scheme": scheme, "is_wrong": lambda message: message.type == "error"}
    with watched(browser, **options) as (page, asked, wrong):
        page.goto(url)
        url = url.partition("#")[0]
        yield page
    assert [text for text in wrong if "ERR_CONNECTION_REFUSED" not in text] == []  # of a server that was stopped
    asked = [one for one in asked if not one.startswith(("blob:", "data:"))]
    assert asked == [url] if url.startswith("file:") else all(one.startswith(url) for one in asked)
