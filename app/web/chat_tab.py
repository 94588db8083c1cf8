"""The chat about pictures and clips: one component, used by two tabs with settings of their own.

The conversation lives in the visitor's own server-side state, never in what the browser sends back.
After a reload it is that of the newest ticket, whose id the browser keeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

import gradio as gr

from app.errors import user_message
from app.services.chat import MAX_FRAMES, ChatService, chat_sampling, clip_settings
from app.services.conversation import Conversation, to_chatbot
from app.services.following import Status, Stopped
from app.web.browser_state import address, kept_values, remember, visitor
from app.web.chat_forms import (
    SKIP,
    draft_of,
    held_by,
    joined,
    kept_by,
    open_box,
    settled_by,
    ticket_of,
    to_textbox,
    update,
)
from app.web.forms import PRIVATE, as_typed, errors_as_sentences, page_error
from core.errors import TicketError
from core.requests import Sampling

UPDATE_S = 0.06
STOPPED = "Stopped."
GONE = "The conversation before this is no longer kept."
WHOLE_TEXTS = 2**31 - 1  # longer texts than this are pasted as files, which the model cannot read
UNREAD = "A file of an earlier question is no longer kept and was not read."


class ChatTab:
    """Builds one chat and handles its events.

    Args:
        chat: answers.
        name: prefix of element ids.
        placeholder: what the empty chat says.
        examples: rows for the box, ``[{"text", "files"}]``.
        clip_settings_open: show the clip settings at once (the video tab).
    """

    def __init__(
        self,
        chat: ChatService,
        name: str,
        placeholder: str,
        examples: list[list[dict[str, Any]]],
        clip_settings_open: bool,
    ) -> None:
        self.chat = chat
        # a function and no method: Gradio copies it deeply for every visitor, and with a method the model
        self.conversation = gr.State(Conversation(), delete_callback=lambda gone: chat.forget(gone))
        self.returned = gr.State(None)
        # for the browser: which ticket holds the conversation, and how many of its messages are left
        self.kept = gr.JSON(visible=False)
        self._build_chat(name, placeholder)
        gr.Examples(examples, inputs=[self.box], label="Try one", examples_per_page=6)
        with gr.Accordion("Clips: how much to look at", open=clip_settings_open), gr.Row():
            self._build_clip_settings(name)
        with gr.Accordion("Answers", open=False):
            self._build_answer_settings()
        self._wire(name)

    def _build_chat(self, name: str, placeholder: str) -> None:
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
            placeholder="Add pictures or clips with the paper clip, then ask about them (Enter sends)",
            label="Your message",
            show_label=False,
            max_plain_text_length=WHOLE_TEXTS,
        )
        with gr.Row():
            self.again = gr.Button("Ask again", size="sm", elem_id=f"{name}-again")
            self.undo = gr.Button("Undo", size="sm", elem_id=f"{name}-undo")
            self.clear = gr.Button("Clear", size="sm", elem_id=f"{name}-clear")

    def _build_clip_settings(self, name: str) -> None:
        usual = self.chat.tickets.engine.omni.profile.chat.num_frames
        self.frames = gr.Slider(
            1,
            max(MAX_FRAMES, usual),
            usual,
            step=1,
            label="Frames to look at",
            elem_id=f"{name}-frames",
        )
        self.start = gr.Number(0, minimum=0, label="From second", elem_id=f"{name}-start")
        self.end = gr.Number(0, minimum=0, label="To second (0: the end)", elem_id=f"{name}-end")

    def _build_answer_settings(self) -> None:
        usual = self.chat.tickets.engine.omni.profile.chat
        with gr.Row():
            self.length = gr.Slider(
                1,
                max(1024, usual.max_new_tokens),
                usual.max_new_tokens,
                step=1,
                label="Longest answer, in tokens",
            )
            self.temperature = gr.Slider(
                0,
                max(2, usual.temperature),
                usual.temperature,
                step=0.05,
                label="Temperature (0: always the likeliest)",
            )
            self.top_p = gr.Slider(0.05, 1, 1.0, step=0.05, label="Top-p")
        with gr.Row():
            self.top_k = gr.Slider(0, 100, 0, step=1, label="Top-k (0: off)")
            self.penalty = gr.Slider(0.8, 2, 1.0, step=0.05, label="Repetition penalty")
            self.seed = gr.Number(0, precision=0, minimum=0, label="Seed (0: a new one each time)")

    def _wire(self, name: str) -> None:
        clip: list[Any] = [self.frames, self.start, self.end]
        answer: list[Any] = [self.length, self.temperature, self.top_p, self.top_k, self.penalty, self.seed]
        self.settings = [*clip, *answer]
        for field in self.settings:
            as_typed(field)
        outputs = [self.chatbot, self.conversation, self.box, self.status]
        replies = [*outputs, self.returned, self.kept]
        sent = self.box.submit(self.send, [self.box, self.conversation, *clip, *answer], replies, **PRIVATE)
        asked = self.again.click(self.ask_again, [self.conversation, *answer], replies, **PRIVATE)
        self.replies = [self.conversation, self.kept], replies
        self.running = [sent, asked]
        for reply in (sent, asked):
            self._give_back_after(reply)
        self.box.stop(self.stop, self.kept, outputs, queue=False, **PRIVATE)
        remember(f"{name}.kept", [self.kept])
        remember(f"{name}.draft", [self.box])
        remember(f"{name}.settings", self.settings)
        self.name = name

    def wire_after(self, loaded: gr.events.Dependency) -> None:
        """What follows a load of the page, and what ends an answer however it began."""
        again = loaded.then(self.reattach, *self.replies, **PRIVATE)
        self._give_back_after(again)
        # what follows comes after the cancel, so that no late piece of an answer can overwrite it
        cancel: dict[str, Any] = {"fn": None, "cancels": [*self.running, again], "queue": False}
        outputs = [self.chatbot, self.conversation, self.box, self.status, self.kept]
        undone = [self.conversation, self.box, self.kept]
        self.undo.click(**cancel).then(self.undo_last, undone, outputs, queue=False, **PRIVATE)
        cleared = [self.conversation, self.kept]
        for clearing in (self.clear.click, self.chatbot.clear):
            clearing(**cancel).then(self.clear_all, cleared, outputs, queue=False, **PRIVATE)

    def _give_back_after(self, reply: gr.events.Dependency) -> None:
        """A message that got no answer returns to the box."""
        given_back = [self.box, self.returned]
        for ending in (reply.failure, reply.success):  # in the browser, then is not told of an error
            ending(self.give_back, given_back, given_back, queue=False, **PRIVATE)

    # -- handlers

    async def send(self, message, conversation, frames, start_s, end_s, *answer) -> AsyncIterator[tuple]:
        """A new message: checked first, so that on an error nothing changes and the typed text stays."""
        typed = message or {}
        with errors_as_sentences():
            sampling = chat_sampling(*answer)
            clips = clip_settings(frames, start_s, end_s)
            files = typed.get("files") or []
            asked = await asyncio.to_thread(self.chat.message, typed.get("text"), files, clips)
        async for piece in self._reply(conversation.with_message(asked), conversation, message, sampling):
            yield piece

    async def ask_again(self, conversation, *answer) -> AsyncIterator[tuple]:
        """The last question once more; what was typed meanwhile stays in the box."""
        last = conversation.last_question
        if last is None:
            raise gr.Error("There is no question to ask again yet.", print_exception=False)
        with errors_as_sentences():
            sampling = chat_sampling(*answer)
        async for piece in self._reply(conversation.before(last + 1), conversation, None, sampling):
            yield piece

    async def reattach(self, conversation, kept) -> AsyncIterator[tuple]:
        """After a load of the page: an answer that is still being made goes on where it was."""
        ticket = ticket_of(kept)
        if not ticket or conversation.is_answered:
            yield update()
            return
        last = conversation.last_question
        box = gr.MultimodalTextbox(submit_btn=False, stop_btn=True)
        yield update(box=box, status="Reading…")
        message = to_textbox(conversation.messages[last])
        async for piece in self._stream(ticket, conversation, conversation.before(last), message):
            yield piece

    async def _reply(
        self,
        conversation: Conversation,
        before: Conversation,
        message: dict[str, Any] | None,
        sampling: Sampling,
    ) -> AsyncIterator[tuple]:
        """Ask for an answer and stream it; on an error everything is as ``before``."""
        with errors_as_sentences():  # nothing has left the box yet
            readable = self.chat.readable(conversation)
            ticket = self.chat.submit(readable, sampling, visitor(), address=address(), before=before)
        emptied: dict[str, Any] = {} if message is None else {"value": None}
        box = gr.MultimodalTextbox(submit_btn=False, stop_btn=True, **emptied)
        yield update(
            to_chatbot(conversation), conversation, box, "Reading…", kept=kept_by(ticket, conversation)
        )
        ended = "" if readable == conversation else UNREAD
        async for piece in self._stream(ticket, conversation, before, message, ended):
            yield piece

    async def _stream(
        self,
        ticket: str,
        conversation: Conversation,
        before: Conversation,
        message: dict[str, Any] | None,
        ended: str = "",
    ) -> AsyncIterator[tuple]:
        """Stream an answer; on an error everything is as ``before`` and the message returns to the box.

        Args:
            conversation: up to the question.
            ended: what to say at the end.
        """
        words = ""
        painted_s = 0.0
        try:
            async with aclosing(self.chat.follow(ticket, visitor())) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Stopped):
                        ended = STOPPED
                    elif isinstance(piece, Status):
                        yield update(status=piece.text or SKIP)
                    else:
                        words = piece
                        if time.monotonic() - painted_s >= UPDATE_S:
                            painted_s = time.monotonic()
                            now = conversation.with_answer(words)
                            yield update(to_chatbot(now), now, status="Answering…")
        except Exception as error:
            told = page_error(error)
            yield update(to_chatbot(before), before, open_box(), "", message, settled_by(ticket, before))
            raise told from None
        if words or ended != STOPPED:
            answered = conversation.with_answer(words or "(no words)")
            yield update(to_chatbot(answered), answered, open_box(), ended, kept=kept_by(ticket, answered))
        else:  # stopped before the first word: as if it had not been asked
            yield update(to_chatbot(before), before, open_box(), ended, message, settled_by(ticket, before))

    def restore(self, saved: Any) -> list[Any]:
        """What a load of the page finds: conversation, settings and typed words as the browser kept them.

        Returns:
            For :attr:`restored`.
        """
        draft = draft_of(saved, f"{self.name}.draft", self.chat.library.uploads)
        held = held_by(saved, f"{self.name}.kept")
        conversation, status = Conversation(), ""
        try:
            if held is not None:
                ticket = ticket_of(held)
                job, conversation, ended = self.chat.known(ticket, visitor())
                conversation = conversation.before(held["messages"])
                if ended is not None and conversation == job.before and not held["settled"]:
                    # the page was not there when it ended without an answer: a new message returns to the box
                    status = STOPPED if ended.error is None else user_message(ended.error)
                    if conversation == job.conversation.without_last():
                        draft = joined(to_textbox(job.conversation.messages[-1]), draft)
                    held = settled_by(ticket, conversation)
        except TicketError:
            held, status = None, GONE
        values = kept_values(saved, f"{self.name}.settings", len(self.settings))
        settings = [gr.skip() if value is None else value for value in values]
        box = gr.MultimodalTextbox(value=draft) if draft else gr.skip()
        return [to_chatbot(conversation), conversation, box, status, held, *settings]

    @property
    def restored(self) -> list[Any]:
        """The outputs of :meth:`restore`."""
        return [self.chatbot, self.conversation, self.box, self.status, self.kept, *self.settings]

    def give_back(self, box, returned):
        """After a failure: the message stands in the box again, before what was typed there meanwhile."""
        if returned is None:
            return gr.skip(), gr.skip()
        return open_box(value=joined(returned, box)), None

    async def stop(self, kept):
        """Stop the answer; once the model is free of it, what came of it stays and the box is open again."""
        with errors_as_sentences():
            conversation = await self.chat.stop(ticket_of(kept), visitor())
        return to_chatbot(conversation), conversation, open_box(), STOPPED

    def undo_last(self, conversation, box, kept):
        """Take back the last question with its answer; it returns to the box, before what was typed there."""
        self._leave(kept)
        last = conversation.last_question
        if last is None:
            return [], Conversation(), open_box(), "", None
        left = conversation.before(last)
        value = joined(to_textbox(conversation.messages[last]), box)
        return to_chatbot(left), left, open_box(value=value), "", kept_by(ticket_of(kept), left)

    def clear_all(self, conversation, kept):
        """A fresh conversation; what was typed stays in the box."""
        self._leave(kept)
        self.chat.forget(conversation)
        return [], Conversation(), open_box(), "", None

    def _leave(self, kept) -> None:
        """Nobody wants the answer that is being made, if one is."""
        with suppress(TicketError):
            self.chat.tickets.stop(ticket_of(kept), visitor())
