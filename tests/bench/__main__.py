"""``python -m tests.bench``: each fast path against its named alternative, measured in the same run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

from tests import ROOT
from tests.bench.batched import bench_batched
from tests.bench.reading import bench_reading
from tests.bench.table import row
from tests.bench.threads import bench_threads
from tests.bench.turns import bench_turns


def best(work: Callable[[], object], repeats: int) -> float:
    """The shortest of several times, in seconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory that tensors made during ``work`` held at once, from the allocator's own events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def bench_denoising(omni, repeats: int) -> list[str]:
    """One denoising step, time and peak memory: text prefix and no mask against the full sequence."""
    import torch

    from core.pipelines.guidance import CachedPromptDenoiser, ReferenceDenoiser
    from core.pipelines.text_to_video import encode_prompt

    lines = []
    prompt = "a red circle moving left"
    long_prompt = "a red circle moving left on a black background, " * 12
    requests = {
        "short prompt": omni.video_request(prompt),
        "long prompt": omni.video_request(long_prompt),
        "17x128x128": omni.video_request(prompt, height=128, width=128, num_frames=17),
    }
    for label, request in requests.items():
        ids = [encode_prompt(omni, text) for text in ("", request.prompt)]
        latents = torch.randn(request.latent_shape, device=omni.device)
        fast = CachedPromptDenoiser(omni.model, ids, 6.0)
        plain = ReferenceDenoiser(omni.model, ids, 6.0, omni.processor.tokenizer.pad_token_id)
        # once before the clock runs, then time and memory of both
        fast.predict(latents, 500)
        plain.predict(latents, 500)
        seconds = [best(lambda d=d, z=latents: d.predict(z, 500), repeats) for d in (fast, plain)]
        lines.append(
            row(f"denoising step, {label}", *(s * 1000 for s in seconds), "ms", "full sequence, dense mask")
        )
        memory = [peak_bytes(lambda d=d, z=latents: d.predict(z, 500)) for d in (fast, plain)]
        lines.append(
            row(f"its peak memory, {label}", *(m / 2**20 for m in memory), "MiB", "full sequence, dense mask")
        )
    return lines


def bench_chat(omni, repeats: int) -> list[str]:
    """Decoding with and without the cache, and the time to the first word."""
    import torch

    from core.pipelines.chat import decode_steps, prepare
    from core.requests import Sampling

    picture = {"type": "image", "path": ROOT / "examples" / "media" / "heart.png"}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "Describe the picture."}]}]
    inputs = prepare(omni, messages)
    kept = omni.model.generation_config.eos_token_id
    omni.model.generation_config.eos_token_id = -1  # no answer ends early
    count = 32

    def uncached() -> None:
        """The whole text again for every token."""
        given = {
            k: v.to(omni.device)
            for k, v in inputs.items()
            if k not in ("attention_mask", "attention_start_ids")
        }
        ids = given.pop("input_ids")
        with torch.no_grad():
            for _ in range(count):
                token = (
                    omni.model(input_ids=ids, **given, logits_to_keep=1)
                    .logits[:, -1]
                    .argmax(-1, keepdim=True)
                )
                ids = torch.cat([ids, token], dim=1)

    try:
        cached = best(lambda: list(decode_steps(omni, inputs, Sampling(count), count)), repeats)
        plain = best(uncached, repeats)
    finally:
        omni.model.generation_config.eos_token_id = kept
    first = best(lambda: next(iter(omni.chat(messages))), repeats)
    whole = best(lambda: list(omni.chat(messages)), repeats)
    return [
        row(f"{count} tokens of chat", cached * 1000, plain * 1000, "ms", "no key-value cache"),
        row("first word about a picture", first * 1000, whole * 1000, "ms", "waiting for the whole answer"),
    ]


def bench_clip(omni) -> list[str]:
    """Seconds to the first preview and to the finished clip."""
    started = time.perf_counter()
    stream = omni.text_to_video("a red circle moving left on a black background", seed=1)
    next(stream)
    first = time.perf_counter() - started
    for _ in stream:
        pass
    whole = time.perf_counter() - started
    own = asdict(omni.profile.generation)
    label = f"{own['num_frames']} frames {own['width']}x{own['height']}, {own['num_inference_steps']} steps"
    return [row(f"first preview of a clip ({label})", first, whole, "s", "the finished clip")]


def bench_start() -> list[str]:
    """From the command to the page's answer, against importing Gradio and the model libraries alone."""
    import urllib.request

    libraries = best(
        lambda: subprocess.run(
            [sys.executable, "-c", "import gradio, torch, transformers, diffusers"], check=True
        ),
        1,
    )
    port = "7899"
    started = time.perf_counter()
    page = subprocess.Popen(
        [sys.executable, ROOT / "app.py", "--port", port],
        cwd=ROOT,
        env=dict(os.environ),
        stderr=-3,
        stdout=-3,
    )
    try:
        while page.poll() is None and time.perf_counter() - started < 300:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        answered = time.perf_counter() - started
    finally:
        page.terminate()
        page.wait(30)
    return [row("page start until it answers", answered, libraries, "s", "importing its libraries alone")]


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-page", action="store_true", help="leave out the page start")
    parser.add_argument("--no-threads", action="store_true", help="leave out two threads on a busy machine")
    options = parser.parse_args(argv)
    from core import HaploOmni

    omni = HaploOmni.load(options.checkpoint, device=options.device)
    lines = [*bench_denoising(omni, options.repeats), *bench_chat(omni, options.repeats)]
    lines += [*bench_clip(omni), *bench_turns(omni), *bench_batched(omni, options.repeats)]
    lines += bench_reading(omni, options.repeats)
    if not options.no_page:
        lines += bench_start()
    if not options.no_threads:
        lines += bench_threads()
    print("| what | ours | alternative | ratio | the alternative |\n|---|---|---|---|---|")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
