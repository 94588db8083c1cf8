"""``python -m tests.bench.load``: fifty visitors for five minutes, and then two hundred who leave at once.

A mix of chats, clips, stops, reloads and broken uploads, drawn from a seed, on a program of its own.
Ends with 1 where an answer is about another visitor's picture, a clip differs from the same one alone,
something fails without a sentence, or the program does not answer afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from core.weights import bundled_checkpoint
from tests import ROOT
from tests.bench.visitor import Layout, Refused, Visitor, answer_in, clip_in, has_words

MEDIA = bundled_checkpoint().parents[1] / "media"
PICTURES = ("heart.png", "star.png", "ring.png", "three.png", "beside.png")
QUESTION = "Describe the picture."
PROMPTS = ("a red circle", "a blue star moving left", "a green ring")
ACTS = ("chat", "chat", "chat", "chat", "clip", "stop", "reload", "broken", "half an upload")
BUSY = ("jobs are waiting already", "of your jobs are", "Queue is full")
STEPS = 6
DROPPED = 200
ANSWER_WITHIN_S = 5.0


@dataclass
class Seen:
    """What all visitors saw."""

    acts: Counter[str] = field(default_factory=Counter)
    first_words_s: list[float] = field(default_factory=list)
    steps_s: list[float] = field(default_factory=list)
    busy: int = 0
    crossed: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass
class Expected:
    """What the program says and makes with one visitor alone."""

    answers: dict[str, str] = field(default_factory=dict)
    clips: dict[str, bytes] = field(default_factory=dict)


async def chat(visitor: Visitor, picture: str, seen: Seen | None) -> str:
    """Ask about a picture; the answer."""
    file = await visitor.upload(MEDIA / picture)
    asked_s = time.monotonic()
    waited_s: float | None = None
    said = ""
    async for message in visitor.events("send", visitor.question(QUESTION, [file])):
        if waited_s is None and has_words(message):
            waited_s = time.monotonic() - asked_s
        if message["msg"] == "process_completed":
            said = answer_in(message["output"]["data"])
    if seen is not None and waited_s is not None:
        seen.first_words_s.append(waited_s)
    return said


async def fetch(visitor: Visitor, path: str | None) -> bytes:
    """The bytes of a finished clip."""
    if path is None:
        raise Refused("no clip came")
    return (await visitor.client.get(f"/gradio_api/file={path}")).raise_for_status().content


async def made_clip(visitor: Visitor, prompt: str, seen: Seen | None) -> bytes:
    """Make a clip; its bytes."""
    before_s: float | None = None
    path = None
    async for message in visitor.events("make", visitor.clip(prompt, STEPS, seed=1)):
        path = clip_in(message) or path
        if message["msg"] == "process_generating" and "Step" in str(message["output"]["data"][0]):
            now_s = time.monotonic()
            if seen is not None and before_s is not None:
                seen.steps_s.append(now_s - before_s)
            before_s = now_s
    return await fetch(visitor, path)


async def left_clip(visitor: Visitor, prompt: str, messages: int) -> dict:
    """Begin a clip and close the tab after so many messages; its ticket."""
    ticket: dict = {}
    count = 0
    async for message in visitor.events("make", visitor.clip(prompt, STEPS, seed=1)):
        if message["msg"] == "process_generating":
            ticket = ticket or message["output"]["data"][-1]
            count += 1
            if count >= messages:
                break
    return ticket


async def followed_clip(visitor: Visitor, ticket: dict) -> bytes:
    """What a ticket's clip becomes, in a page that is loaded anew."""
    await visitor.load(**{"video.kept": [ticket]})
    path = None
    async for message in visitor.events("follow clip", [ticket]):
        path = clip_in(message) or path
    return await fetch(visitor, path)


async def act(name: str, visitor: Visitor, rng: random.Random, seen: Seen, expected: Expected) -> None:
    """One thing that a visitor does."""
    if name == "chat":
        picture = rng.choice(PICTURES)
        said = await chat(visitor, picture, seen)
        if said != expected.answers[picture]:
            seen.crossed.append(f"{picture}: {said!r}")
        return
    prompt = rng.choice(PROMPTS)
    if name == "clip":
        made = await made_clip(visitor, prompt, seen)
        if made != expected.clips[prompt]:
            seen.crossed.append(f"clip of {prompt}")
    elif name == "stop":
        ticket = await left_clip(visitor, prompt, 1)
        await visitor.last("stop making", [ticket])
    elif name == "reload":
        ticket = await left_clip(visitor, prompt, rng.randrange(1, 5))
        made = await followed_clip(Visitor(visitor.client, visitor.layout, visitor.owner), ticket)
        if made != expected.clips[prompt]:
            seen.crossed.append(f"reloaded clip of {prompt}")
    elif name == "broken":
        with tempfile.NamedTemporaryFile(suffix=".png") as broken:
            broken.write(rng.randbytes(200))
            broken.flush()
            file = await visitor.upload(Path(broken.name), "photo.png")
        try:
            await visitor.last("send", visitor.question(QUESTION, [file]))
            seen.failures.append("a broken picture was answered")
        except Refused as refusal:
            if "photo.png" not in str(refusal):
                seen.failures.append(f"broken picture: {refusal}")
    else:
        await half_an_upload(visitor.client)


