"""A browser for the tests of a module."""

import pytest

from tests.builders import browsers


@pytest.fixture(scope="module")
def browser():
    with browsers.launched() as browser:
        yield browser
