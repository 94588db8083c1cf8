"""What a person does in the browser, one function a step."""

from __future__ import annotations

import os
import shutil

from playwright.sync_api import expect

from core.weights import bundled_checkpoint

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


def chromium() -> str:
    """Where the browser is."""
    return os.environ.get("HAPLO_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"


def ask(page, name: str, question: str, *files: str) -> None:
    if files:
        page.set_input_files(f"#{name}-box input[type=file]", [str(MEDIA / f) for f in files])
        expect(
            page.locator(f"#{name}-box .thumbnail-item, #{name}-box .thumbnail-wrapper").first
        ).to_be_visible()
    page.fill(f"#{name}-box textarea", question)
    page.press(f"#{name}-box textarea", "Enter")


def answers(page, name: str):
    return page.locator(f"#{name}-chatbot [data-testid=bot]")


def expect_answers(page, count: int) -> None:
    """So many answers, the last one whole."""
    expect(answers(page, "images")).to_have_count(count)
    expect(page.locator("#images-status")).to_have_text("", use_inner_text=True)


def paste(page, selector: str, text: str) -> None:
    """Paste as a person does, through the element's own handler."""
    page.focus(selector)
    page.evaluate(
        """([selector, text]) => { const data = new DataTransfer(); data.setData('text/plain', text);
        const event = new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true});
        if (document.querySelector(selector).dispatchEvent(event)) {
        document.execCommand('insertText', false, text); } }""",
        [selector, text],
    )


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
