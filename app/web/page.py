"""The page: a header that says which weights are loaded, and three tabs over one engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gradio as gr
import httpx

from app.engine.memory import MemoryUsage
from app.errors import user_message
from app.services.chat import ChatService
from app.services.estimates import Estimates, LoadedModel
from app.services.video import VideoService
from app.web.browser_state import OPEN, RESTORED, SCRIPT, introduce, remember_choice, saved_values
from app.web.chat_tab import ChatTab
from app.web.endpoints import Endpoints
from app.web.forms import PRIVATE
from app.web.theme import CSS, HEAD, theme
from app.web.video_tab import VideoTab
from core.errors import StoppedError
from quantization.planner import format_bytes

logger = logging.getLogger(__name__)
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
VISITORS = 256  # events at once: each open answer or clip is one
DESCRIPTION = "One transformer that understands pictures and clips, and makes clips from text."
NOT_READ = (
    "What was sent cannot be read: upload each file here first, "
    "and send the values that /gradio_api/info describes."
)
IMAGES_HINT = "Upload one or more pictures and ask about them. All earlier pictures stay in the conversation."
VIDEOS_HINT = (
    "Upload a clip and ask what happens in it. Choose below how many frames and which part to look at."
)


def picture_examples() -> list[list[dict]]:
    """Questions about the example pictures."""
    media = EXAMPLES / "media"
    rows = [
        ("What colour is the heart?", ["heart.png"]),
        ("How many shapes are there?", ["three.png"]),
        ("Describe the picture.", ["behind.png"]),
        ("What is right of the square?", ["beside.png"]),
        ("Where is the dog?", ["ring.png"]),
        ("Do you see a yellow star?", ["star.png"]),
        ("Who are you?", []),
    ]
    return [[{"text": text, "files": [str(media / name) for name in files]}] for text, files in rows]


def clip_examples() -> list[list[dict]]:
    """Questions about the example clips."""
    media = EXAMPLES / "media"
    rows = [
        ("How does it move?", ["circle_left.mp4"]),
        ("What happens?", ["heart_entering.mp4"]),
        ("Describe the video.", ["triangle_up.mp4"]),
        ("How many shapes are there?", ["two.mp4"]),
        ("What does the square do?", ["square_growing.mp4"]),
    ]
    return [[{"text": text, "files": [str(media / name) for name in files]}] for text, files in rows]


PROMPTS = [
    "a red circle moving left on a black background",
    "a yellow star growing on a navy background",
    "a blue square moving up on a gray background",
    "a white ring moving right on a brown background",
    "a green triangle that stays still on a black background",
    "a pink heart entering from the left on a navy background",
    "a purple star above a white circle on a black background",
]


def weights_line(model: LoadedModel) -> str:
    """Which weights are loaded, where, and what they know, in Markdown."""
    count = model.num_parameters
    amount = f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    return f"**{model.name}** · {amount} parameters · {model.dtype} on {model.device} · {model.domain}"


def memory_line(usage: MemoryUsage) -> str:
    """Weights, cache and free memory, in Markdown."""
    return (
        f"**Memory** · weights {format_bytes(usage.weights_bytes)} ({usage.held}) · "
        f"cache {format_bytes(usage.cache_bytes)} for 1000 tokens of talk · "
        f"{format_bytes(usage.free_bytes)} free of {format_bytes(usage.total_bytes)} on {usage.device}"
    )


class Page(gr.Blocks):
    """Gives everybody a sentence, also where the framework refuses what was sent."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **named: Any) -> list[Any]:
        """Values left out at the end are null, which is the usual for every value that has one.

        Raises:
            gr.Error: what was sent cannot be read; one sentence.
        """
        missing = len(block_fn.inputs) - len(inputs)
        try:
            return await super().preprocess_data(block_fn, [*inputs, *[None] * missing], *rest, **named)
        except gr.Error:
            raise
        except Exception as error:
            logger.info("not read: %s", error)
            raise gr.Error(NOT_READ, print_exception=False) from None


