"""``python -m quantization plan``: what fits on a machine, and why."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from typing import Any

from core.config import HaploOmniConfig
from core.devices import resolve_device
from quantization.bnb import fixed_weights
from quantization.errors import QuantizationError
from quantization.files import find_checkpoint
from quantization.hardware import detect, imagined_gpu, parse_size
from quantization.memory import Decoder, Model, Request, costs
from quantization.modes import Hardware, Offload, Preference, Weights
from quantization.planner import FRAMES, Plan, Planner, Refusal, gib


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m quantization", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="the best way to run a model in some memory")
    plan.add_argument("--gpu", default=None, help="memory of an imagined card, like 12GB; by default this machine as it is")
    plan.add_argument("--no-bf16", action="store_true", help="the imagined card is older than 2020 (T4, V100): fp16 only")
    plan.add_argument("--host", default=None, help="free main memory beside the imagined card; by default this machine's")
    plan.add_argument(
        "--checkpoint", default=None, help="folder or hub id whose shapes to plan for; by default the released 9B's"
    )
    plan.add_argument("--frames", type=int, default=49)
    plan.add_argument("--size", default="480x720", help="height x width in pixels")
    plan.add_argument("--chat", type=int, default=4096, help="tokens of a conversation, pictures included")
    plan.add_argument("--memory", choices=[p.value for p in Preference], default=Preference.AUTO.value)
    plan.add_argument("--weights", choices=[w.value for w in Weights])
    plan.add_argument("--offload", choices=[o.value for o in Offload])
    plan.add_argument("--json", action="store_true", help="for programs")
    return parser


def parse_request(frames: int, size: str, chat: int) -> Request:
    """A request from words.

    Raises:
        QuantizationError: sizes that no clip can have.
    """
    try:
        height, width = (int(side) for side in size.lower().split("x"))
    except ValueError:
        raise QuantizationError(f"'{size}' is no size; write height x width, like 480x720.") from None
    if height % 16 or width % 16 or min(height, width) < 16:
        raise QuantizationError(f"{size} is not possible: both sides must be multiples of 16.")
    if frames < 1 or (frames - 1) % 8:
        raise QuantizationError(f"{frames} frames are not possible: the autoencoder makes 1, 9, 17, 25 and so on.")
    if chat < 1:
        raise QuantizationError("A chat has at least one token.")
    return Request(frames, height, width, chat)


def machine(options: argparse.Namespace) -> Hardware:
    """The imagined card, or this machine."""
    preference = Preference(options.memory)
    if options.gpu is None or preference is Preference.CPU:
        return detect(resolve_device("cpu" if preference is Preference.CPU else "auto"))
    host = None if options.host is None else parse_size(options.host)
    return imagined_gpu(parse_size(options.gpu), not options.no_bf16, host)


def what(options: argparse.Namespace) -> tuple[HaploOmniConfig, Decoder, dict[str, Any]]:
    """The released 9B or a checkpoint: its configuration, its autoencoder, and what of the mode is not free.

    Raises:
        QuantizationError: there is no such checkpoint, or it cannot be held as wanted.
        ValueError: its configuration describes no possible model.
    """
    offload = {"offload": Offload(options.offload)} if options.offload else {}
    if options.checkpoint is None:
        weights = {"weights": Weights(options.weights)} if options.weights else {}
        return HaploOmniConfig(), Decoder(), {**weights, **offload}
    folder = find_checkpoint(options.checkpoint, only_config=True)
    return (
        HaploOmniConfig.from_pretrained(folder),
        Decoder.of_checkpoint(folder),
        {**fixed_weights(folder, options.weights), **offload},
    )


def table(planner: Planner, best: Plan) -> list[str]:
    """What the best plan takes for every number of frames, for people."""
    lines = ["| frames | chat | denoising | decoding | main memory | fits |", "|---|---|---|---|---|---|"]
    for frames in reversed(FRAMES):
        one = replace(best.request, frames=frames)
        cost = costs(planner.model, planner.decoder, best.mode, one)
        answer = planner.plan(one)
        how = "no" if isinstance(answer, Refusal) else "yes" if answer.mode == best.mode else f"as {answer.mode.describe()}"
        lines.append(f"| {frames} | {gib(cost.chat)} | {gib(cost.denoise)} | {gib(cost.decode)} | {gib(cost.host)} | {how} |")
    return lines


def as_data(answer: Plan | Refusal, hardware: Hardware) -> dict[str, Any]:
    """A plan or refusal for programs."""
    about = {"hardware": hardware.name, "free_bytes": hardware.free_bytes, "host_free_bytes": hardware.host_free_bytes}
    if isinstance(answer, Refusal):
        change = None if answer.change is None else vars(answer.change)
        return {"fits": False, **about, "reason": answer.reason, "advice": answer.advice, "change": change}
    mode = {name: getattr(value, "value", value) for name, value in vars(answer.mode).items()} | {"tile": vars(answer.mode.tile)}
    return {
        "fits": True,
        **about,
        "mode": mode,
        "request": vars(answer.request),
        "bytes": {**vars(answer.costs), "needed": answer.needed_bytes},
        "why": answer.why,
    }


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 with a plan; 2 with one sentence when nothing fits or an option is wrong."""
    options = build_parser().parse_args(argv)
    try:
        request, hardware = parse_request(options.frames, options.size, options.chat), machine(options)
        config, decoder, fixed = what(options)
    except (QuantizationError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    planner = Planner(Model(config), decoder, hardware, Preference(options.memory), **fixed)
    answer = planner.plan(request)
    if options.json:
        print(json.dumps(as_data(answer, hardware), indent=2))  # noqa: T201
    elif isinstance(answer, Refusal):
        print(answer)  # noqa: T201
    else:
        print("\n".join([f"{hardware.name}: {answer.mode.describe()}", answer.why, "", *table(planner, answer)]))  # noqa: T201
    return 2 if isinstance(answer, Refusal) else 0


if __name__ == "__main__":
    sys.exit(main())
