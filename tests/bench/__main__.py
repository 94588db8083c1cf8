"""``python -m tests.bench``: each fast path against its named alternative, measured in the same run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


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


def row(name: str, fast: float, plain: float, unit: str, against: str) -> str:
    """A table row with both figures and their ratio."""
    return f"| {name} | {fast:.3g} {unit} | {plain:.3g} {unit} | {plain / max(fast, 1e-9):.2f}x | {against} |"


def bench_denoising(omni, repeats: int) -> list[str]:
    """One denoising step, time and peak memory: text prefix and no mask against the full sequence."""
    import torch

    from core.pipelines.guidance import PlainDenoiser, PrefixDenoiser
    from core.pipelines.text_to_video import generation_ids, latent_shape

    lines = []
    long_prompt = "a red circle moving left on a black background, " * 12
    for label, prompt, size in (("short prompt", "a red circle moving left", None), ("long prompt", long_prompt, None),
                                ("128x128x17", "a red circle moving left", (128, 128, 17))):  # fmt: skip
        given = {} if size is None else {"height": size[0], "width": size[1], "num_frames": size[2]}
        request = omni.video_request(prompt, **given)
        ids = [generation_ids(omni, text) for text in ("", prompt)]
        latents = torch.randn(latent_shape(request), device=omni.device)
        fast = PrefixDenoiser(omni.model, ids, 6.0)
        plain = PlainDenoiser(omni.model, ids, 6.0, omni.processor.tokenizer.pad_token_id)
        fast.predict(latents, 500), plain.predict(latents, 500)
        seconds = [best(lambda d=d, z=latents: d.predict(z, 500), repeats) for d in (fast, plain)]
        lines.append(row(f"denoising step, {label}", *(s * 1000 for s in seconds), "ms", "full sequence, dense mask"))
        memory = [peak_bytes(lambda d=d, z=latents: d.predict(z, 500)) for d in (fast, plain)]
        lines.append(row(f"its peak memory, {label}", *(m / 2**20 for m in memory), "MiB", "full sequence, dense mask"))
    return lines


def bench_chat(omni, repeats: int) -> list[str]:
    """Decoding with and without the cache, and the time to the first word."""
    import torch

    from core.pipelines.chat import Sampling, decode_steps, prepare

    picture = {"type": "image", "path": ROOT / "examples" / "media" / "heart.png"}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "Describe the picture."}]}]
    inputs = prepare(omni, messages)
    omni.model.generation_config.eos_token_id, kept = -1, omni.model.generation_config.eos_token_id
    count = 32

    def uncached() -> None:
        given = {k: v.to(omni.device) for k, v in inputs.items() if k not in ("attention_mask", "attention_start_ids")}
        ids = given.pop("input_ids")
        with torch.no_grad():
            for _ in range(count):
                token = omni.model(input_ids=ids, **given, logits_to_keep=1).logits[:, -1].argmax(-1, keepdim=True)
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
    own = omni.profile["generation"]
    label = f"{own['num_frames']} frames {own['width']}x{own['height']}, {own['num_inference_steps']} steps"
    return [row(f"first preview of a clip ({label})", first, whole, "s", "the finished clip")]


def bench_start() -> list[str]:
    """From the command to the page's answer, against importing Gradio and the model libraries alone."""
    import urllib.request

    libraries = best(
        lambda: subprocess.run([sys.executable, "-c", "import gradio, torch, transformers, diffusers"], check=True), 1
    )
    port = "7899"
    started = time.perf_counter()
    page = subprocess.Popen(
        [sys.executable, ROOT / "app.py", "--port", port], cwd=ROOT, env=dict(os.environ), stderr=-3, stdout=-3
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
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-page", action="store_true", help="leave out the page start")
    options = parser.parse_args(argv)
    from core import HaploOmni

    omni = HaploOmni.load(options.checkpoint, device=options.device)
    lines = [*bench_denoising(omni, options.repeats), *bench_chat(omni, options.repeats), *bench_clip(omni)]
    if not options.no_page:
        lines += bench_start()
    print("| what | ours | alternative | ratio | the alternative |\n|---|---|---|---|---|")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
