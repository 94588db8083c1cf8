"""What a newcomer does: ``make run`` in a fresh clone, one question and one clip through the page.

    python -m tests.browser.newcomer FOLDER

Run by ``.ci/run``. Says how many seconds the clone took to the page's answer; any other outcome is an error.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from tests.browser.steps import ARGUMENTS, PATIENCE_MS, answers, ask, chromium, open_video_tab

INSTALLED_WITHIN_S = 1800.0


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, program: subprocess.Popen[bytes]) -> None:
    """Until the page answers.

    Raises:
        RuntimeError: the program ended, or half an hour passed.
    """
    deadline = time.monotonic() + INSTALLED_WITHIN_S
    while time.monotonic() < deadline:
        if program.poll() is not None:
            raise RuntimeError(f"make run ended with {program.returncode} before the page answered")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("the page did not answer in time")


def look(page: Page, url: str) -> None:
    """One question about a picture, and one clip."""
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page.goto(url)
    page.wait_for_selector("#images-box textarea")
    ask(page, "images", "What colour is the heart?", "heart.png")
    expect(answers(page, "images")).to_contain_text("pink")
    open_video_tab(page, 25)
    page.click("#video-generate")
    expect(page.locator("#video-result video")).to_be_visible()
    page.wait_for_function("document.querySelector('#video-result video').readyState >= 2")


def end(program: subprocess.Popen[bytes]) -> None:
    """Ask the program and all it started to end.

    Raises:
        subprocess.TimeoutExpired: they did not; they are gone now.
    """
    os.killpg(program.pid, signal.SIGTERM)
    try:
        program.wait(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        raise


def main(clone: Path) -> None:
    """Start, look, and end what was started."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="haploomni-home-") as home:
        # nothing cached, nothing configured: a home of its own
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("HAPLO_", "XDG_"))
        }
        started = time.monotonic()
        program = subprocess.Popen(
            ["make", "run", f"ARGS=--port {port}"],
            cwd=clone,
            env={**environ, "HOME": home},
            start_new_session=True,
        )
        try:
            wait_for(url, program)
            print(f"from the clone to the page's answer: {time.monotonic() - started:.0f} s", flush=True)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
                look(browser.new_page(), url)
                browser.close()
            print("the newcomer got an answer and a clip", flush=True)
        finally:
            end(program)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
