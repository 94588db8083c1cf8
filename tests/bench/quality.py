"""``python -m tests.bench.quality``: what quantization costs in answers, clips and noise predictions.

The bundled model in bfloat16, int8, nf4 and nf4 with double quantization gets the same questions and prompts.
Then single blocks of the released shapes with random weights, and each of their matrices, quantized and not.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys

import torch
from torch import Tensor

WEIGHTS = ("full", "int8", "nf4", "nf4-double")
STEPS = (999, 700, 400, 100)


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m tests.bench.quality``."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.quality", description=__doc__)
    parser.add_argument("--checkpoint", default=None)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--questions", type=int, default=20, help="of every kind (0: none, blocks alone)")
    parser.add_argument("--clips", type=int, default=24, help="of one object (0: none)")
    parser.add_argument("--tokens", type=int, default=64, help="that pass each block")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure and print: scores and noise predictions of the model, errors of single blocks and matrices."""
    options = build_parser().parse_args(argv)
    if options.questions:
        print("\n".join(score_tables(options)))
    print("\n".join(block_tables(options.tokens)))
    return 0


def score_tables(options: argparse.Namespace) -> list[str]:
    """Answers and clips side by side, and noise predictions."""
    columns = {}
    noise = {}
    for weights in WEIGHTS:
        omni = load(options.checkpoint, options.device, weights)
        own = omni.profile.generation.guidance_scale
        noise[weights] = {scale: predictions(omni, scale) for scale in (1.0, own)}
        columns[weights] = measured_answers(omni, options.questions, options.clips)
        print(f"{weights}: done", file=sys.stderr)
    return [*side_by_side(columns), "", *noise_table(noise), ""]


def load(checkpoint: str | None, device: str, weights: str):  # type: ignore[no-untyped-def]
    """The model in bfloat16 with these weights."""
    from app.engine.memory import plan_memory
    from app.settings import Settings
    from core import HaploOmni

    settings = Settings(checkpoint=checkpoint, device=device, dtype="bfloat16", weights=weights)
    memory = plan_memory(settings)
    omni = HaploOmni.load(checkpoint, device, memory.dtype, None, memory.load_options())
    memory.attach(omni)
    return omni


