"""The forms in which a chat goes between handlers, box and browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from app.services.conversation import Conversation, Message
from app.web.endpoints import is_inside

SKIP = object()


def update(chat=SKIP, conversation=SKIP, box=SKIP, status=SKIP, returned=None, kept=SKIP) -> tuple:
    """One piece of a reply; what is not named stays as it is on the page."""
    values = (chat, conversation, box, status, returned, kept)
    return tuple(gr.skip() if value is SKIP else value for value in values)


def open_box(**changed: Any) -> gr.MultimodalTextbox:
    """The box while nothing is answered: a message can be sent."""
    return gr.MultimodalTextbox(submit_btn=True, stop_btn=False, **changed)


def to_textbox(message: Message) -> dict[str, Any]:
    """A message of the user as the box holds it."""
    return {"text": message.text, "files": message.paths}


def joined(first: dict[str, Any], draft: dict[str, Any] | None) -> dict[str, Any]:
    """A message that returns to the box, before what was typed there meanwhile."""
    draft = draft or {}
    words = [words for words in (first.get("text"), draft.get("text")) if words]
    files = [*(first.get("files") or []), *(draft.get("files") or [])]
    return {"text": "\n".join(words), "files": list(dict.fromkeys(files))}


def kept_by(ticket: str, conversation: Conversation) -> dict[str, Any] | None:
    """What a browser keeps of a conversation: the ticket that holds it, and how many messages are left."""
    return {"ticket": ticket, "messages": len(conversation.messages)} if conversation.messages else None


def settled_by(ticket: str, conversation: Conversation) -> dict[str, Any] | None:
    """The same of a ticket without an answer, whose message the visitor has in the box again."""
    kept = kept_by(ticket, conversation)
    return None if kept is None else {**kept, "settled": True}


def held_by(saved: Any, name: str) -> dict[str, Any] | None:
    """What :func:`kept_by` gave, as the browser sends it back; None for anything else."""
    values = saved.get(name) if isinstance(saved, dict) else None
    held: Any = values[0] if isinstance(values, list) and values else None
    if not isinstance(held, dict) or not ticket_of(held):
        return None
    messages = held.get("messages")
    if not isinstance(messages, int) or messages < 1:
        return None
    return {"ticket": held["ticket"], "messages": messages, "settled": held.get("settled") is True}


def ticket_of(held: Any) -> str:
    """The id in what :func:`kept_by` gave; empty where there is none."""
    ticket = held.get("ticket") if isinstance(held, dict) else None
    return ticket if isinstance(ticket, str) else ""


def draft_of(saved: Any, name: str, own: Path) -> dict[str, Any] | None:
    """What stood in the box, with those of its files that are still kept.

    Args:
        own: the folder of the conversations' copies, whose names nobody can guess.
    """
    values = saved.get(name) if isinstance(saved, dict) else None
    box = values[0] if isinstance(values, list) and values else None
    if not isinstance(box, dict):
        return None
    words = box.get("text")
    files = box.get("files")
    paths = []
    for file in files if isinstance(files, list) else []:
        path = file.get("path") if isinstance(file, dict) else None
        folders = (get_upload_folder(), str(own))
        if isinstance(path, str) and any(is_inside(path, folder) for folder in folders):
            paths.append(path)
    draft = {
        "text": words if isinstance(words, str) else "",
        "files": [path for path in paths if Path(path).is_file()],
    }
    return draft if draft["text"] or draft["files"] else None
