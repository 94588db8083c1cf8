"""The arms of the comparisons: what each leaves out of the full way, at the full way's compute."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.errors import ConfigError
from core.layers import MultimodalAdaLN
from core.model.decoder import Block
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.initialization.assembly import assemble
from core.training.loop.metrics import read_metrics
from core.training.loop.processes import BatchShard
from core.training.loop.provenance import claim, folder_digest, read_json, write_whole
from core.training.runs.assemble import FIT_BATCH_SIZE, AssembleStep, Built, assembly_inputs, build_assembled
from core.training.runs.parts import Parts, PriorSchedule, SceneParts
from core.training.runs.run import RunContext, StepSequence, TrainingRun
from core.training.runs.stage_steps import stage_steps, weights_folder
from core.training.stages.parts import Norms
from core.training.stages.presets import scaled, tiny, without_distillation
from core.training.stages.stage import Loss, Stage
from core.training.stages.task import StageTask

PLAIN_CONNECTOR = {"use_pre_norm": False, "use_affine_bias": True}
NUM_EVALUATIONS = 4  # times a stage is measured
# steps of the stages, in order: without a fitted start alignment takes longer than the small preset gives it
ABLATION_STEPS = (250, 500, 300, 200, 1000, 300, 2400)
# words in the records of earlier versions, and today's
FORMER = {"world": "base_run", "steps": "scale", "rows": "batch_scale", "lengths": "base_scale"}
# held-out figures of a run, by the compute spent until then
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Arm:
    """One way to train; the defaults are the paper's.

    Args:
        name: of the arm.
        warmup: with stage 1.
        prescaling: with feature pre-scaling.
        norms: multimodal AdaLN or plain norms.
        staged: in stages, from priors; else everything at once, from random weights.
        fitted: with least-squares starting values, which are not the paper's.
    """

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

    Shift and scale go into the norm, the gate into the branch's last matrix; the sets become neutral.
    Nothing that the video prior knew about noise is lost, only the difference between modalities.
    """
    for block in model.modules():
        if isinstance(block, Block):
            for norm, last in (
                (block.input_layernorm, block.self_attn.o_proj),
                (block.post_attention_layernorm, block.mlp.down_proj),
            ):
                _fold(norm, last)


def _fold(norm: MultimodalAdaLN, last: nn.Linear) -> None:
    shift, scale, gate = norm.SSG_L
    norm.weight.mul_(1 + scale)
    if norm.bias is not None:
        norm.bias.mul_(1 + scale).add_(shift)
    last.weight.mul_(gate[:, None])
    last.bias.mul_(gate)
    norm.reset_modulation()


@torch.no_grad()
def reinitialized(model: HaploOmniForConditionalGeneration, seed: int) -> HaploOmniForConditionalGeneration:
    """The same architecture with random weights: each matrix of the variance its inputs need, small heads."""
    torch.manual_seed(seed)
    config: Any = model.config
    made = HaploOmniForConditionalGeneration(config).float()
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


def fit_batch_size(arm: Arm) -> int:
    """Rows of every source that the arm's starting values are fitted on; 0 for no fit."""
    return FIT_BATCH_SIZE if arm.fitted else 0


def build_first_model(arm: Arm, parts: Parts, seed: int) -> Built:
    """What the arm's stages start from, and what was measured on the way."""
    report: dict[str, Any] = {}
    if arm.prescaling:
        model, report = build_assembled(parts, fit_batch_size(arm))
    else:
        model = assemble(parts.teachers, parts.tokenizer, PLAIN_CONNECTOR)
    if arm.norms is Norms.PLAIN:
        fold_modulation(model)
    if not arm.staged:
        return reinitialized(model, seed), {}
    return model, report


def arm_run(context: RunContext, arm: Arm, stages: tuple[Stage, ...], parts: Parts) -> TrainingRun:
    """One arm with one seed: the assembly and its stages.

    Args:
        context: folder, seed, device.
        arm: what is left out.
        stages: the arm's own, see :func:`arm_stages`.
        parts: priors and clips of a finished run.
    """

    def inputs() -> dict[str, Any]:
        return assembly_inputs(context, parts, fit_batch_size(arm)) | {"arm": asdict(arm)}

    assembly = AssembleStep(context, inputs, lambda: build_first_model(arm, parts, context.seed))
    way = StepSequence(
        "stages",
        context.processes,
        lambda: stage_steps(context, stages, parts, assembly.folder, arm.norms, NUM_EVALUATIONS),
    )
    return TrainingRun(context, assembly, way)


def stage_flops(parts: Parts, stage: Stage) -> float:
    """Floating-point operations of one step of a stage, forward and backward."""
    model = assemble(parts.teachers, parts.tokenizer)
    teachers = parts.teachers if Loss.DISTILLATION in stage.losses else None
    task = StageTask(model, stage, parts.data, teachers)
    with FlopCounterMode(display=False) as counter:
        torch.stack(list(task(task.sample_batch(BatchShard(0))).values())).sum().backward()
    return float(counter.get_total_flops())


