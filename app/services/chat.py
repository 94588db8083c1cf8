"""Chat: a message checked and taken in, a conversation answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app.engine.jobs import Finished
from app.engine.tickets import Tickets
from app.engine.turns import Lane
from app.services.conversation import (
    Conversation,
    ImagePart,
    MediaPart,
    Message,
    TextPart,
    VideoPart,
    from_browser,
    to_browser,
    to_model,
)
from app.services.fields import number, text, whole
from app.services.following import Status, Stopped, follow
from app.services.library import Library
from app.services.timing import timed
from core.errors import MediaError, PromptError, RequestError
from core.media import kind_of, probe_video
from core.pipelines.prefill import PrefillStep
from core.requests import Sampling

if TYPE_CHECKING:
    from core import HaploOmni

MAX_FILES = 8
MAX_TEXT = 4000
MAX_FRAMES = 16


@dataclass(frozen=True)
class ClipSettings:
    """How much to look at of a clip: frames, and the part in seconds; None is the clip's end."""

    num_frames: int = 4
    start_s: float = 0.0
    end_s: float | None = None


@dataclass(frozen=True)
class ChatJob:
    """A conversation that ends with a question, how it is to be answered, and what stands if it is not."""

    conversation: Conversation
    sampling: Sampling
    before: Conversation = field(default_factory=Conversation)

    def outcome(self, values: Sequence[Any]) -> Conversation:
        """The conversation once the job has ended: with the answer, or as it was before."""
        words = "".join(value for value in values if isinstance(value, str))
        return self.conversation.with_answer(words) if words else self.before


class ChatService:
    """Takes messages and answers conversations.

    Args:
        tickets: run the answers.
        library: keeps what conversations are about.
    """

    name = "chat"
    lane = Lane.CHAT

    def __init__(self, tickets: Tickets, library: Library) -> None:
        self.tickets = tickets
        self.library = library
        self._usual_s: float | None = None  # of the model's time for an answer
        tickets.offer(self)

    def message(self, question: Any, files: Sequence[str], clips: ClipSettings) -> Message:
        """A checked message of the user, each of its files read and copied for the conversation.

        Raises:
            PromptError: no text, or too much of it; too many files.
            MediaError: a file that cannot be read or kept.
        """
        words = text("The question", question).strip()
        if not words:
            raise PromptError("Please type a question" + (" about what you uploaded." if files else "."))
        if len(words) > MAX_TEXT:
            raise PromptError(f"The message has {len(words)} characters; at most {MAX_TEXT} are read.")
        if len(files) > MAX_FILES:
            raise PromptError(f"{len(files)} files came with one message; at most {MAX_FILES} are read.")
        try:
            media = [media_part(path, clips) for path in files]
            for part in media:
                self.library.read(part)
            kept = [self.library.keep(part) for part in media]
        except BaseException:
            self.library.forget(files)
            raise
        return Message("user", (*kept, TextPart(words)))

    def readable(self, conversation: Conversation) -> Conversation:
        """The conversation as it can be answered: earlier files that are gone are named instead of read."""
        self.library.touch(conversation.paths)
        return conversation.without_missing()

    def submit(
        self,
        conversation: Conversation,
        sampling: Sampling,
        owner: str,
        grace_s: float | None = None,
        address: str = "",
        before: Conversation | None = None,
    ) -> str:
        """Ask for an answer; its ticket's id.

        Args:
            before: the conversation that stands if no answer comes; the one without the question by default.

        Raises:
            BusyError: too many are waiting.
        """
        job = ChatJob(conversation, sampling, conversation.without_last() if before is None else before)
        return self.tickets.submit(self.name, job, owner, grace_s, address=address).id

    async def follow(self, ticket_id: str, owner: str) -> AsyncGenerator[str | Status | Stopped, None]:
        """The answer as far as it has come, each time a piece is added; :class:`Status` between.

        Raises:
            HaploOmniError: no answer, or not all of it; one sentence.
        """
        words = ""
        async with aclosing(follow(self.tickets, ticket_id, owner, "Reading")) as pieces:
            async for piece in pieces:
                if isinstance(piece, str):
                    words += piece
                    yield words
                else:
                    yield piece

    def known(self, ticket_id: str, owner: str) -> tuple[ChatJob, Conversation, Finished | None]:
        """What was asked, the conversation as it stands now, and how the job ended, once it has.

        Raises:
            TicketError: nothing is known of it here.
        """
        ticket = self.tickets.get(ticket_id, owner)
        ended = ticket.ended
        job: ChatJob = ticket.job
        return job, job.conversation if ended is None else job.outcome(ticket.values), ended

    async def stop(self, ticket_id: str, owner: str) -> Conversation:
        """Stop an answer, wait until the model is free of it, and give the conversation as it stands then.

        Raises:
            TicketError: nothing is known of it here.
        """
        self.tickets.stop(ticket_id, owner)
        async with aclosing(self.tickets.follow(ticket_id, owner)) as events:
            async for _ in events:
                pass
        return self.known(ticket_id, owner)[1]

    def forget(self, conversation: Conversation) -> None:
        """The conversation is over."""
        self.library.forget(conversation.paths)

    # -- as a kind of job

    def work(self, omni: HaploOmni, job: ChatJob) -> Iterator[str | Status]:
        """In the engine's thread: the pieces of an answer, and how far reading is; one token is one step."""
        used_s = 0.0
        for step, seconds in timed(omni.chat_steps(to_model(job.conversation, self._decoded), job.sampling)):
            used_s += seconds
            if isinstance(step, PrefillStep):
                yield Status(f"Reading part {step.index + 1} of {step.total}…")
            else:
                yield step or Status("")  # a token that completes no character
        self._usual_s = used_s if self._usual_s is None else (self._usual_s + used_s) / 2

    def expected_s(self, _: ChatJob) -> tuple[float | None, float | None]:
        """Nobody knows how long an answer will be: as long as the ones before."""
        return self._usual_s, None

    def to_record(self, job: ChatJob) -> dict[str, Any]:
        """A job as plain JSON values."""
        return {
            "messages": to_browser(job.conversation),
            "sampling": asdict(job.sampling),
            "before": to_browser(job.before),
        }

    def from_record(self, record: dict[str, Any]) -> ChatJob:
        """The job of :meth:`to_record`."""
        sampling = Sampling(**record["sampling"])
        return ChatJob(from_browser(record["messages"]), sampling, from_browser(record["before"]))

    def result_record(self, values: list[Any]) -> str:
        """The answer's words."""
        return "".join(value for value in values if isinstance(value, str))

    def from_result(self, _: ChatJob, record: str) -> list[str]:
        """The answer in one piece."""
        return [record]

    def _decoded(self, part: MediaPart) -> np.ndarray | None:
        """A part's pixels; None where its file cannot be read: the model says so and names the message."""
        try:
            return self.library.read(part)
        except MediaError:
            return None


