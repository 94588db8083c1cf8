"""A real browser on the real page with the bundled model."""

from __future__ import annotations

import shutil
import time
import urllib.parse
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
from gradio.utils import get_upload_folder
from playwright.sync_api import expect

from app.engine.engine import STOPPED
from core.errors import MediaError
from quantization import hardware
from tests.browser.steps import (
    MEDIA,
    PATIENCE_MS,
    answers,
    ask,
    expect_answers,
    open_video_tab,
    paste,
    previews,
)

pytestmark = pytest.mark.browser


def test_a_picture_and_an_answer_that_grows(page):
    # every text the answer has had, as the page showed it
    page.evaluate(
        """() => { window.seen = new Set();
        const look = () => { const bots = document.querySelectorAll('#images-chatbot [data-testid=bot]');
        if (bots.length) window.seen.add(bots[bots.length - 1].innerText.trim()); };
        const all = {subtree: true, childList: true, characterData: true};
        new MutationObserver(look).observe(document.body, all); }"""
    )
    ask(page, "images", "Describe the picture.", "star.png")
    expect(answers(page, "images")).to_contain_text(".")
    expect(page.locator("#images-status")).to_have_text("", use_inner_text=True)
    texts = sorted((t for t in page.evaluate("[...window.seen]") if t), key=len)
    assert len(texts) >= 2 and all(texts[-1].startswith(text) for text in texts), texts
    ask(page, "images", "And the background?")
    expect_answers(page, 2)
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


@pytest.mark.parametrize("name", ["photo", "photo.jpg_large", "photo.png ", "photo.dat", "photo.mp4"])
def test_a_picture_is_one_whatever_its_name(page, tmp_path, name):
    shutil.copy(MEDIA / "heart.png", tmp_path / name)
    page.set_input_files("#images-box input[type=file]", str(tmp_path / name))
    expect(page.locator("#images-box .thumbnail-item").first).to_be_visible()
    ask(page, "images", "What colour is it?")
    expect(answers(page, "images")).to_contain_text("pink")