def build_page(chat: ChatService, video: VideoService, estimates: Estimates) -> Page:
    """The whole page over the services of one engine."""

    def memory_now() -> str:
        try:
            return memory_line(estimates.memory_usage())
        except StoppedError as error:
            return user_message(error)

    # shown from where they lie: copies in the web framework's folder would go when that is cleaned
    gr.set_static_paths([EXAMPLES / "media", chat.library.folder, chat.library.uploads])
    with Page(title="HaploOmni", analytics_enabled=False, delete_cache=(3600, 6 * 3600)) as page:
        with gr.Column(elem_id="header"):
            gr.Markdown(f"# HaploOmni\n{DESCRIPTION}")
            gr.Markdown(weights_line(estimates.model()), elem_id="weights")
            memory = gr.Markdown(elem_id="memory")
        with gr.Tabs() as tabs:
            with gr.Tab("Chat with images", id="images") as images_tab:
                images = ChatTab(chat, "images", IMAGES_HINT, picture_examples(), clip_settings_open=False)
            with gr.Tab("Chat with video", id="videos") as videos_tab:
                videos = ChatTab(chat, "videos", VIDEOS_HINT, clip_examples(), clip_settings_open=True)
            with gr.Tab("Text to video", id="video") as video_tab:
                making = VideoTab(video, estimates, PROMPTS)
        Endpoints(chat, video).offer()
        for tab in (images_tab, videos_tab, video_tab):
            remember_choice("tab", tab)
        loaded = find_again(page, tabs, images, videos, making)
        refresh: dict[str, Any] = {"queue": False, **PRIVATE}
        page.load(memory_now, None, memory, **refresh)
        making.made.then(memory_now, None, memory, **refresh)
        loaded.then(making.update_estimate, making.size_inputs, making.estimate_outputs, **refresh)
    return page


def find_again(page: Page, tabs: gr.Tabs, *parts: ChatTab | VideoTab) -> gr.events.Dependency:
    """At a load: what the browser kept of the tab, and what is still being made for it.

    Also after a reload of the page's own, as the web framework does once a lost connection is back.
    """
    saved = gr.Textbox(visible=False)

    def restore(text: Any) -> list[Any]:
        values = saved_values(text)
        introduce(values)
        chosen = values.get("tab")
        known = [tab.id for tab in tabs.children if isinstance(tab, gr.Tab)]
        selected = gr.Tabs(selected=chosen) if chosen in known else gr.skip()
        return [selected, *(value for part in parts for value in part.restore(values))]

    outputs = [tabs, *(component for part in parts for component in part.restored)]
    loaded = page.load(restore, saved, outputs, js=OPEN, queue=False, **PRIVATE)
    # from here on the browser keeps what changes: before, it would keep the page's own beginnings
    loaded.then(None, js=RESTORED, queue=False)
    for part in parts:
        part.wire_after(loaded)
    return loaded


def open_page(
    page: Page, server_name: str, port: int, share: bool, folder: Path, middleware: list[Any]
) -> None:
    """Serve a page; returns once it answers.

    Args:
        server_name: the address to listen on, IPv6 in brackets.
        folder: of results, which may be shown.
        middleware: what stands before the page.

    Raises:
        OSError, ValueError: it cannot be opened there, or does not answer.
    """
    # the engine has the one line; a visitor who waits in it takes no thread, and holds up no other here
    page.queue(max_size=VISITORS, api_open=False, default_concurrency_limit=VISITORS)
    try:
        page.launch(
            server_name=server_name,
            server_port=port,
            share=share,
            theme=theme(),
            css=CSS,
            head=HEAD + SCRIPT,
            ssr_mode=False,
            pwa=False,
            show_error=False,
            max_file_size="200mb",
            max_threads=VISITORS,
            allowed_paths=[str(folder)],
            enable_monitoring=False,
            run_history=False,
            footer_links=["api", "settings"],
            app_kwargs={"middleware": middleware},
            prevent_thread_lock=True,
            quiet=True,
        )
    except httpx.HTTPError as error:  # its own question to the page that it opened
        raise OSError(str(error)) from error


def close_page(page: Page) -> None:
    """Serve it no more; who still listens has been told."""
    if page.server is not None:
        page.server.force_exit = True  # else it waits for every open tab
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it calls that an error
    page.close(verbose=False)
