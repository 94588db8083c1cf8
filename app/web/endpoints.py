"""What programs may call through Gradio: an answer, a clip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder

from app.services.chat import ChatService, ClipSettings, chat_sampling
from app.services.conversation import Conversation
from app.services.video import FinishedClip, VideoService
from app.web.browser_state import address, visitor
from app.web.forms import errors_as_sentences
from core.errors import MediaError
from core.requests import brief

NO_GRACE_S = 1.0  # a program that is gone does not come back


class Endpoints:
    """The functions for programs.

    Only between two values does Gradio end the work of a program that is gone, so each gives a value at every
    sign of life.

    Args:
        chat: answers.
        video: makes clips.
    """

    def __init__(self, chat: ChatService, video: VideoService) -> None:
        self.chat = chat
        self.video = video

    def offer(self) -> None:
        """Make them known, within a page that is being built."""
        gr.api(self.answer, api_name="images_answer")
        gr.api(self.answer, api_name="videos_answer")
        gr.api(self.text_to_video, api_name="text_to_video")

    async def answer(
        self, question: str, files: list[FileData], max_new_tokens: int = 64, temperature: float = 0.0
    ) -> AsyncIterator[str]:
        """One question about pictures and clips: the answer as it grows, at the end the whole."""
        with errors_as_sentences():
            sampling = chat_sampling(max_new_tokens, temperature)
            paths = uploaded(files, get_upload_folder())
            message = await asyncio.to_thread(self.chat.message, question, paths, ClipSettings())
            conversation = Conversation((message,))
            words = ""
            try:
                ticket = self.chat.submit(conversation, sampling, visitor(), NO_GRACE_S, address())
                async with aclosing(self.chat.follow(ticket, visitor())) as pieces:
                    async for piece in pieces:
                        words = piece if isinstance(piece, str) else words
                        yield words
            finally:
                self.chat.forget(conversation)

    async def text_to_video(
        self,
        prompt: str,
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
    ) -> AsyncIterator[str]:
        """Make a clip: nothing while it is made, at the end the path of an MP4 (a PNG for one frame).

        Settings left out are the checkpoint's own.
        """
        with errors_as_sentences():
            request = await asyncio.to_thread(
                self.video.request,
                prompt,
                negative_prompt,
                height=height,
                width=width,
                num_frames=num_frames,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                seed=seed,
            )
            path = ""
            ticket = self.video.submit(request, visitor(), NO_GRACE_S, address=address())
            async with aclosing(self.video.follow(ticket, visitor())) as pieces:
                async for piece in pieces:
                    path = str(piece.path) if isinstance(piece, FinishedClip) else path
                    yield path


def uploaded(files: Any, folder: str) -> list[str]:
    """The paths of files that a program sent; only those that were uploaded here, in ``folder``.

    Raises:
        MediaError: something else; a program may name any file of this machine.
    """
    if files is not None and not isinstance(files, (list, tuple)):
        raise MediaError(f"The files must be a list, not {brief(files)}.")
    paths: list[str] = []
    for file in files or []:
        path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
        if not isinstance(path, str) or not is_inside(path, folder):
            raise MediaError("A file was not uploaded here; upload it first, then ask about it.")
        paths.append(path)
    return paths


def is_inside(path: str, folder: str) -> bool:
    """Whether a path, which may be any text, leads into ``folder``."""
    try:
        return Path(path).resolve().is_relative_to(Path(folder).resolve())
    except (ValueError, OSError):  # no possible path
        return False
