"""The chat about pictures and clips: one component, used by two tabs with settings of their own.

The conversation lives in the visitor's own server-side state, never in what the browser sends back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData

from app.engine import Engine
from app.errors import sentence
from app.jobs import Ended, Progress, Started, State, Waiting
from app.words import under_way
from core.errors import HaploOmniError, MediaError, PromptError
from core.media import probe_video, read_image
from core.media.images import FORMATS

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".3gp", ".ts")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
UPDATE_S = 0.06
MAX_FILES = 8
MAX_TEXT = 4000

Turn = dict[str, Any]


def kind_of(path: str) -> str:
    """``"image"`` or ``"video"`` by the file's name.

    Raises:
        MediaError: neither.
    """
    suffix = Path(path).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix in IMAGE_SUFFIXES:
        return "image"
    raise MediaError(
        f"'{Path(path).name}' is neither a picture nor a clip; "
        f"pictures: {', '.join(FORMATS)}; clips: MP4, MOV, WebM, MKV, AVI, GIF."
    )


def user_turn(message: dict[str, Any], frames: int, start_s: float, end_s: float | None) -> Turn:
    """A checked user message as one turn of the model's conversation; every file is looked into.

    Raises:
        PromptError: no text, or too much of it.
        MediaError: a file that cannot be read.
    """
    text, files = (message.get("text") or "").strip(), message.get("files") or []
    if not text:
        raise PromptError("Please type a question" + (" about what you uploaded." if files else "."))
    if len(text) > MAX_TEXT:
        raise PromptError(f"The message has {len(text)} characters; at most {MAX_TEXT} are read.")
    if len(files) > MAX_FILES:
        raise PromptError(f"{len(files)} files came with one message; at most {MAX_FILES} are read.")
    parts: list[dict[str, Any]] = []
    for path in files:
        if kind_of(path) == "image":
            read_image(path)
            parts.append({"type": "image", "path": path})
            continue
        clip = probe_video(path)
        if end_s is not None and end_s <= start_s:
            raise MediaError(f"The part of the clip ends at {end_s:g} s, before it begins at {start_s:g} s.")
        if start_s > clip.duration_s:
            raise MediaError(f"The part begins at {start_s:g} s but '{Path(path).name}' is {clip.duration_s:.1f} s long.")
        parts.append({"type": "video", "path": path, "num_frames": frames, "start_s": start_s, "end_s": end_s})
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def shown(turns: list[Turn]) -> list[dict[str, Any]]:
    """The conversation as gr.Chatbot wants it."""
    messages = []
    for turn in turns:
        if isinstance(turn["content"], str):
            messages.append({"role": turn["role"], "content": turn["content"]})
            continue
        content = [{"path": p["path"]} if p["type"] != "text" else p["text"] for p in turn["content"]]
        messages.append({"role": turn["role"], "content": content})
    return messages


def message_of(turn: Turn) -> dict[str, Any]:
    """A user turn back to what the box holds."""
    files = [part["path"] for part in turn["content"] if part["type"] != "text"]
    return {"text": next(part["text"] for part in turn["content"] if part["type"] == "text"), "files": files}


class ChatTab:
    """Builds one chat and handles its events.

    Args:
        engine: runs the model.
        name: prefix of element ids and API names.
        placeholder: what the empty chat says.
        examples: rows for the box, ``[{"text", "files"}]``.
        clip_settings_open: show the clip settings at once (the video tab).
    """

    def __init__(
        self, engine: Engine, name: str, placeholder: str, examples: list[list[dict[str, Any]]], clip_settings_open: bool
    ) -> None:
        self.engine = engine
        own = engine.omni.profile["chat"]
        self.turns = gr.State([])
        self.chatbot = gr.Chatbot(
            elem_id=f"{name}-chatbot",
            elem_classes="chatbot-box",
            height="calc(100dvh - 500px)",
            min_height=320,
            placeholder=placeholder,
            label="Conversation",
            show_label=False,
            allow_tags=False,
            buttons=["copy"],
        )
        self.status = gr.HTML("", elem_id=f"{name}-status", elem_classes="status")
        self.box = gr.MultimodalTextbox(
            elem_id=f"{name}-box",
            file_count="multiple",
            file_types=[*IMAGE_SUFFIXES, *VIDEO_SUFFIXES],
            placeholder="Add pictures or clips with the paper clip, then ask about them (Enter sends)",
            label="Your message",
            show_label=False,
            max_plain_text_length=MAX_TEXT,
        )
        with gr.Row():
            self.again = gr.Button("Ask again", size="sm", elem_id=f"{name}-again")
            self.undo = gr.Button("Undo", size="sm", elem_id=f"{name}-undo")
            self.clear = gr.Button("Clear", size="sm", elem_id=f"{name}-clear")
        gr.Examples(examples, inputs=[self.box], label="Try one", examples_per_page=6)
        with gr.Accordion("Clips: how much to look at", open=clip_settings_open), gr.Row():
            self.frames = gr.Slider(1, 16, own["num_frames"], step=1, label="Frames to look at", elem_id=f"{name}-frames")
            self.start = gr.Number(0, minimum=0, label="From second", elem_id=f"{name}-start")
            self.end = gr.Number(0, minimum=0, label="To second (0: the end)", elem_id=f"{name}-end")
        with gr.Accordion("Answers", open=False):
            with gr.Row():
                self.length = gr.Slider(1, 1024, own["max_new_tokens"], step=1, label="Longest answer, in tokens")
                self.temperature = gr.Slider(0, 2, own["temperature"], step=0.05, label="Temperature (0: always the likeliest)")
                self.top_p = gr.Slider(0.05, 1, 1.0, step=0.05, label="Top-p")
            with gr.Row():
                self.top_k = gr.Slider(0, 100, 0, step=1, label="Top-k (0: off)")
                self.penalty = gr.Slider(0.8, 2, 1.0, step=0.05, label="Repetition penalty")
                self.seed = gr.Number(0, precision=0, minimum=0, label="Seed (0: a new one each time)")
        self._wire(name)

    def _wire(self, name: str) -> None:
        clip = [self.frames, self.start, self.end]
        answer = [self.length, self.temperature, self.top_p, self.top_k, self.penalty, self.seed]
        outputs = [self.chatbot, self.turns, self.box, self.status]
        private: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        sent = self.box.submit(self.send, [self.box, self.turns, *clip, *answer], outputs, **private)
        asked = self.again.click(self.ask_again, [self.turns, *answer], outputs, **private)
        ready: dict[str, Any] = {
            "fn": self.ready,
            "inputs": [self.turns],
            "outputs": [self.chatbot, self.box, self.status],
            **private,
        }
        # the words come after the cancel, so that no late piece can overwrite them
        self.box.stop(None, cancels=[sent, asked], queue=False).then(queue=False, **ready)
        self.undo.click(self.undo_last, [self.turns], outputs, cancels=[sent, asked], queue=False, **private)
        for clearing in (self.clear.click, self.chatbot.clear):
            clearing(self.clear_all, None, outputs, cancels=[sent, asked], queue=False, **private)
        gr.api(self.answer, api_name=f"{name}_answer")

    # -- handlers

    async def send(self, message, turns, frames, start_s, end_s, *answer) -> AsyncIterator[tuple]:
        """A new message: checked first, so that on an error nothing changes and the typed text stays."""
        try:
            turn = await asyncio.to_thread(
                user_turn, message, int(frames or 1), float(start_s or 0), float(end_s) if end_s else None
            )
        except (HaploOmniError, ValueError, TypeError, OverflowError) as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        async for update in self._reply([*turns, turn], turns, message, answer):
            yield update

    async def ask_again(self, turns, *answer) -> AsyncIterator[tuple]:
        """The last question once more."""
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
        if last is None:
            raise gr.Error("There is no question to ask again yet.", print_exception=False)
        async for update in self._reply(turns[: last + 1], turns, None, answer):
            yield update

    async def _reply(self, turns: list[Turn], before: list[Turn], message: Any, answer: tuple) -> AsyncIterator[tuple]:
        """Stream an answer to ``turns``; on an error everything is as ``before`` and the message is back in the box."""
        busy_box = gr.MultimodalTextbox(value=None, submit_btn=False, stop_btn=True)
        yield shown(turns), turns, busy_box, "Reading…"
        text, painted = "", 0.0
        started: float | None = None  # while nothing of the answer is to be seen
        try:
            async with aclosing(self.engine.stream(lambda omni: omni.chat(turns, **sampling(answer)))) as events:
                async for event in events:
                    if isinstance(event, Waiting) and event.ahead:
                        yield gr.skip(), gr.skip(), gr.skip(), str(event)
                    elif isinstance(event, Started):
                        started = time.monotonic()
                        yield gr.skip(), gr.skip(), gr.skip(), "Reading…"
                    elif isinstance(event, Progress):
                        started, text = None, text + event.value
                        if time.monotonic() - painted >= UPDATE_S:
                            painted = time.monotonic()
                            now = [*turns, {"role": "assistant", "content": text}]
                            yield shown(now), now, gr.skip(), "Answering…"
                    elif isinstance(event, Ended) and event.state is State.FAILED and event.error is not None:
                        raise event.error
                    elif event is None:
                        reading = gr.skip() if started is None else under_way("Reading", started)
                        yield gr.skip(), gr.skip(), gr.skip(), reading
        except Exception as error:
            said = sentence(error)
            box = gr.MultimodalTextbox(value=message, submit_btn=True, stop_btn=False)
            yield shown(before), before, box, ""
            raise gr.Error(said, print_exception=False) from None
        done = [*turns, {"role": "assistant", "content": text or "(no words)"}]
        yield shown(done), done, gr.MultimodalTextbox(submit_btn=True, stop_btn=False), ""

    def ready(self, turns):
        """After a stop: the partial answer stays, the box is open again."""
        return shown(turns), gr.MultimodalTextbox(submit_btn=True, stop_btn=False), "Stopped."

    def undo_last(self, turns):
        """Take back the last question with its answer; the question returns to the box."""
        last = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=None)
        if last is None:
            return [], [], gr.MultimodalTextbox(submit_btn=True, stop_btn=False), ""
        box = gr.MultimodalTextbox(value=message_of(turns[last]), submit_btn=True, stop_btn=False)
        return shown(turns[:last]), turns[:last], box, ""

    def clear_all(self):
        """A fresh conversation."""
        return [], [], gr.MultimodalTextbox(value=None, submit_btn=True, stop_btn=False), ""

    async def answer(self, question: str, files: list[FileData], max_new_tokens: int = 64, temperature: float = 0.0) -> str:
        """One question about pictures and clips, for programs: the whole answer."""
        try:
            paths = [file["path"] if isinstance(file, dict) else file.path for file in files]
            turn = await asyncio.to_thread(user_turn, {"text": question, "files": paths}, 4, 0.0, None)
        except HaploOmniError as error:
            raise gr.Error(sentence(error), print_exception=False) from None
        text = ""
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        async with aclosing(self.engine.stream(lambda omni: omni.chat([turn], **settings))) as events:
            async for event in events:
                if isinstance(event, Progress):
                    text += event.value
                elif isinstance(event, Ended) and event.error is not None:
                    raise gr.Error(sentence(event.error), print_exception=False) from None
        return text


def sampling(answer: tuple) -> dict[str, Any]:
    """The answer settings of the page as arguments of ``HaploOmni.chat``."""
    length, temperature, top_p, top_k, penalty, seed = answer
    return {
        "max_new_tokens": int(length or 1),
        "temperature": float(temperature or 0),
        "top_p": float(top_p or 1),
        "top_k": int(top_k or 0),
        "repetition_penalty": float(penalty or 1),
        "seed": int(seed) if seed else None,
    }