def test_what_is_no_picture_is_refused_with_the_words_kept(page, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    page.set_input_files("#images-box input[type=file]", str(tmp_path / "notes.txt"))
    expect(page.locator("#images-box .thumbnail-item").first).to_be_visible()
    ask(page, "images", "What is this?")
    expect(page.get_by_test_id("toast-body")).to_contain_text("neither a picture nor a clip")
    expect(page.locator("#images-box textarea")).to_have_value("What is this?")


def test_a_long_text_stands_in_the_box_and_is_not_lost(page):
    box = "#images-box textarea"
    text = "word " * 1200
    paste(page, box, text)
    expect(page.locator(box)).to_have_value(text)
    expect(page.locator("#images-box .thumbnail-item")).to_have_count(0)
    page.press(box, "Enter")
    expect(page.get_by_test_id("toast-body")).to_contain_text("at most 4000 are read")
    expect(page.locator(box)).to_have_value(text)
    page.get_by_role("tab", name="Text to video").click()
    paste(page, "#video-prompt textarea", text)
    expect(page.locator("#video-prompt textarea")).to_have_value(text)
    expect(page.locator("#video-expected .too-large")).to_contain_text("at most 2000 are read")


def test_a_conversation_outlives_the_upload_cache(page, served, tmp_path, monkeypatch):
    shutil.copy(MEDIA / "star.png", tmp_path / "component_server_diagram.png")
    page.set_input_files("#images-box input[type=file]", str(tmp_path / "component_server_diagram.png"))
    expect(page.locator("#images-box .thumbnail-item, #images-box .thumbnail-wrapper").first).to_be_visible()
    ask(page, "images", "Describe the picture.")
    expect_answers(page, 1)
    picture = page.locator("#images-chatbot [data-testid=user] img").first
    expect(picture).to_be_visible()
    cache = Path(get_upload_folder())
    copies = list(cache.glob("*/component_server_diagram.png"))
    assert copies, "the upload went through the cache"
    for copy in copies:
        copy.unlink()  # as another program that shares the cache does at its end
    address = picture.get_attribute("src")
    assert page.request.get(urllib.parse.urljoin(served[0], address)).status == 200
    first = answers(page, "images").last.inner_text()
    chat_steps = served[1].omni.chat_steps

    def marked(messages, sampling):
        yield from chat_steps(messages, sampling)
        yield " (again)"

    with monkeypatch.context() as patch:
        # the second answer is told from the first, which stands until it comes
        patch.setattr(served[1].omni, "chat_steps", marked)
        page.click("#images-again")
        expect(answers(page, "images").last).to_have_text(f"{first} (again)", use_inner_text=True)
        expect(page.locator("#images-status")).to_have_text("", use_inner_text=True)
    ask(page, "images", "And the background?")
    expect_answers(page, 2)
    page.click("#images-undo")
    expect(answers(page, "images")).to_have_count(1)
    expect(page.locator("#images-box textarea")).to_have_value("And the background?")
    page.fill("#images-box textarea", "")
    page.click("#images-undo")
    expect(answers(page, "images")).to_have_count(0)  # the answer to come reads like the one that goes
    expect(page.locator("#images-box textarea")).to_have_value("Describe the picture.")
    page.press("#images-box textarea", "Enter")
    expect(answers(page, "images")).to_have_count(1)
    expect(answers(page, "images").last).to_have_text(first, use_inner_text=True)
    assert not list(cache.glob("*/component_server_diagram.png")), "nothing is shown from the cache"


def test_an_example_is_not_a_copy_that_can_be_cleaned_away(page):
    page.get_by_role("button", name="What colour is the heart?").first.click()
    expect(page.locator("#images-box textarea")).to_have_value("What colour is the heart?")
    shown = page.locator("#images-box .thumbnail-item img, #images-box .thumbnail-wrapper img").first
    assert "examples/media/heart.png" in shown.get_attribute("src")
    page.press("#images-box textarea", "Enter")
    expect(answers(page, "images")).to_contain_text(".")


def test_clearing_and_a_failure_keep_what_is_typed(page, served, monkeypatch):
    ask(page, "images", "Who are you?")
    expect_answers(page, 1)
    page.fill("#images-box textarea", "a draft")
    page.click("#images-clear")
    expect(answers(page, "images")).to_have_count(0)
    expect(page.locator("#images-box textarea")).to_have_value("a draft")

    def failing(*_):
        time.sleep(2)
        raise MediaError("The picture is upside down.")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(served[1].omni, "chat_steps", failing)
        page.fill("#images-box textarea", "a question")
        page.press("#images-box textarea", "Enter")
        expect(page.locator("#images-box textarea")).to_have_value("")
        page.fill("#images-box textarea", "typed meanwhile")
        expect(page.get_by_test_id("toast-body")).to_contain_text("upside down")
        expect(page.locator("#images-box textarea")).to_have_value("a question\ntyped meanwhile")
    page.fill("#images-box textarea", "Who are you?")
    page.press("#images-box textarea", "Enter")
    expect(answers(page, "images")).to_have_count(1)


def test_whatever_is_typed_the_line_says_what_generate_would(page):
    page.get_by_role("tab", name="Text to video").click()
    line = page.locator("#video-expected")
    expect(line.locator(".fits")).to_contain_text("working memory")
    for name, value, said in (("frames", "7", "nearest is 9"), ("width", "33", "nearest is 32")):
        field = f"#video-{name} input[type=number]"
        usual = page.input_value(field)
        page.fill(field, value)
        expect(line.locator(".too-large")).to_contain_text(said)
        page.fill("#video-prompt textarea", "a red circle")
        page.click("#video-generate")
        expect(page.get_by_test_id("toast-body").last).to_contain_text(said)
        page.fill(field, usual)
        expect(line.locator(".fits")).to_contain_text("working memory")


def test_a_stopped_engine_is_told(page, served, monkeypatch):
    monkeypatch.setattr(type(served[1]), "trouble", STOPPED)
    page.reload()
    expect(page.locator("#memory")).to_contain_text(STOPPED)
    ask(page, "images", "Who are you?")
    expect(page.get_by_test_id("toast-body")).to_contain_text(STOPPED)
    expect(page.locator("#images-box textarea")).to_have_value("Who are you?")
    monkeypatch.undo()
    page.press("#images-box textarea", "Enter")
    expect(answers(page, "images")).to_have_count(1)


def test_a_clip_comes_out_of_the_noise(page):
    open_video_tab(page, 30)
    page.click("#video-generate")
    assert len(previews(page, 3)) >= 3
    video = page.locator("#video-result video")
    expect(video).to_be_visible()
    page.wait_for_function("document.querySelector('#video-result video').readyState >= 2")
    width = page.evaluate("document.querySelector('#video-result video').videoWidth")
    assert width == 128
    source = video.get_attribute("src") or page.evaluate(
        "document.querySelector('#video-result video').currentSrc"
    )
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


def test_a_chat_is_answered_while_another_visitors_clip_runs(page, browser, served):
    open_video_tab(page, 200)
    page.click("#video-generate")
    assert len(previews(page, 2)) >= 2
    context = browser.new_context()
    other = context.new_page()
    other.set_default_timeout(PATIENCE_MS)
    other.goto(served[0])
    other.wait_for_selector("#images-box textarea")
    ask(other, "images", "What colour is it?", "heart.png")
    expect(answers(other, "images")).to_contain_text("pink")
    expect_answers(other, 1)
    expect(page.locator("#video-stop")).to_be_enabled()
    assert served[1].busy, "the clip is still being made"
    context.close()
    assert len(previews(page, 2)) >= 2
    page.click("#video-stop")
    expect(page.locator("#preview")).to_contain_text("Stopped")


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
    top = {
        name: page.locator(f"#video-{name}").bounding_box()["y"] for name in ("ask", "outcome", "settings")
    }
    assert top["ask"] < top["outcome"] < top["settings"], "the clip stands right under the prompt"
    context.close()


def test_nothing_is_asked_of_other_hosts(browser, served):
    context = browser.new_context()
    page = context.new_page()
    hosts = set()
    page.on(
        "request",
        lambda request: hosts.add(request.url.split("/")[2]) if request.url.startswith("http") else None,
    )
    page.goto(served[0])
    page.wait_for_selector("#images-box textarea")
    page.wait_for_timeout(500)
    assert hosts == {served[0].split("/")[2]}
    context.close()


def test_a_long_answer_can_be_stopped(page, served, monkeypatch):
    def endless(*_):
        for _ in range(600):
            time.sleep(0.05)
            yield "word "

    with monkeypatch.context() as patch:
        patch.setattr(served[1].omni, "chat_steps", endless)
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
        free = 30 * 2**20 + ours
        return replace(real(device), free_bytes=free, host_free_bytes=free)

    page.get_by_role("tab", name="Text to video").click()
    expect(page.locator("#memory")).to_contain_text("weights")
    expect(page.locator("#video-expected .fits")).to_contain_text("working memory")
    expect(page.locator("#video-fix")).to_be_hidden()
    monkeypatch.setattr(hardware, "detect", short)
    for name, value in (("height", 128), ("width", 128), ("frames", 49)):  # within the context
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
