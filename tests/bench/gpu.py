"""``python -m tests.bench.gpu``: the 9B shapes on a CUDA card, measured beside the planner's prediction.

Random weights are written first (19 GB, once).
Every line of the table is measured in a process of its own, and kept in a JSON Lines file.
So a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

GIB = 2**30
CAPS = (0, 8, 12, 16, 24)  # GiB; 0: the whole card
MODES = (
    "full/none",
    "int8/none",
    "nf4/none",
    "nf4-double/none",
    "nf4/embeddings",
    "nf4/model",
    "nf4/sequential",
    "full/sequential",
)
CHAT_TOKENS = 1024
SIZE = {"height": 480, "width": 720}


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m tests.bench.gpu``."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/gpu"), help="folder of the random checkpoint and the results"
    )
    parser.add_argument("--one", help="measure one line here: weights/offload, or a cap in GiB")
    parser.add_argument("--steps", type=int, default=2, help="denoising steps to time")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    options = build_parser().parse_args(argv)
    if not torch.cuda.is_available():
        print("This needs a CUDA card.", file=sys.stderr)
        return 2
    if options.one:
        print(json.dumps(measure(options.work / "9b", options.one, options.steps)))
        return 0
    if not (options.work / "9b" / "config.json").is_file():
        writing = [sys.executable, "-m", "quantization.random_checkpoint", "--out", str(options.work / "9b")]
        subprocess.run([*writing, "--force"], check=True)
    results = options.work / "results.jsonl"
    known = {row["line"] for row in rows_of(results)}
    for line in [*MODES, *(f"cap {cap}" for cap in CAPS)]:
        if line not in known:
            again = [sys.executable, "-m", "tests.bench.gpu", "--work", str(options.work), "--one", line]
            done = subprocess.run(
                [*again, "--steps", str(options.steps)], capture_output=True, text=True, check=False
            )
            row = {"line": line, "error": done.stderr[-400:]}
            if done.returncode == 0:
                row = json.loads(done.stdout.splitlines()[-1])
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    print("\n".join(table(rows_of(results))))
    return 0


def rows_of(file: Path) -> list[dict[str, Any]]:
    """What was measured so far."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown; measured / predicted, in GiB."""
    keys = ("weights", "chat", "denoise 9", "denoise 49", "decode 9", "decode 49")
    lines = ["| | load s | " + " | ".join(keys) + " | tokens/s | s/step 9 | s/step 49 | decode s 49 |"]
    lines.append("|---" * (len(keys) + 6) + "|")
    for row in rows:
        if "error" in row:
            *_, last = ["failed", *row["error"].strip().splitlines()]
            lines.append(f"| {row['line']} | {last} |")
            continue
        cells = [f"{row['measured'][key] / GIB:.1f} / {row['predicted'][key] / GIB:.1f}" for key in keys]
        times = [f"{row['times'][key]:.2f}" for key in ("tokens/s", "s/step 9", "s/step 49", "decode s 49")]
        lines.append(
            f"| {row['line']}: {row['mode']} | {row['times']['load']:.0f} | {' | '.join([*cells, *times])} |"
        )
    return lines