def media_part(path: str, clips: ClipSettings) -> MediaPart:
    """A file as a part of a message.

    Raises:
        MediaError: neither a picture nor a clip, or a clip without the part that is to be looked at.
    """
    if kind_of(path) == "image":
        return ImagePart(path)
    clip = probe_video(path)
    start_s = clips.start_s
    end_s = clips.end_s
    if end_s is not None and end_s <= start_s:
        raise MediaError(f"The part of the clip ends at {end_s:g} s, before it begins at {start_s:g} s.")
    if start_s > clip.duration_s:
        raise MediaError(
            f"The part begins at {start_s:g} s but '{Path(path).name}' is {clip.duration_s:.1f} s long."
        )
    return VideoPart(path, clips.num_frames, start_s, end_s)


def clip_settings(frames: Any, start_s: Any, end_s: Any) -> ClipSettings:
    """Frames to look at, from when, and to when (0: the end), as they were typed.

    Raises:
        RequestError: one that cannot be.
    """
    frames = whole("The number of frames to look at", frames, 1)
    if not 1 <= frames <= MAX_FRAMES:
        raise RequestError(f"{frames} frames to look at are not possible; choose 1 to {MAX_FRAMES}.")
    start = number("The second to begin at", start_s, 0.0)
    end = number("The second to end at", end_s, 0.0)
    for label, second in (("begin", start), ("end", end)):
        if not 0 <= second < float("inf"):
            raise RequestError(f"A part of a clip cannot {label} at {second:g} s; choose 0 or more.")
    return ClipSettings(frames, start, end or None)


def chat_sampling(
    length: Any,
    temperature: Any,
    top_p: Any = None,
    top_k: Any = None,
    repetition_penalty: Any = None,
    seed: Any = None,
) -> Sampling:
    """The settings of an answer as they were typed; a seed of 0 is a new one each time.

    Raises:
        RequestError: one that cannot be.
    """
    sampling = Sampling(
        whole("The longest answer", length, 64),
        number("The temperature", temperature, 0.0),
        number("Top-p", top_p, 1.0),
        whole("Top-k", top_k, 0),
        number("The repetition penalty", repetition_penalty, 1.0),
        whole("The seed", seed, 0) or None,
    )
    sampling.validate()
    return sampling
