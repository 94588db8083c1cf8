"""A real browser on the real page with the bundled model."""

from __future__ import annotations

import os
import shutil
import time
import urllib.request
from dataclasses import replace

import pytest
from playwright.sync_api import expect, sync_playwright

from core.weights import bundled_checkpoint
from quantization import hardware

MEDIA = bundled_checkpoint().parents[1] / "media"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 90_000
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    path = os.environ.get("HAPLO_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
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
    yield made
    context.close()


def ask(page, name: str, question: str, *files: str) -> None:
    if files:
        page.set_input_files(f"#{name}-box input[type=file]", [str(MEDIA / f) for f in files])
        expect(page.locator(f"#{name}-box .thumbnail-item, #{name}-box .thumbnail-wrapper").first).to_be_visible()
    page.fill(f"#{name}-box textarea", question)
    page.press(f"#{name}-box textarea", "Enter")


def answers(page, name: str):
    return page.locator(f"#{name}-chatbot [data-testid=bot]")


def test_a_picture_and_an_answer_that_grows(page):
    # every text the answer has had, as the page showed it
    page.evaluate(
        """() => { window.seen = new Set(); const look = () => { const bots = document.querySelectorAll(
        '#images-chatbot [data-testid=bot]'); if (bots.length) window.seen.add(bots[bots.length - 1].innerText.trim()); };
        new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true}); }"""
    )
    ask(page, "images", "Describe the picture.", "star.png")
    expect(answers(page, "images")).to_contain_text(".")
    expect(page.locator("#images-status")).to_have_text("", use_inner_text=True)
    texts = sorted((t for t in page.evaluate("[...window.seen]") if t), key=len)
    assert len(texts) >= 2 and all(texts[-1].startswith(text) for text in texts), texts
    ask(page, "images", "And the background?")
    expect(answers(page, "images")).to_have_count(2)
    expect(page.locator("#images-status")).to_have_text("", use_inner_text=True)
    page.click("#images-undo")
    expect(answers(page, "images")).to_have_count(1)
    expect(page.locator("#images-box textarea")).to_have_value("And the background?")
    page.click("#images-clear")
    expect(answers(page, "images")).to_have_count(0)


def test_a_clip_and_an_answer(page):
    page.get_by_role("tab", name="Chat with video").click()
    ask(page, "videos", "How does it move?", "circle_left.mp4")
    expect(answers(page, "videos")).to_contain_text("left")
    expect(page.locator("#videos-chatbot button[aria-label=Share]")).to_be_hidden()


def test_a_bad_picture_keeps_the_words(page, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.set_input_files("#images-box input[type=file]", str(tmp_path / "broken.png"))
    expect(page.locator("#images-box .thumbnail-item, #images-box .thumbnail-wrapper").first).to_be_visible()
    page.fill("#images-box textarea", "What is this picture?")
    page.press("#images-box textarea", "Enter")
    expect(page.get_by_test_id("toast-body")).to_contain_text("not a readable image")
    expect(page.locator("#images-box textarea")).to_have_value("What is this picture?")
    expect(answers(page, "images")).to_have_count(0)


def previews(page, at_least: int) -> set[str]:
    """Wait for so many different preview pictures."""
    seen: set[str] = set()
    for _ in range(2000):
        image = page.locator("#preview img")
        if image.count():
            seen.add(image.first.get_attribute("src") or "")
        if len(seen) >= at_least:
            break
        page.wait_for_timeout(40)
    return seen


def open_video_tab(page, steps: int) -> None:
    page.get_by_role("tab", name="Text to video").click()
    page.fill("#video-prompt textarea", "a red circle moving left on a black background")
    page.fill("#video-steps input[type=number]", str(steps))
    page.press("#video-steps input[type=number]", "Tab")


def test_a_clip_comes_out_of_the_noise(page):
    open_video_tab(page, 30)
    page.click("#video-generate")
    assert len(previews(page, 3)) >= 3
    video = page.locator("#video-result video")
    expect(video).to_be_visible()
    page.wait_for_function("document.querySelector('#video-result video').readyState >= 2")
    width = page.evaluate("document.querySelector('#video-result video').videoWidth")
    assert width == 128
    source = video.get_attribute("src") or page.evaluate("document.querySelector('#video-result video').currentSrc")
    data = urllib.request.urlopen(source, timeout=20).read()
    assert data[4:8] == b"ftyp" and len(data) > 1000
    expect(page.locator("#video-recipe")).to_contain_text("Seed")


def test_stop_in_the_middle_and_start_again(page, served):
    open_video_tab(page, 200)
    page.click("#video-generate")
    assert len(previews(page, 2)) >= 2
    page.click("#video-stop")
    expect(page.locator("#preview")).to_contain_text("Stopped")
    expect(page.locator("#video-result video")).to_have_count(0)
    for _ in range(400):
        if not served[1].busy:
            break
        page.wait_for_timeout(25)
    assert not served[1].busy, "the engine is free"
    open_video_tab(page, 3)
    page.click("#video-generate")
    expect(page.locator("#video-result video")).to_be_visible()


def test_a_phone_shows_everything_in_one_column(browser, served):
    context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(served[0])
    page.wait_for_selector("#images-box textarea")
    for tab in ("Chat with images", "Chat with video", "Text to video"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    top = {name: page.locator(f"#video-{name}").bounding_box()["y"] for name in ("ask", "outcome", "settings")}
    assert top["ask"] < top["outcome"] < top["settings"], "the clip stands right under the prompt"
    context.close()


def test_nothing_is_asked_of_other_hosts(browser, served):
    context = browser.new_context()
    page = context.new_page()
    hosts = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if request.url.startswith("http") else None)
    page.goto(served[0])
    page.wait_for_selector("#images-box textarea")
    page.wait_for_timeout(500)
    assert hosts == {served[0].split("/")[2]}
    context.close()


def test_a_long_answer_can_be_stopped(page, served, bundled, monkeypatch):
    def endless(messages, **_):
        for _ in range(600):
            time.sleep(0.05)
            yield "word "

    with monkeypatch.context() as patch:
        patch.setattr(bundled, "chat", endless)
        ask(page, "images", "Talk without end.")
        expect(answers(page, "images")).to_contain_text("word word word")
        page.click("#images-box button.stop-button")
        expect(page.locator("#images-status")).to_have_text("Stopped.", use_inner_text=True)
        for _ in range(400):
            if not served[1].busy:
                break
            page.wait_for_timeout(25)
        assert not served[1].busy, "the engine is free"
        expect(answers(page, "images")).to_contain_text("word word word")
    ask(page, "images", "Who are you?")
    expect(answers(page, "images")).to_have_count(2)
    expect(answers(page, "images").last).not_to_contain_text("word")


def test_a_clip_too_large_for_the_memory_is_red_and_one_press_makes_it_fit(page, served, monkeypatch):
    real = hardware.detect

    def short(device, ours=0):
        free = 60 * 2**20 + ours
        return replace(real(device), free_bytes=free, host_free_bytes=free)

    page.get_by_role("tab", name="Text to video").click()
    expect(page.locator("#memory")).to_contain_text("weights")
    expect(page.locator("#video-expected .fits")).to_contain_text("working memory")
    expect(page.locator("#video-fix")).to_be_hidden()
    monkeypatch.setattr(hardware, "detect", short)
    for name, value in (("height", 256), ("width", 256), ("frames", 49)):
        page.fill(f"#video-{name} input[type=number]", str(value))
        page.press(f"#video-{name} input[type=number]", "Tab")
    expect(page.locator("#video-expected .too-large")).to_contain_text("would fit")
    page.fill("#video-prompt textarea", "a red circle")
    page.click("#video-generate")
    expect(page.locator("[data-testid=toast-body]")).to_contain_text("would fit")
    page.click("#video-fix")
    expect(page.locator("#video-expected .fits")).to_contain_text("working memory")
    expect(page.locator("#video-fix")).to_be_hidden()
    assert int(page.input_value("#video-frames input[type=number]")) < 49
    monkeypatch.undo()
