"""Jobs and what comes of them are plain data: they can be sent to another process, and written down."""

from __future__ import annotations

import json
import pickle

import pytest

from app.engine.tickets import Tickets
from app.services.chat import ChatJob, ChatService
from app.services.conversation import Conversation, ImagePart, Message, TextPart, VideoPart
from app.services.following import Status
from app.services.library import Library
from app.services.video import FinishedClip, PreviewStep, VideoService
from core.errors import TicketError
from core.requests import Sampling, VideoRequest

TALK = Conversation(
    (
        Message(
            "user", (ImagePart("/a/b.png"), VideoPart("/a/c.mp4", 4, 0.5, None), TextPart("What is it?"))
        ),
        Message("assistant", (TextPart("A star \ud83d."),)),
        Message("user", (TextPart("And now?"),)),
    )
)
CLIP = VideoRequest("a red circle", "blurry", 64, 128, 9, 5, 4.5, 7)


@pytest.fixture
def services():
    tickets, library = Tickets(engine=None), Library()
    yield ChatService(tickets, library), VideoService(tickets, None, library)
    tickets.close()
    library.close()


def test_jobs_come_back_from_paper_and_from_another_process(services):
    for kind, job in zip(services, (ChatJob(TALK, Sampling(8, seed=3)), CLIP), strict=True):
        written = json.dumps(kind.to_record(job))
        assert kind.from_record(json.loads(written)) == job
        assert pickle.loads(pickle.dumps(job)) == job


def test_what_comes_of_them_is_plain_data_too(tmp_path):
    for value in (
        Status("Reading…"),
        PreviewStep(1, 5, b"webp", 0.5),
        FinishedClip(tmp_path / "a.mp4", CLIP),
    ):
        assert pickle.loads(pickle.dumps(value)) == value


def test_results_come_back_while_their_files_are_there(services, tmp_path):
    chat, video = services
    job = ChatJob(TALK, Sampling(8))
    assert chat.from_result(job, chat.result_record(["a", Status("x"), "b"])) == ["ab"]
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"clip")
    finished = FinishedClip(path, CLIP)
    record = video.result_record([PreviewStep(1, 5, b"", 0.5), finished])
    assert video.from_result(CLIP, record) == [finished]
    path.unlink()
    with pytest.raises(TicketError, match="no longer kept"):
        video.from_result(CLIP, record)
    assert video.from_result(CLIP, video.result_record([])) == []


def test_an_answer_belongs_to_its_conversation():
    job = ChatJob(TALK, Sampling(8))
    assert job.outcome(["It ", Status("x"), "moves."]).messages[-1].text == "It moves."
    assert job.outcome([]) == Conversation() and not TALK.is_answered
    assert ChatJob(TALK, Sampling(8), TALK.before(2)).outcome([]) == TALK.before(2)