async def half_an_upload(client: httpx.AsyncClient) -> None:
    """Begin to upload and leave."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        '--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nhalf'
    )
    writer.write(head.encode())
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()
    del reader


async def visit(
    number: int, until_s: float, args: argparse.Namespace, seen: Seen, expected: Expected
) -> None:
    """One visitor, from the beginning to the end."""
    rng = random.Random(args.seed * 1000 + number)
    limits = httpx.Limits(max_connections=6)  # as a browser
    async with httpx.AsyncClient(base_url=args.url, timeout=120, limits=limits, trust_env=False) as client:
        layout = await Layout.of(client)
        owner = f"{number:048x}"
        while time.monotonic() < until_s:
            visitor = Visitor(client, layout, owner)
            await visitor.load()
            name = rng.choice(ACTS)
            try:
                await act(name, visitor, rng, seen, expected)
                seen.acts[name] += 1
            except Refused as refusal:
                if any(words in str(refusal) for words in BUSY):
                    seen.busy += 1
                else:
                    seen.failures.append(f"{name}: {refusal}")
            except (httpx.HTTPError, KeyError, IndexError, TypeError) as error:
                seen.failures.append(f"{name}: {type(error).__name__} {error}")
            await asyncio.sleep(rng.expovariate(1 / args.pause))


async def leave_at_once(args: argparse.Namespace) -> float:
    """Two hundred questions whose tabs are closed at once; seconds to the next visitor's answer."""
    async with httpx.AsyncClient(base_url=args.url, timeout=120, trust_env=False) as client:
        layout = await Layout.of(client)

        async def come_and_go(number: int) -> None:
            visitor = Visitor(client, layout)
            try:
                async for _ in visitor.events("send", visitor.question("Who are you?", [])):
                    return
            except Refused:
                return  # the line is full, as it should be
            finally:
                del number

        for begin in range(0, DROPPED, 20):
            await asyncio.gather(*(come_and_go(begin + number) for number in range(20)))
        began_s = time.monotonic()
        while True:
            try:
                await chat(Visitor(client, layout), PICTURES[0], None)
                return time.monotonic() - began_s
            except Refused:
                if time.monotonic() - began_s > 60:
                    return float("inf")
                await asyncio.sleep(0.1)


async def alone(args: argparse.Namespace) -> Expected:
    """What one visitor gets."""
    expected = Expected()
    async with httpx.AsyncClient(base_url=args.url, timeout=120, trust_env=False) as client:
        layout = await Layout.of(client)
        for picture in PICTURES:
            expected.answers[picture] = await chat(Visitor(client, layout), picture, None)
        for prompt in PROMPTS:
            expected.clips[prompt] = await made_clip(Visitor(client, layout), prompt, None)
    return expected


def start(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """The program with folders of its own, answering; its address."""
    from tests.browser.newcomer import free_port, wait_for

    port = free_port()
    environ = {**os.environ, "TMPDIR": str(folder / "tmp"), "XDG_STATE_HOME": str(folder / "state")}
    (folder / "tmp").mkdir()
    command = [sys.executable, "app.py", "--port", str(port), "--device", "cpu", "--max-queue", "64"]
    process = subprocess.Popen(command, cwd=ROOT, env=environ)
    wait_for(f"http://127.0.0.1:{port}", process)
    return process, f"http://127.0.0.1:{port}"


def percentiles(values: list[float]) -> str:
    """The middle, nine of ten, and all but one of a hundred, in seconds."""
    if len(values) < 2:
        return "too few"
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49]:.2f} s, p90 {cuts[89]:.2f} s, p99 {cuts[98]:.2f} s ({len(values)})"


async def crowd(args: argparse.Namespace, seen: Seen, expected: Expected) -> None:
    """All visitors at once."""
    until_s = time.monotonic() + 60 * args.minutes
    await asyncio.gather(*(visit(number, until_s, args, seen, expected) for number in range(args.visitors)))


def main() -> int:
    """Run the load and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--pause", type=float, default=8.0, help="seconds between two acts, on the average")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="haploomni-load-") as name:
        folder = Path(name)
        process, args.url = start(folder)
        try:
            program = psutil.Process(process.pid)
            expected = asyncio.run(alone(args))
            before = program.memory_info().rss
            asyncio.run(crowd(args, seen, expected))
            after = program.memory_info().rss
            left_s = asyncio.run(leave_at_once(args))
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(timeout=60)
        left = [path for path in (folder / "tmp").rglob("*") if path.is_file()]
    print(
        f"{args.visitors} visitors, {args.minutes:g} min: {dict(sorted(seen.acts.items()))}, busy {seen.busy}"
    )
    print(f"first word {percentiles(seen.first_words_s)}")
    print(f"step of a clip {percentiles(seen.steps_s)}")
    print(f"memory {before / 2**20:.0f} MiB, afterwards {(after - before) / 2**20:+.0f} MiB")
    print(f"after {DROPPED} dropped streams an answer in {left_s:.1f} s")
    print(f"temporary files left: {len(left)}; exit code {code}")
    print(f"crossed {len(seen.crossed)}, failures {len(seen.failures)}")
    for line in [*seen.crossed, *seen.failures][:20]:
        print(f"  {line}")
    good = not (seen.crossed or seen.failures or left or code) and left_s <= ANSWER_WITHIN_S
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
