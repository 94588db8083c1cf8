"""Text to video: a form as a checked request, a request as previews and a finished clip."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from app.engine.engine import Engine
from app.engine.memory import MemoryManager
from app.engine.turns import Lane
from app.services.fields import integer, text
from app.services.following import Status, follow
from app.services.library import Library
from app.services.previews import animated_webp, preview_size
from core import DenoiseStep, GeneratedVideo
from core.errors import PromptError
from core.pipelines.decoding import DecodeStep
from core.pipelines.text_to_video import FPS, check_request, text_to_video
from core.requests import VideoRequest

if TYPE_CHECKING:
    from core import HaploOmni

Item = TypeVar("Item")
MAX_PROMPT = 2000
START = "Starting"


@dataclass(frozen=True)
class PreviewStep:
    """The clip so far as a looping WebP: after step ``index`` of ``total``, ``elapsed_s`` after the start."""

    index: int
    total: int
    webp: bytes
    elapsed_s: float


@dataclass(frozen=True)
class FinishedClip:
    """The file of a finished clip, and the request that makes it again."""

    path: Path
    request: VideoRequest

    @property
    def is_picture(self) -> bool:
        """Whether it is a PNG, of a single frame."""
        return self.path.suffix == ".png"


class VideoService:
    """Makes clips.

    Args:
        engine: runs the model.
        memory: plans its memory.
        library: where finished clips go.
    """

    def __init__(self, engine: Engine, memory: MemoryManager, library: Library) -> None:
        self.engine = engine
        self.memory = memory
        self.library = library

    def request(self, prompt: Any, negative_prompt: Any, **form: Any) -> VideoRequest:
        """See :func:`video_request`."""
        return video_request(self.engine.omni, prompt, negative_prompt, **form)

    def make(self, request: VideoRequest, owner: str = "") -> AsyncGenerator[Any, None]:
        """A :class:`PreviewStep` a step, at the end the :class:`FinishedClip`; :class:`Status` between.

        Read it inside ``contextlib.aclosing``.

        Raises:
            HaploOmniError: the clip cannot be made; one sentence.
        """
        return follow(self.engine, partial(self.work, request=request), START, Lane.CLIP, owner)

    def work(self, omni: HaploOmni, request: VideoRequest) -> Iterator[PreviewStep | Status | FinishedClip]:
        """In the engine's thread: the steps of a clip."""
        size = preview_size(request.height, request.width)
        started_s = time.monotonic()
        denoising_s = 0.0
        decoding_s = 0.0
        steps = self.memory.by_plan(self.memory.plan_for(request), text_to_video(omni, request))
        for item, seconds in timed(steps):
            if isinstance(item, DenoiseStep):
                denoising_s += seconds
            else:
                decoding_s += seconds
            if isinstance(item, DecodeStep):
                yield Status(f"Decoding {item.index} of {item.total}…")
            elif isinstance(item, GeneratedVideo):
                self.memory.record_timing(request, denoising_s / request.num_inference_steps, decoding_s)
                suffix = ".png" if len(item.frames) == 1 else ".mp4"
                yield FinishedClip(item.save(self.library.new_path(suffix)), request)
            elif isinstance(item, DenoiseStep):
                elapsed_s = time.monotonic() - started_s
                preview = animated_webp(item.preview(*size), FPS)
                yield PreviewStep(item.index, item.total, preview, elapsed_s)


def timed(steps: Iterator[Item]) -> Iterator[tuple[Item, float]]:
    """Every step with the seconds that it took itself, whatever others did between two steps."""
    while True:
        began_s = time.monotonic()
        try:
            item = next(steps)
        except StopIteration:
            return
        yield item, time.monotonic() - began_s


def video_request(omni: HaploOmni, prompt: Any, negative_prompt: Any, **form: Any) -> VideoRequest:
    """A checked request; fields left empty (None) are the checkpoint's own.

    The estimate and the making both begin here.

    Args:
        form: height, width, num_frames, num_inference_steps, guidance_scale, seed.

    Raises:
        RequestError, PromptError: what making the clip would say too, in one sentence.
    """
    prompt = text("The prompt", prompt)
    negative_prompt = text("The negative prompt", negative_prompt)
    for label, words in (("prompt", prompt), ("negative prompt", negative_prompt)):
        if len(words) > MAX_PROMPT:
            raise PromptError(f"The {label} has {len(words)} characters; at most {MAX_PROMPT} are read.")
    given = {name: value if name == "guidance_scale" else integer(value) for name, value in form.items()}
    request = omni.video_request(prompt, negative_prompt, **given)
    check_request(omni, request)
    return request
