"""A visitor of the page without a browser: the same events over the same routes, many in one process."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ANSWER_SETTINGS = [64, 0.0, 1.0, 0, 1.0, 0]
CLIP_PART = [4, 0, 0]


class Refused(Exception):
    """The page said no, in this sentence."""


@dataclass(frozen=True)
class Layout:
    """Which of the page's functions is which, from its own description."""

    functions: dict[str, int]
    triggers: dict[str, int]

    @classmethod
    async def of(cls, client: httpx.AsyncClient) -> Layout:
        """Ask the page."""
        config = (await client.get("/config")).raise_for_status().json()
        ids = {part["props"].get("elem_id"): part["id"] for part in config["components"]}

        def triggered(elem_id: str, event: str) -> int:
            found = [d["id"] for d in config["dependencies"] if [ids[elem_id], event] in d["targets"]]
            return int(found[0])

        restore = next(d["id"] for d in config["dependencies"] if "haplo.open" in str(d.get("js")))
        after = [d for d in config["dependencies"] if d["trigger_after"] == restore and d["queue"]]
        functions = {
            "send": triggered("images-box", "submit"),
            "make": triggered("video-generate", "click"),
            "stop making": triggered("video-stop", "click"),
            "restore": restore,
            # of the outputs the clip's are the most
            "follow clip": max(after, key=lambda d: len(d["outputs"]))["id"],
        }
        return cls(functions, {"send": ids["images-box"], "make": ids["video-generate"]})


@dataclass
class Visitor:
    """One page load of one browser.

    Args:
        client: of the page's address.
        layout: of the page.
        owner: who the browser says it is.
    """

    client: httpx.AsyncClient
    layout: Layout
    owner: str = field(default_factory=lambda: secrets.token_hex(24))
    session: str = field(default_factory=lambda: secrets.token_hex(6))

    async def upload(self, file: Path, name: str | None = None) -> dict[str, Any]:
        """Upload a file as the box does."""
        files = {"files": (name or file.name, file.read_bytes())}
        answer = (await self.client.post("/gradio_api/upload", files=files)).raise_for_status()
        return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}

    async def load(self, **kept: Any) -> list[Any]:
        """What a load of the page does first, with what the browser kept."""
        return await self.last("restore", [json.dumps({"owner": self.owner, **kept})])

    async def last(self, function: str, data: list[Any]) -> list[Any]:
        """The last values of an event."""
        values: list[Any] = []
        async for message in self.events(function, data):
            if message["msg"] == "process_completed":
                values = message["output"]["data"]
        return values

    async def events(self, function: str, data: list[Any]) -> AsyncIterator[dict[str, Any]]:
        """Every message of an event; whoever reads no further has closed the tab.

        Raises:
            Refused: the page said no.
        """
        body = {
            "data": data,
            "fn_index": self.layout.functions[function],
            "session_hash": self.session,
            "trigger_id": self.layout.triggers.get(function),
        }
        joined = await self.client.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            raise Refused(str(joined.json().get("detail")))
        listening = f"/gradio_api/queue/data?session_hash={self.session}"
        async with self.client.stream("GET", listening, timeout=600) as stream:
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                message = json.loads(line.removeprefix("data:"))
                if message["msg"] == "process_completed" and not message["success"]:
                    raise Refused(str((message.get("output") or {}).get("error")))
                yield message
                if message["msg"] in ("process_completed", "close_stream"):
                    return

    def question(self, words: str, files: list[dict[str, Any]]) -> list[Any]:
        """The values that sending a first message takes."""
        return [{"text": words, "files": files}, None, *CLIP_PART, *ANSWER_SETTINGS]

    def clip(self, prompt: str, steps: int, seed: int) -> list[Any]:
        """The values that Generate takes: a small clip."""
        return [9, 64, 64, steps, 4.0, seed, False, prompt, "", False]


def clip_in(message: dict[str, Any]) -> str | None:
    """The path of the finished clip, in the message that brings it."""
    found = re.search(r'"path": "([^"]*haploomni-[0-9a-f]{32}\.mp4)"', json.dumps(message))
    return found[1] if found else None


def has_words(message: dict[str, Any]) -> bool:
    """Whether a message brings words of an answer."""
    return '"assistant"' in json.dumps(message.get("output", {}).get("data", ""))


def answer_in(values: list[Any]) -> str:
    """The words of the last message of the chat."""
    content = values[0][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text")