def measured_answers(omni, questions: int, clips: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """{kind: share right}."""
    from core.evaluation.answers import QuestionSet, evaluate_answers
    from core.evaluation.clips import evaluate_generation, single_scenes

    shares = {
        kind: right / total
        for kind, (right, total) in evaluate_answers(omni, questions, QuestionSet(0, True)).items()
    }
    if clips:
        counts, _ = evaluate_generation(omni, single_scenes(random.Random(0), True), clips, 0)
        shares |= {f"clips: {kind}": right / total for kind, (right, total) in counts.items()}
    return shares


def predictions(omni, guidance_scale: float) -> Tensor:  # type: ignore[no-untyped-def]
    """Velocities of a few prompts and times, [N, ...]; a scale of 1 is no guidance."""
    from core.pipelines.guidance import CachedPromptDenoiser
    from core.pipelines.text_to_video import encode_prompt

    made = []
    for number, text in enumerate(
        ("a red circle moving left on a black background", "a blue star on a gray background")
    ):
        ids = [encode_prompt(omni, words) for words in ("", text)]
        noise = torch.randn(
            omni.video_request(text).latent_shape, generator=torch.Generator().manual_seed(number)
        )
        denoiser = CachedPromptDenoiser(omni.model, ids, guidance_scale)
        made += [denoiser.predict(noise.to(omni.device), step).cpu() for step in STEPS]
    return torch.cat(made)


def side_by_side(columns: dict[str, dict[str, float]]) -> list[str]:
    """Shares right, a column for each kind of weights."""
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for kind in columns["full"]:
        lines.append(
            f"| {kind.replace('_', ' ')} | "
            + " | ".join(f"{column[kind]:.2f}" for column in columns.values())
            + " |"
        )
    return lines


def error(made: Tensor, truth: Tensor) -> float:
    """Relative, in the Euclidean norm."""
    return float((made.float() - truth.float()).norm() / truth.float().norm())


def noise_table(noise: dict[str, dict[float, Tensor]]) -> list[str]:
    """How far noise predictions lie from those of full weights, by guidance."""
    full = noise["full"]
    lines = [
        "| noise prediction | " + " | ".join(f"guidance {scale:g}" for scale in full) + " |",
        "|---" * (len(full) + 1) + "|",
    ]
    made = {
        weights: [error(by_scale[scale], full[scale]) for scale in full]
        for weights, by_scale in noise.items()
    }
    return lines + [row(weights, cells) for weights, cells in made.items() if weights != "full"]


@torch.no_grad()
def block_tables(tokens: int) -> list[str]:
    """One random block of every part of the released model, and each of its matrices, against float32."""
    from core.config import HaploOmniConfig
    from core.layers import FullAttention
    from core.layers.rotary import rotary_table
    from core.model.decoder import Block

    config = HaploOmniConfig()
    lines = ["| random block | bf16 | int8 | nf4 | nf4-double |", "|---|---|---|---|---|"]
    layers = ["", "| its matrix | bf16 | int8 | nf4 | nf4-double |", "|---|---|---|---|---|"]
    for name in ("pre", "base", "post"):
        part = config.part(name)
        torch.manual_seed(0)
        block = Block(part, 0).eval()
        for matrix in (module for module in block.modules() if isinstance(module, torch.nn.Linear)):
            torch.nn.init.normal_(matrix.weight, std=config.initializer_range)
        # what the block adds to its input in float32
        given = torch.randn(1, tokens, part.hidden_size)  # (1, S, D)
        rotary = half_rotary = None
        if part.use_pe:
            rotary = rotary_table(torch.arange(tokens)[None], part.head_dim, part.rope_theta, torch.float32)
            half_rotary = tuple(table.to(torch.bfloat16) for table in rotary)
        truth = block(given, rotary, FullAttention(None, True)) - given

        # and in bfloat16, with full and with quantized matrices
        half = copy.deepcopy(block).to(torch.bfloat16)
        smaller = {"bf16": half} | {weights: quantized(half, weights) for weights in WEIGHTS[1:]}
        cells = [
            error(b(given.to(torch.bfloat16), half_rotary, FullAttention(None, True)).float() - given, truth)
            for b in smaller.values()
        ]
        lines.append(row(f"{name} ({part.hidden_size} wide)", cells))
        # every matrix alone
        for matrix, module in block.named_modules():
            if quantizable(matrix, module):
                seen = torch.randn(tokens, module.in_features)
                right = module(seen)
                cells = [
                    error(b.get_submodule(matrix)(seen.to(torch.bfloat16)), right) for b in smaller.values()
                ]
                layers.append(
                    row(f"{name} {matrix.split('.')[-1]} {module.in_features} x {module.out_features}", cells)
                )
    return lines + layers


def row(name: str, cells: list[float]) -> str:
    """A table's row of errors."""
    return f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |"


def quantizable(name: str, module: torch.nn.Module) -> bool:
    """The seven matrices of a block."""
    return isinstance(module, torch.nn.Linear) and not name.endswith("indicator")


def quantized(block: torch.nn.Module, weights: str) -> torch.nn.Module:
    """A copy whose matrices are quantized."""
    import bitsandbytes as bnb

    from quantization.bnb import four_bit_linear
    from quantization.modes import Weights

    made = copy.deepcopy(block)
    for name, module in list(made.named_modules()):
        if not quantizable(name, module):
            continue
        if weights == "int8":
            small = bnb.nn.Linear8bitLt(
                module.in_features, module.out_features, has_fp16_weights=False, threshold=6.0
            )
            small.weight = bnb.nn.Int8Params(module.weight.data, requires_grad=False)
            small.bias = module.bias
        else:
            small = four_bit_linear(module, Weights(weights), torch.bfloat16, torch.device("cpu"))
            small.support_avx512bf16_for_cpu = False
        made.set_submodule(name, small.to("cpu"))
    return made


if __name__ == "__main__":
    sys.exit(main())
