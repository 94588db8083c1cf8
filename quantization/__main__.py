"""``python -m quantization plan``: what fits on a machine, and why."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from operator import attrgetter
from typing import Any

from core.config import HaploOmniConfig
from core.devices import resolve_device
from core.errors import HaploOmniError, QuantizationError
from core.geometry import is_legal_length, is_legal_side
from quantization.bnb import fixed_weights
from quantization.hardware import detect, hypothetical_gpu, parse_size
from quantization.memory import Decoder, Model, Workload, costs
from quantization.modes import Hardware, MemoryPreference, Offload, Weights, current_offload_word
from quantization.planner import FRAMES, Infeasible, Plan, Planner, format_bytes


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m quantization plan``: a machine, a model, and what it should do there."""
    parser = argparse.ArgumentParser(prog="python -m quantization", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="the best way to run a model in some memory")
    plan.add_argument(
        "--gpu",
        default=None,
        help="memory of a card that need not be here, like 12GB; by default this machine",
    )
    plan.add_argument(
        "--no-bf16", action="store_true", help="that card is older than 2020 (T4, V100): fp16 only"
    )
    plan.add_argument(
        "--host", default=None, help="free main memory beside that card; by default this machine's"
    )
    plan.add_argument(
        "--checkpoint",
        default=None,
        help="folder or hub id whose shapes to plan for; by default the released 9B's",
    )
    plan.add_argument("--size", default="49x480x720", help="frames x height x width of a clip, in pixels")
    plan.add_argument("--chat", type=int, default=4096, help="tokens of a conversation, pictures included")
    plan.add_argument(
        "--memory", choices=[p.value for p in MemoryPreference], default=MemoryPreference.AUTO.value
    )
    plan.add_argument("--weights", choices=[w.value for w in Weights])
    plan.add_argument("--offload", choices=[o.value for o in Offload], type=current_offload_word)
    plan.add_argument("--json", action="store_true", help="for programs")
    return parser


def parse_workload(size: str, chat_tokens: int) -> Workload:
    """A workload from words, such as "49x480x720".

    Raises:
        QuantizationError: sizes that no clip can have.
    """
    try:
        frames, height, width = (int(number) for number in size.lower().split("x"))
    except ValueError:
        raise QuantizationError(
            f"--size is '{size}'; it must be frames x height x width, such as 49x480x720."
        ) from None
    if not (is_legal_side(height) and is_legal_side(width)):
        raise QuantizationError(f"{size} is not possible: both sides must be multiples of 16.")
    if not is_legal_length(frames):
        raise QuantizationError(
            f"{frames} frames are not possible: the autoencoder makes 1, 9, 17, 25 and so on."
        )
    if chat_tokens < 1:
        raise QuantizationError("A chat has at least one token.")
    return Workload.of_size(frames, height, width, chat_tokens)


def machine(options: argparse.Namespace) -> Hardware:
    """The hypothetical card, or this machine."""
    if MemoryPreference(options.memory) is MemoryPreference.CPU:
        return detect(resolve_device("cpu"))
    if options.gpu is None:
        return detect(resolve_device("auto"))
    host = None if options.host is None else parse_size(options.host)
    return hypothetical_gpu(parse_size(options.gpu), not options.no_bf16, host)


def what(options: argparse.Namespace) -> tuple[HaploOmniConfig, Decoder, dict[str, Any]]:
    """The released 9B or a checkpoint: its configuration, its autoencoder, and what the mode must have.

    Raises:
        CheckpointError: there is no such checkpoint, or its configuration describes no possible model.
        QuantizationError: it cannot be held as wanted.
    """
    fixed: dict[str, Any] = {}
    if options.offload:
        fixed["offload"] = Offload(options.offload)
    if options.checkpoint is None:
        if options.weights:
            fixed["weights"] = Weights(options.weights)
        return HaploOmniConfig(), Decoder(), fixed
    # here, since it brings everything that loads a checkpoint, which the released shapes do not need
    from core.weights.resolve import read_config, resolve_checkpoint

    folder = resolve_checkpoint(options.checkpoint, ["*.json"])
    config = read_config(folder)  # first: it tells a folder that is no checkpoint, or half of one
    decoder = Decoder.of_checkpoint(folder)
    fixed |= fixed_weights(folder, options.weights)
    return config, decoder, fixed


def table(planner: Planner, best: Plan) -> list[str]:
    """What the best plan's mode takes for every number of frames: a Markdown table."""
    lines = ["| frames | chat | denoising | decoding | main memory | fits |", "|---|---|---|---|---|---|"]
    for frames in reversed(FRAMES):
        # what this many frames cost in that mode, and whether another one is better for them
        one = replace(best.workload, clip=replace(best.workload.clip, num_frames=frames))
        cost = costs(planner.model, planner.decoder, best.mode, one)
        answer = planner.plan(one)
        how = "no"
        if isinstance(answer, Plan):
            how = "yes" if answer.mode == best.mode else f"as {answer.mode.describe()}"
        cells = [str(frames), *map(format_bytes, (cost.chat, cost.denoise, cost.decode, cost.host)), how]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def workload_as_data(workload: Workload) -> dict[str, Any]:
    """A workload as JSON for programs; sides are in pixels."""
    clip = workload.clip
    return {
        "frames": clip.num_frames,
        "height": clip.height,
        "width": clip.width,
        "chat_tokens": workload.chat_tokens,
        "guided": clip.is_guided,
    }


def as_data(answer: Plan | Infeasible, hardware: Hardware) -> dict[str, Any]:
    """A plan or refusal as JSON for programs, but for enums."""
    about = {
        "hardware": hardware.name,
        "free_bytes": hardware.free_bytes,
        "host_free_bytes": hardware.host_free_bytes,
    }
    if isinstance(answer, Infeasible):
        change = None if answer.change is None else workload_as_data(answer.change)
        return {"fits": False, **about, "reason": answer.reason, "advice": answer.advice, "change": change}
    return {
        "fits": True,
        **about,
        "mode": asdict(answer.mode),
        "request": workload_as_data(answer.workload),
        "bytes": {**asdict(answer.costs), "needed": answer.needed_bytes},
        "why": answer.why,
    }


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 with a plan; 2 with one sentence when nothing fits or an option is wrong."""
    options = build_parser().parse_args(argv)
    try:
        workload = parse_workload(options.size, options.chat)
        hardware = machine(options)
        config, decoder, fixed = what(options)
    except HaploOmniError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    planner = Planner(Model(config), decoder, hardware, MemoryPreference(options.memory), **fixed)
    answer = planner.plan(workload)
    if options.json:
        print(json.dumps(as_data(answer, hardware), indent=2, default=attrgetter("value")))  # noqa: T201
    elif isinstance(answer, Infeasible):
        print(answer)  # noqa: T201
    else:
        lines = [f"{hardware.name}: {answer.mode.describe()}", answer.why, "", *table(planner, answer)]
        print("\n".join(lines))  # noqa: T201
    return 2 if isinstance(answer, Infeasible) else 0


if __name__ == "__main__":
    sys.exit(main())
