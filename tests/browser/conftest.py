"""A browser, and a page in it as a newcomer has it."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.steps import ARGUMENTS, PATIENCE_MS, chromium


@pytest.fixture(scope="module")  # no longer: while it is open, no other test can run an event loop
def browser():
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
        yield made
        made.close()


@pytest.fixture
def page(browser, served):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    made = context.new_page()
    made.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    made.goto(served[0])
    made.wait_for_selector("#images-box textarea")
    made.wait_for_function("window.haplo && window.haplo.isRestored()")  # sooner than a person types
    yield made
    context.close()