def arm_stages(arm: Arm, stages: tuple[Stage, ...], flops: dict[str, float]) -> tuple[Stage, ...]:
    """The arm's own way at the full way's compute: what a left-out stage would have spent goes to the last.

    Args:
        arm: what is left out.
        stages: the full way.
        flops: floating-point operations of a step of every stage.
    """
    total = sum(stage.config.steps * flops[stage.name] for stage in stages)
    *before, last = (
        stage
        for stage in stages
        if (arm.staged or stage is stages[-1]) and (arm.warmup or stage.warmup is None)
    )
    spent = sum(stage.config.steps * flops[stage.name] for stage in before)
    steps = max(1, round((total - spent) / flops[last.name]))
    return (*before, replace(last, config=replace(last.config, steps=steps)))


def curve(run: Path, stages: Sequence[Stage], flops: dict[str, float]) -> Curve:
    """All held-out measurements of a finished arm, by the compute spent until then.

    Args:
        run: the arm's folder; metrics of earlier versions are read under today's names.
        stages: the arm's.
        flops: floating-point operations of a step of every stage.

    Returns:
        One dictionary a measurement: ``compute`` (in units of 1e12 operations) and the figures.
    """
    points: Curve = []
    spent = 0.0
    for stage in stages:
        for report in read_metrics(run / stage.name):
            figures = {
                name.removeprefix("val/"): value for name, value in report.items() if name.startswith("val/")
            }
            if figures:
                compute = (spent + report["step"] * flops[stage.name]) / 1e12
                points.append({"compute": compute, **figures})
        spent += stage.config.steps * flops[stage.name]
    return points


def whole_way() -> tuple[Stage, ...]:
    """The small preset's stages at the comparisons' lengths, with no teachers after stage 1."""
    stages = zip(without_distillation(tiny()), ABLATION_STEPS, strict=True)
    return tuple(replace(stage, config=replace(stage.config, steps=steps)) for stage, steps in stages)


def measured_flops(out: Path, parts: Parts, stages: tuple[Stage, ...]) -> dict[str, float]:
    """Floating-point operations of a step of every stage, counted once and kept in ``flops.json``."""
    file = out / "flops.json"
    if not file.exists():
        counted = {stage.name: stage_flops(parts, stage) for stage in stages}
        write_whole(json.dumps(counted, indent=1) + "\n", file)
    return read_json(file)


def train_arms(
    out: Path,
    base_run: Path,
    arms: Sequence[str],
    seeds: Sequence[int],
    scale: float,
    batch_scale: float,
    base_scale: float = 1.0,
    report_only: bool = False,
) -> dict[str, dict[str, Curve]]:
    """Train arms at equal compute; finished ones are skipped.

    Args:
        out: folder of all arms.
        base_run: the run whose priors and clips are used.
        arms: names of :data:`ARMS`.
        seeds: of every arm.
        scale: factor on the steps of all stages.
        batch_scale: factor on the rows of every batch.
        base_scale: the factor that the base run was made with.
        report_only: train nothing.

    Returns:
        {arm: {seed: curve}} of those that are finished.

    Raises:
        ConfigError: there is no such arm, or the base run has no priors.
        CheckpointError: what is there was made with other factors, or of another run.
    """
    chosen = [arm for arm in ARMS if arm.name in arms]
    if len(chosen) < len(set(arms)):
        raise ConfigError(f"The arms are {', '.join(arm.name for arm in ARMS)}.")
    if not (base_run / "priors" / "video" / "config.json").exists():
        raise ConfigError(
            f"{base_run} has no priors; make them with python -m core.training video --out {base_run}."
        )
    # arms are compared at equal compute: all of them have the same lengths, rows and priors
    factors = {"scale": scale, "batch_scale": batch_scale, "base_scale": base_scale}
    inputs = {"base_run": folder_digest(base_run / "priors"), **factors}
    claim(out, inputs, found=(out / "flops.json").exists(), former=FORMER)
    parts = SceneParts(base_run, PriorSchedule().scaled(base_scale))
    way = scaled(whole_way(), scale, batch_scale)
    flops = measured_flops(out, parts, way)
    results: dict[str, dict[str, Curve]] = {}
    for seed in seeds:
        for arm in chosen:
            stages = scaled(arm_stages(arm, way, flops), seed=seed)
            context = RunContext(out / f"{arm.name}-{seed}".replace(" ", "-"), seed, "cpu")
            if not report_only:
                arm_run(context, arm, stages, parts).run()
            if all(weights_folder(context.folder, stage.name).exists() for stage in stages):
                results.setdefault(arm.name, {})[str(seed)] = curve(context.folder, stages, flops)
    return results
