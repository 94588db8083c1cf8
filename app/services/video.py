"""Text to video: a form as a checked request, a request as previews and a finished clip."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine.jobs import Passing
from app.engine.memory import MemoryManager
from app.engine.tickets import Tickets
from app.engine.turns import Lane
from app.services.fields import integer, text
from app.services.following import Status, follow
from app.services.library import Library
from app.services.previews import animated_webp, preview_size
from app.services.timing import timed
from core import DenoiseStep, GeneratedVideo
from core.errors import PromptError, TicketError
from core.pipelines.decoding import DecodeStep
from core.pipelines.text_to_video import FPS, check_request, text_to_video
from core.requests import VideoRequest

if TYPE_CHECKING:
    from core import HaploOmni

MAX_PROMPT = 2000
START = "Starting"


@dataclass(frozen=True)
class PreviewStep(Passing):
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
    """Makes clips; a job is a :class:`VideoRequest`.

    Args:
        tickets: run them.
        memory: plans their memory.
        library: where finished clips go.
    """

    name = "clip"
    lane = Lane.CLIP

    def __init__(self, tickets: Tickets, memory: MemoryManager, library: Library) -> None:
        self.tickets = tickets
        self.memory = memory
        self.library = library
        tickets.offer(self)

    def request(self, prompt: Any, negative_prompt: Any, **form: Any) -> VideoRequest:
        """See :func:`video_request`."""
        return video_request(self.tickets.engine.omni, prompt, negative_prompt, **form)

    def submit(
        self,
        request: VideoRequest,
        owner: str,
        grace_s: float | None = None,
        finish: bool = False,
        address: str = "",
    ) -> str:
        """Ask for a clip; its ticket's id. With ``finish`` it is made also when nobody looks any more.

        Raises:
            BusyError: too many are waiting.
        """
        return self.tickets.submit(self.name, request, owner, grace_s, finish, address).id

    def follow(self, ticket_id: str, owner: str) -> AsyncGenerator[Any, None]:
        """A :class:`PreviewStep` a step, at the end the :class:`FinishedClip`; :class:`Status` between.

        Read it inside ``contextlib.aclosing``.

        Raises:
            HaploOmniError: the clip cannot be made; one sentence.
        """
        return follow(self.tickets, ticket_id, owner, START)

    # -- as a kind of job

    def expected_s(self, request: VideoRequest) -> tuple[float | None, float | None]:
        """Seconds that a clip and one of its steps will take."""
        return self.memory.expected_s(request)

    def to_record(self, request: VideoRequest) -> dict[str, Any]:
        """A job as plain JSON values."""
        return asdict(request)

    def from_record(self, record: dict[str, Any]) -> VideoRequest:
        """The job of :meth:`to_record`."""
        return VideoRequest(**record)

    def result_record(self, values: list[Any]) -> str:
        """The path of the finished clip; empty where there is none."""
        clips = [str(value.path) for value in values if isinstance(value, FinishedClip)]
        return clips[-1] if clips else ""

    def from_result(self, request: VideoRequest, record: str) -> list[FinishedClip]:
        """The finished clip.

        Raises:
            TicketError: its file is gone.
        """
        if not record:
            return []
        if not Path(record).is_file():
            raise TicketError("The clip is no longer kept; make it again.")
        return [FinishedClip(Path(record), request)]

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
