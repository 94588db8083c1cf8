"""Nothing is lost by a reload, a closed tab or a restart of the program."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import ROOT
from tests.browser.newcomer import free_port
from tests.browser.relay import Relay
from tests.browser.steps import MEDIA, PATIENCE_MS, answers, ask, expect_answers, open_video_tab, previews

pytestmark = pytest.mark.browser
CAPTION = "#preview figcaption"


def loaded(page) -> None:
    """The page has found again what it was about: from then on it keeps what changes."""
    page.wait_for_selector("#images-box textarea", state="attached")
    page.wait_for_function("window.haplo && window.haplo.isRestored()")


def kept(page) -> dict:
    """What the browser keeps of this tab."""
    return page.evaluate("window.haplo.kept()")


def reload(page) -> None:
    page.reload()
    loaded(page)


def test_a_reload_keeps_the_clip_the_form_the_conversation_and_what_is_typed(page):
    ask(page, "images", "What colour is the heart?", "heart.png")
    expect_answers(page, 1)
    said = answers(page, "images").last.inner_text()
    page.fill("#images-box textarea", "a draft")
    open_video_tab(page, 60)
    page.click("#video-generate")
    previews(page, 3)
    page.wait_for_function("window.haplo.kept()['video.kept']")
    reload(page)
    # the same tab, the same form, and the clip goes on where it was
    expect(page.get_by_role("tab", name="Text to video")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#video-steps input[type=number]")).to_have_value("60")
    expect(page.locator(CAPTION)).to_contain_text("of 60")
    expect(page.locator("#video-generate")).to_be_disabled()
    reload(page)
    expect(page.locator("#video-result video")).to_be_visible()
    expect(page.locator("#video-generate")).to_be_enabled()
    page.get_by_role("tab", name="Chat with images").click()
    expect(answers(page, "images")).to_have_text([said], use_inner_text=True)
    expect(page.locator("#images-box textarea")).to_have_value("a draft")
    reload(page)
    page.get_by_role("tab", name="Text to video").click()
    expect(page.locator("#video-result video")).to_be_visible()
    page.get_by_role("tab", name="Chat with images").click()
    ask(page, "images", "And the background?")
    expect_answers(page, 2)  # the earlier question is still known


def test_a_new_clip_takes_the_place_of_what_a_reload_found(page):
    open_video_tab(page, 150)
    page.click("#video-generate")
    previews(page, 2)
    page.wait_for_function("window.haplo.kept()['video.kept']")
    reload(page)
    expect(page.locator(CAPTION)).to_contain_text("of 150")
    page.fill("#video-steps input[type=number]", "40")
    page.press("#video-steps input[type=number]", "Tab")
    page.press("#video-prompt textarea", "Shift+Enter")  # Generate is disabled
    expect(page.locator(CAPTION)).not_to_contain_text("of 150")
    # from here on every word is about the new one
    page.evaluate(
        """(caption) => { window.said = new Set();
        setInterval(() => window.said.add(document.querySelector(caption)?.innerText), 20); }""",
        CAPTION,
    )
    expect(page.locator(CAPTION)).to_contain_text("of 40")
    expect(page.locator("#video-stop")).to_be_enabled()
    expect(page.locator("#video-result video")).to_be_visible()
    said = page.evaluate("[...window.said]")
    assert any("of 40" in text for text in said) and not any("of 150" in text for text in said), said


def test_an_answer_goes_on_after_a_reload_and_can_be_stopped(page, served, monkeypatch):
    closed = []

    def slow(*_):
        try:
            for number in range(300):
                yield f"word{number} "
                time.sleep(0.1)
        finally:
            closed.append(True)

    monkeypatch.setattr(served[1].omni, "chat_steps", slow)
    ask(page, "images", "Tell me a long story.")
    expect(answers(page, "images").last).to_contain_text("word3")
    page.wait_for_function("window.haplo.kept()['images.kept']")
    reload(page)
    expect(answers(page, "images").last).to_contain_text("word9")
    page.click("#images-box .stop-button")
    expect(page.locator("#images-status")).to_have_text("Stopped.", use_inner_text=True)
    assert closed, "stopped is said when the model is free"
    words = answers(page, "images").last.inner_text()
    reload(page)
    expect(answers(page, "images").last).to_have_text(words, use_inner_text=True)


def test_a_closed_tab_is_found_in_the_next_one_and_open_ones_stay_apart(page, served):
    open_video_tab(page, 40)
    page.click("#video-generate")
    previews(page, 2)
    page.wait_for_function("window.haplo.kept()['video.kept']")
    other = page.context.new_page()
    other.set_default_timeout(PATIENCE_MS)
    other.goto(served[0])
    loaded(other)
    assert "video.kept" not in kept(other), "its own tab is open"
    other.close()
    page.close(run_before_unload=True)
    third = served_page(page.context, served[0])
    expect(third.locator(CAPTION)).to_contain_text("of 40")
    expect(third.locator("#video-result video")).to_be_visible()


def served_page(context, url):
    made = context.new_page()
    made.set_default_timeout(PATIENCE_MS)
    made.goto(url)
    loaded(made)
    return made


def test_a_duplicated_tab_goes_on_with_a_copy(page, served):
    page.fill("#images-box textarea", "in the first")
    page.wait_for_function("(window.haplo.kept()['images.draft'] || [{}])[0].text === 'in the first'")
    with page.context.expect_page() as opened:
        page.evaluate("window.open(location.href)")  # with a copy of the session, as duplicating does
    twin = opened.value
    twin.set_default_timeout(PATIENCE_MS)
    loaded(twin)
    expect(twin.locator("#images-box textarea")).to_have_value("in the first")
    twin.fill("#images-box textarea", "in the twin")
    twin.wait_for_function("(window.haplo.kept()['images.draft'] || [{}])[0].text === 'in the twin'")
    reload(page)
    expect(page.locator("#images-box textarea")).to_have_value("in the first")
    reload(twin)
    expect(twin.locator("#images-box textarea")).to_have_value("in the twin")


def test_another_browser_finds_nothing(page, browser, served):
    ask(page, "images", "Who are you?")
    expect_answers(page, 1)
    page.wait_for_function("window.haplo.kept()['images.kept']")
    ours = kept(page)
    context = browser.new_context()
    other = served_page(context, served[0])
    assert kept(other).get("images.kept") in (None, [None])
    # also with the ticket in hand
    other.evaluate("(values) => { for (const [k, v] of Object.entries(values)) haplo.save(k, v); }", ours)
    reload(other)
    expect(other.locator("#images-status")).to_contain_text("no longer kept", use_inner_text=True)
    expect(answers(other, "images")).to_have_count(0)
    context.close()


def test_twenty_random_reloads_lose_nothing(page):
    rng = random.Random(20)
    open_video_tab(page, 100)
    page.click("#video-generate")
    previews(page, 2)
    page.wait_for_function("window.haplo.kept()['video.kept']")
    ticket = kept(page)["video.kept"]
    for _ in range(20):
        if rng.random() < 0.5:
            loaded(page)
        page.wait_for_timeout(rng.randrange(0, 500))
        page.reload()
    loaded(page)
    assert kept(page)["video.kept"] == ticket
    expect(page.locator("#video-result video")).to_be_visible()
    expect(page.locator("#video-prompt textarea")).to_have_value(
        "a red circle moving left on a black background"
    )


def test_a_lost_connection_comes_back_by_itself(page, served):
    relay = Relay(served[0])
    page.goto(relay.url)
    loaded(page)
    page.fill("#images-box textarea", "a draft")
    open_video_tab(page, 120)
    page.click("#video-generate")
    previews(page, 2)
    page.wait_for_function("window.haplo.kept()['video.kept']")
    relay.cut()
    page.wait_for_timeout(3000)
    relay.mend()
    page.wait_for_function("window.haplo && window.haplo.isRestored()")
    before = page.locator(CAPTION).inner_text()
    expect(page.locator(CAPTION)).not_to_have_text(before, use_inner_text=True)
    expect(page.locator("#video-result video")).to_be_visible()
    expect(page.locator("#images-box textarea")).to_have_value("a draft")
    relay.cut()


def start(port: int, folder: Path) -> subprocess.Popen:
    """The program, answering."""
    command = [
        sys.executable,
        "app.py",
        "--port",
        str(port),
        "--device",
        "cpu",
        "--state",
        str(folder / "state"),
    ]
    (folder / "tmp").mkdir(exist_ok=True)
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "TMPDIR": str(folder / "tmp")})
    while process.poll() is None:  # the test's own time limit ends one that neither answers nor ends
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return process
        except OSError:
            continue
    raise AssertionError(f"the program ended with {process.returncode}")


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.timeout(600)
def test_a_restart_is_told_and_one_press_makes_it_again(browser, tmp_path):
    port = free_port()
    first = start(port, tmp_path)
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = served_page(context, f"http://127.0.0.1:{port}")
        expect.set_options(timeout=PATIENCE_MS)
        ask(page, "images", "What colour is the heart?", "heart.png")
        expect_answers(page, 1)
        # not sent yet: its file goes with the program, and nothing else may
        page.set_input_files("#images-box input[type=file]", [str(MEDIA / "star.png")])
        expect(
            page.locator("#images-box .thumbnail-item, #images-box .thumbnail-wrapper").first
        ).to_be_visible()
        page.fill("#images-box textarea", "a draft")
        open_video_tab(page, 80)
        page.click("#video-generate")
        previews(page, 2)
        page.wait_for_function("window.haplo.kept()['video.kept']")
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=60) == 0
        assert not list((tmp_path / "tmp").iterdir()), "nothing temporary is left"
        second = start(port, tmp_path)
    finally:
        end(first)
    try:
        # the page comes back by itself
        expect(page.locator(CAPTION)).to_contain_text("The program was restarted")
        expect(page.locator("#video-steps input[type=number]")).to_have_value("80")
        page.get_by_role("tab", name="Chat with images").click()
        expect(answers(page, "images")).to_have_count(1)
        expect(page.locator("#images-box textarea")).to_have_value("a draft")
        page.get_by_role("tab", name="Text to video").click()
        page.click("#video-rerun")
        expect(page.locator(CAPTION)).to_contain_text("of 80")
        expect(page.locator("#video-result video")).to_be_visible()
    finally:
        context.close()
        end(second)
