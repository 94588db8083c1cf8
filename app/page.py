"""The page: a header that says which weights are loaded, and three tabs over one engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from app.chat_tab import ChatTab
from app.engine import Engine
from app.memory import MemoryKeeper
from app.storage import Storage
from app.video_tab import VideoTab

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DESCRIPTION = "One transformer that understands pictures and clips, and makes clips from text."


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


def weights_line(engine: Engine) -> str:
    """Which weights are loaded, where, and what they know."""
    omni = engine.omni
    size = omni.model.num_parameters()  # 4-bit matrices hold two in a byte
    amount = f"{size / 1e9:.1f} billion" if size >= 1e9 else f"{size / 1e6:.1f} million"
    dtype = str(omni.model.dtype).removeprefix("torch.")
    return f"**{omni.profile['name']}** · {amount} parameters · {dtype} on {omni.device.type} · {omni.profile['knows']}"


def build_page(engine: Engine, keeper: MemoryKeeper, storage: Storage) -> gr.Blocks:
    """The whole page over one engine, whose memory ``keeper`` plans."""
    with gr.Blocks(title="HaploOmni", analytics_enabled=False, delete_cache=(3600, 6 * 3600)) as page:
        with gr.Column(elem_id="header"):
            gr.Markdown(f"# HaploOmni\n{DESCRIPTION}")
            gr.Markdown(weights_line(engine), elem_id="weights")
            memory = gr.Markdown(elem_id="memory")
        with gr.Tabs():
            with gr.Tab("Chat with images", id="images"):
                hint = "Upload one or more pictures and ask about them. All earlier pictures stay in the conversation."
                ChatTab(engine, "images", hint, picture_examples(), clip_settings_open=False)
            with gr.Tab("Chat with video", id="videos"):
                hint = "Upload a clip and ask what happens in it. Choose below how many frames and which part to look at."
                ChatTab(engine, "videos", hint, clip_examples(), clip_settings_open=True)
            with gr.Tab("Text to video", id="video"):
                video = VideoTab(engine, keeper, storage, PROMPTS)
        refresh: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        page.load(keeper.line, None, memory, **refresh)
        video.made.then(keeper.line, None, memory, **refresh)
        page.load(video.tell, video.sized, video.told, **refresh)
    return page
