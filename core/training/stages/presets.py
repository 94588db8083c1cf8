"""The seven steps of the paper's three stages (section 3.3, A.3) at two sizes, and what runs may change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from core.errors import ConfigError
from core.training.loop.config import Optimizer, TrainingConfig
from core.training.stages.parts import Part
from core.training.stages.stage import TALKS, Loss, Source, Stage

GENERATES = (Part.LATENT_EMBEDDING, Part.DENOISING_HEAD)
EVERYTHING = tuple(Part)


def stage_steps(
    *,
    rows: dict[str, dict[Source, int]],
    configs: dict[str, TrainingConfig],
    with_distillation: bool = False,
) -> tuple[Stage, ...]:
    """The seven steps of the three stages.

    Args:
        rows, configs: every step's batch and config; keys are the steps' names.
        with_distillation: after stage 1 too, the vision and the video prior teach while their parts learn
            (ours, not the paper's).
    """

    def step(
        name: str, trainable: tuple[Part, ...], losses: dict[Loss, float], warmup: Part | None = None
    ) -> Stage:
        stage = Stage(name, trainable, losses, rows[name], configs[name], warmup)
        stage.check()
        return stage

    understand, generate = {Loss.NEXT_TOKEN: 1.0}, {Loss.DIFFUSION: 1.0}
    guide = {Loss.DISTILLATION: 1.0} if with_distillation else {}
    both = {**understand, **generate, **guide}
    passing = {Loss.IDENTITY: 1.0, Loss.DISTILLATION: 1.0}
    noise_path = (Part.POST_CONNECTOR, Part.LATENT_PROJECTOR)
    together = (Part.PRE_CONNECTOR, Part.POST_CONNECTOR, Part.POST, Part.ANSWER_PROJECTION)
    return (
        step("1-warmup-pre", (Part.PRE,), passing, warmup=Part.PRE),
        step("1-warmup-post", (Part.POST, *GENERATES), {**passing, **generate}, warmup=Part.POST),
        step("2-align-pre-connector", (Part.PRE_CONNECTOR, Part.ANSWER_PROJECTION), understand),
        step("2-align-post-connector", noise_path, generate),
        step("2-align-post", (*noise_path, Part.POST, *GENERATES), {**generate, **guide}),
        step("2-align-together", (*together, Part.LATENT_PROJECTOR, *GENERATES), both),
        step("3-unified", EVERYTHING, both),
    )


NAMES = (
    "1-warmup-pre",
    "1-warmup-post",
    "2-align-pre-connector",
    "2-align-post-connector",
    "2-align-post",
    "2-align-together",
    "3-unified",
)


def nine_b() -> tuple[Stage, ...]:
    """The released size; learning rates, batch sizes and the 2k and 10k steps are the paper's (A.3)."""

    def config(steps: int, lr: float, **more: object) -> TrainingConfig:
        config = TrainingConfig(steps, lr, warmup=min(500, steps // 10), accumulate=8, checkpointing=True)
        return replace(config, **more)  # type: ignore[arg-type]

    rows = {
        "1-warmup-pre": {Source.PICTURE: 192, Source.CLIP: 64},
        "1-warmup-post": {Source.STILL: 8, Source.VIDEO: 24},
        "2-align-pre-connector": {Source.PICTURE: 96, Source.CLIP: 32},
        "2-align-post-connector": {Source.STILL: 96, Source.VIDEO: 32},
        "2-align-post": {Source.STILL: 32, Source.VIDEO: 96},
        "2-align-together": {Source.PICTURE: 48, Source.CLIP: 16, Source.STILL: 16, Source.VIDEO: 48},
        "3-unified": {Source.PICTURE: 12, Source.CLIP: 4, Source.STILL: 4, Source.VIDEO: 12},
    }
    configs = {
        "1-warmup-pre": config(20_000, 1e-4),
        "1-warmup-post": config(20_000, 2e-4),
        "2-align-pre-connector": config(2_000, 1e-5),
        "2-align-post-connector": config(10_000, 1e-4),
        "2-align-post": config(20_000, 1e-4),
        "2-align-together": config(10_000, 1e-4),
        "3-unified": config(20_000, 2e-5),
    }
    return stage_steps(rows=rows, configs=configs)


def tiny() -> tuple[Stage, ...]:
    """The bundled size, on a CPU."""

    def config(steps: int, lr: float, ema: float = 0.99) -> TrainingConfig:
        return TrainingConfig(
            steps,
            lr,
            warmup=min(30, max(1, steps // 10)),
            optimizer=Optimizer.MUON,
            betas=(0.9, 0.98),
            ema=ema,
        )

    talks, noise = {Source.PICTURE: 24, Source.CLIP: 8}, {Source.STILL: 16, Source.VIDEO: 16}
    rows = dict.fromkeys(NAMES[:1] + NAMES[2:3], talks) | dict.fromkeys(("1-warmup-post", *NAMES[3:5]), noise)
    mixed = {Source.PICTURE: 12, Source.CLIP: 8, Source.STILL: 4, Source.VIDEO: 24}
    unified = {Source.PICTURE: 8, Source.CLIP: 6, Source.STILL: 2, Source.VIDEO: 14}
    configs = {
        "1-warmup-pre": config(40, 1e-3),
        "1-warmup-post": config(60, 1e-3),
        "2-align-pre-connector": config(80, 1e-3),
        "2-align-post-connector": config(24, 1e-3),
        "2-align-post": config(60, 1e-3),
        "2-align-together": config(80, 1e-3),
        "3-unified": config(2400, 7e-4, ema=0.995),
    }
    return stage_steps(
        rows=rows | {NAMES[5]: mixed, NAMES[6]: unified}, configs=configs, with_distillation=True
    )


PRESETS = {"tiny": tiny, "9b": nine_b}


def preset(name: str) -> tuple[Stage, ...]:
    """The stages of a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset '{name}'; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]()


def without_distillation(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same way with no teachers after stage 1, as the paper has it."""
    made = []
    for stage in stages:
        losses: dict[Loss, float] = dict(stage.losses)
        if stage.warmup is None:
            losses.pop(Loss.DISTILLATION, None)
        made.append(replace(stage, losses=losses))
    return tuple(made)


def chosen(stages: tuple[Stage, ...], names: Sequence[str]) -> tuple[Stage, ...]:
    """Only the stages of these names (or numbers of stages: "3" is every step of stage 3), in order.

    Raises:
        ConfigError: no stage has such a name.
    """
    unknown = [name for name in names if not any(stage.name.startswith(name) for stage in stages)]
    if unknown:
        raise ConfigError(
            f"There is no stage '{unknown[0]}'; the stages are {', '.join(stage.name for stage in stages)}."
        )
    return tuple(stage for stage in stages if not names or any(stage.name.startswith(name) for name in names))


def with_sources(stages: tuple[Stage, ...], present: Collection[Source]) -> tuple[Stage, ...]:
    """The stages drawing only from the sources there are.

    Raises:
        ConfigError: a stage is left with nothing to draw.
    """
    made = []
    for stage in stages:
        rows = {source: count for source, count in stage.rows.items() if source in present}
        if not rows:
            understands = set(stage.rows) <= set(TALKS)
            needs = "rows to understand ('messages')" if understands else "rows to generate ('prompt')"
            raise ConfigError(
                f"Stage '{stage.name}' needs {needs}, and the data has none; add some or leave the stage out."
            )
        made.append(replace(stage, rows=rows))
    return tuple(made)


def scaled(
    stages: tuple[Stage, ...], steps: float = 1.0, rows: float = 1.0, seed: int = 0
) -> tuple[Stage, ...]:
    """The same way with other lengths and batches; at least one step and one row of everything."""
    made = []
    for stage in stages:
        own = {source: max(1, round(count * rows)) for source, count in stage.rows.items()}
        length = max(1, round(stage.config.steps * steps))
        config = replace(
            stage.config, steps=length, warmup=max(1, min(stage.config.warmup, length // 10)), seed=seed
        )
        made.append(replace(stage, rows=own, config=config))
    return tuple(made)