def measure(folder: Path, line: str, steps: int) -> dict[str, Any]:
    """One line: load, chat, denoise and decode, with the peak of each."""
    from core import HaploOmni
    from core.config import HaploOmniConfig
    from core.pipelines.guidance import Guidance
    from core.weights import LoadOptions
    from quantization import apply
    from quantization.bnb import quantization_config
    from quantization.hardware import detect
    from quantization.memory import Decoder, Model, Workload, costs
    from quantization.modes import ExecutionMode, Offload, Weights
    from quantization.planner import Plan, Planner

    device = torch.device("cuda", 0)
    model = Model(HaploOmniConfig())
    decoder = Decoder()
    # the mode: as the line says, or what the planner takes in so much of the card
    workload = Workload.of_size(chat_tokens=CHAT_TOKENS, **SIZE)
    if line.startswith("cap"):
        hardware = detect(device)
        cap = int(line.split()[1]) * GIB
        if cap:
            torch.cuda.set_per_process_memory_fraction(min(1.0, cap / hardware.total_bytes), device)
            hardware = replace(hardware, free_bytes=min(cap, hardware.free_bytes))
        plan = Planner(model, decoder, hardware).plan_or_less(workload)
        if not isinstance(plan, Plan):
            raise SystemExit(str(plan))
        mode = plan.mode
    else:
        weights, offload = line.split("/")
        mode = ExecutionMode(weights=Weights(weights), offload=Offload(offload))
    # loading, then every job beside its prediction
    how = quantization_config(model.config, mode.weights, mode.precision)
    load_options = LoadOptions(how, apply.load_device(mode, device), partial(apply.dispatch, mode))
    started = time.monotonic()
    omni = HaploOmni.load(folder, "cuda", "bfloat16", None, load_options)
    omni.guidance = Guidance(mode.guidance.value)
    times: dict[str, float] = {"load": time.monotonic() - started}
    measured: dict[str, float] = {"weights": torch.cuda.memory_allocated()}
    measured["chat"], times["tokens/s"] = chat(omni)
    predicted = {"weights": float(sum(costs(model, decoder, mode, workload).weights.values()))}
    predicted["chat"] = costs(model, decoder, mode, workload).chat
    for frames in (9, 49):
        cost = costs(model, decoder, mode, Workload.of_size(frames, chat_tokens=CHAT_TOKENS, **SIZE))
        measured[f"denoise {frames}"], times[f"s/step {frames}"] = denoise(omni, frames, steps)
        measured[f"decode {frames}"], times[f"decode s {frames}"] = decode(omni, frames)
        predicted |= {f"denoise {frames}": cost.denoise, f"decode {frames}": cost.decode}
    return {
        "line": line,
        "mode": mode.describe(),
        "measured": measured,
        "predicted": predicted,
        "times": times,
    }


def peak_of(work: Any) -> tuple[float, float]:
    """(bytes at the worst moment, seconds) of a piece of work."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    work()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated()), time.monotonic() - started


@torch.no_grad()
def chat(omni: Any) -> tuple[float, float]:
    """Peak of reading 1024 tokens and writing 16, and tokens a second of the writing."""
    from transformers import DynamicCache

    cache = DynamicCache()
    ids = torch.randint(0, 500, (1, CHAT_TOKENS), device=omni.device)
    peak, _ = peak_of(lambda: omni.model(input_ids=ids, cache=cache, logits_to_keep=1))

    def write() -> None:
        """16 tokens, one after the other."""
        for number in range(16):
            mask = torch.ones(1, CHAT_TOKENS + number + 1, dtype=torch.long, device=omni.device)
            omni.model(input_ids=ids[:, :1], attention_mask=mask, cache=cache, logits_to_keep=1)

    more, seconds = peak_of(write)
    return max(peak, more), 16 / seconds


def denoise(omni: Any, frames: int, steps: int) -> tuple[float, float]:
    """Peak and seconds of a denoising step with guidance."""
    from core.pipelines.guidance import CachedPromptDenoiser

    denoiser = CachedPromptDenoiser(omni.model, [[5] * 226, [6] * 226], 6.0)
    latents = torch.randn(
        1, (frames - 1) // 4 + 1, 16, SIZE["height"] // 8, SIZE["width"] // 8, device=omni.device
    )
    denoiser.predict(latents, 999, omni.guidance)

    def run() -> None:
        for _ in range(steps):
            denoiser.predict(latents, 500, omni.guidance)

    peak, seconds = peak_of(run)
    return peak, seconds / steps


def decode(omni: Any, frames: int) -> tuple[float, float]:
    """Peak and seconds of decoding."""
    from core.pipelines.text_to_video import decode as decode_latents

    latents = torch.randn(
        1, (frames - 1) // 4 + 1, 16, SIZE["height"] // 8, SIZE["width"] // 8, device=omni.device
    )
    return peak_of(lambda: decode_latents(omni, latents))


if __name__ == "__main__":
    sys.exit(main())
