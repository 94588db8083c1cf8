"""The paper's claims at the small size: ``python -m core.training.ablate`` trains with and without each idea.

Four comparisons at equal compute, every arm with several seeds: with and without the warmup, with and without feature
pre-scaling, multimodal AdaLN against a plain norm, staged against joint training from scratch. Compute is counted in
floating-point operations of the forward and backward passes; an arm that leaves a stage out spends its share on the last.
The priors' own training is not counted: the paper's claim is about what to do when one has them.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from core.errors import ConfigError
from core.layers import MultimodalAdaLN
from core.model.decoder import Block
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.command import run_command
from core.training.course import Course, Lengths, assemble
from core.training.stage_task import StageTask
from core.training.stages import Loss, Norms, Stage, scaled, tiny, unguided
from core.training.trainer import Share

PLAIN_CONNECTOR = {"use_pre_norm": False, "use_affine_bias": True}
# steps of the stages, in order: without a fitted start alignment takes longer than the small preset gives it
WAY = (250, 500, 300, 200, 1000, 300, 2400)


@dataclass(frozen=True)
class Arm:
    """One way to train; the defaults are the paper's."""

    name: str
    warmup: bool = True
    prescaling: bool = True
    norms: Norms = Norms.ADAPTIVE
    staged: bool = True
    fitted: bool = False


ARMS = (
    Arm("full"),
    Arm("no warmup", warmup=False),
    Arm("no pre-scaling", prescaling=False),
    Arm("plain norm", norms=Norms.PLAIN),
    Arm("joint from scratch", staged=False),
    Arm("fitted start", fitted=True),
)


@torch.no_grad()
def fold_modulation(model: HaploOmniForConditionalGeneration) -> None:
    """Turn every multimodal AdaLN into a plain norm that treats all tokens as its latent set treats noise.

    Shift and scale go into the norm, the gate into the branch's last matrix; the sets become neutral. Nothing that the
    video prior knew about noise is lost, only the difference between modalities.
    """
    for block in model.modules():
        if isinstance(block, Block):
            for norm, last in (
                (block.input_layernorm, block.self_attn.o_proj),
                (block.post_attention_layernorm, block.mlp.down_proj),
            ):
                _fold(norm, last)


def _fold(norm: MultimodalAdaLN, last: torch.nn.Linear) -> None:
    shift, scale, gate = norm.SSG_L
    norm.weight.mul_(1 + scale)
    if norm.bias is not None:
        norm.bias.mul_(1 + scale).add_(shift)
    last.weight.mul_(gate[:, None])
    last.bias.mul_(gate)
    norm.reset_modulation()


@torch.no_grad()
def fresh(model: HaploOmniForConditionalGeneration, seed: int) -> HaploOmniForConditionalGeneration:
    """The same architecture with random weights: each matrix of the variance its inputs need, small heads."""
    torch.manual_seed(seed)
    made = HaploOmniForConditionalGeneration(model.config).float()
    for name, parameter in made.named_parameters():
        if "SSG_" in name:
            parameter.add_(0.02 * torch.randn_like(parameter))
        elif name.endswith("proj.weight") and "patch_embed" in name:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        elif parameter.dim() == 2 and "indicator" not in name and "embed_tokens" not in name:
            parameter.normal_(std=0.7 * parameter.shape[1] ** -0.5)
    made.proj_out.weight.mul_(0.1)
    made.lm_head.weight.mul_(0.1)
    return made


class ArmCourse(Course):
    """One arm with one seed, on the priors and clips of a finished run."""

    looks = 4

    def __init__(self, out: Path, arm: Arm, world: Path, stages: tuple[Stage, ...], lengths: Lengths, seed: int) -> None:
        super().__init__(out, stages, lengths, seed, "cpu", arm.norms, samples=0, world=world)
        self.arm = arm
        self.fitting_rows = Course.fitting_rows if arm.fitted else 0

    def first_model(self) -> tuple[HaploOmniForConditionalGeneration, dict[str, Any]]:
        model, report = super().first_model()
        if not self.arm.prescaling:
            model, report = assemble(self.teachers, self.tokenizer, PLAIN_CONNECTOR), {}
        if self.arm.norms is Norms.PLAIN:
            fold_modulation(model)
        if not self.arm.staged:
            model, report = fresh(model, self.seed), {}
        return model, report


