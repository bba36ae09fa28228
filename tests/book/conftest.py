"""The book as it is built, served on loopback, and the browser that reads it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.book.browser import SITE, chromium, served


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """The built book's address."""
    with served(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module's tests."""
    with chromium() as running:
        yield running