def stage_flops(course: Course, stage: Stage) -> float:
    """Floating-point operations of one step of a stage, forward and backward."""
    model = assemble(course.teachers, course.tokenizer)
    task = StageTask(model, stage, course.data, course.teachers if Loss.DISTILLATION in stage.losses else None)
    with FlopCounterMode(display=False) as counter:
        sum(task(task.draw(Share(0))).values()).backward()  # type: ignore[union-attr]
    return float(counter.get_total_flops())


def arm_stages(arm: Arm, stages: tuple[Stage, ...], flops: dict[str, float]) -> tuple[Stage, ...]:
    """The arm's own way at the full way's compute."""
    total = sum(stage.plan.steps * flops[stage.name] for stage in stages)
    kept = [stage for stage in stages if (arm.staged or stage is stages[-1]) and (arm.warmup or stage.warmup is None)]
    spent = sum(stage.plan.steps * flops[stage.name] for stage in kept[:-1])
    last = kept[-1]
    steps = max(1, round((total - spent) / flops[last.name]))
    return (*kept[:-1], replace(last, plan=replace(last.plan, steps=steps)))


def curve(course: Course, flops: dict[str, float]) -> list[dict[str, float]]:
    """All held-out measurements of a finished arm, by the compute spent until then (in units of 1e12)."""
    points, spent = [], 0.0
    for stage in course.stages:
        for line in (course.out / stage.name / "metrics.jsonl").read_text().splitlines():
            values = json.loads(line)
            held_out = {key.removeprefix("held out/"): value for key, value in values.items() if key.startswith("held out/")}
            if held_out:
                points.append({"compute": (spent + values["step"] * flops[stage.name]) / 1e12, **held_out})
        spent += stage.plan.steps * flops[stage.name]
    return points


def whole_way() -> tuple[Stage, ...]:
    """The small preset's stages at the comparisons' lengths, with no teachers after stage 1."""
    stages = zip(unguided(tiny()), WAY, strict=True)
    return tuple(replace(stage, plan=replace(stage.plan, steps=steps)) for stage, steps in stages)


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m core.training.ablate", description=__doc__)
    parser.add_argument("--world", type=Path, default=Path("runs/tiny"), help="run whose priors and clips are used")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--steps", type=float, default=0.1, help="factor on the steps of all stages (default: 0.1)")
    parser.add_argument("--rows", type=float, default=0.5, help="factor on the rows of every batch (default: 0.5)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--arms", nargs="+", default=[arm.name for arm in ARMS], help="default: all")
    parser.add_argument("--lengths", type=float, default=1.0, help="the factor the world was made with (default: 1)")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--report-only", action="store_true", help="draw and print what is finished")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Train all arms (finished ones are skipped), draw the curves, print the table."""
    options = build_parser().parse_args(argv)
    return run_command(lambda: compare(options), options.threads)


def compare(options: argparse.Namespace) -> None:
    """Train, draw and print."""
    from core.training.ablation_report import draw_curves, table  # first, since drawing needs a package of its own

    results = run(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    draw_curves(results, options.out / "curves.png")
    print(table(results))  # noqa: T201


def run(options: argparse.Namespace) -> dict[str, dict[str, list[dict[str, float]]]]:
    """{arm: {seed: curve}} of all chosen arms."""
    chosen = [arm for arm in ARMS if arm.name in options.arms]
    if len(chosen) < len(set(options.arms)):
        raise ConfigError(f"The arms are {', '.join(arm.name for arm in ARMS)}.")
    if not (options.world / "priors" / "video" / "config.json").exists():
        raise ConfigError(f"{options.world} has no priors; make them with python -m core.training video --out {options.world}.")
    lengths, way = Lengths().scaled(options.lengths), scaled(whole_way(), options.steps, options.rows)
    measuring = Course(options.out, way, lengths, device="cpu", samples=0, world=options.world)
    flops_file = options.out / "flops.json"
    if not flops_file.exists():
        options.out.mkdir(parents=True, exist_ok=True)
        flops_file.write_text(json.dumps({stage.name: stage_flops(measuring, stage) for stage in way}, indent=1) + "\n")
    flops: dict[str, float] = json.loads(flops_file.read_text())
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for seed in options.seeds:
        for arm in chosen:
            stages = scaled(arm_stages(arm, way, flops), seed=seed)
            course = ArmCourse(options.out / f"{arm.name}-{seed}".replace(" ", "-"), arm, options.world, stages, lengths, seed)
            if not options.report_only:
                course.assemble()
                course.run_stages()
            if all((course.out / stage.name / "model").exists() for stage in stages):
                results.setdefault(arm.name, {})[str(seed)] = curve(course, flops)
    return results


if __name__ == "__main__":
    sys.exit(main())
