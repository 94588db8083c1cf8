"""The paper's three stages as data: which parts learn, from which losses, on which data, how fast (section 3.3, A.3)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from core.errors import ConfigError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.training.trainer import Optimizer, Plan


class Part(Enum):
    """A part of the network that learns or rests as one; its values are parameter-name beginnings, blocks aside."""

    WORDS = ("model.embed_tokens.",)
    EYES = ("model.patch_embed.", "model.pre_pos_embed", "model.image_newline", "model.pre_norm.")
    PRE = ("pre blocks",)
    PRE_CONNECTOR = ("model.pre_connector.",)
    BASE = ("model.norm.",)
    POST_CONNECTOR = ("model.post_connector.",)
    POST = ("post blocks",)
    ANSWERS = ("model.post_norm.", "model.post_linear.", "model.post_scale")
    WORD_HEAD = ("lm_head.",)
    NOISE_IN = ("v2t_projector.",)
    NOISE_TOKENS = ("patch_embed_cogvideo.", "time_embedding.", "temb_token.")
    NOISE_OUT = ("norm_final.", "norm_out.", "proj_out.")


class Loss(Enum):
    """What a stage learns from."""

    NEXT_TOKEN = "next token"
    DIFFUSION = "diffusion"
    DISTILLATION = "distillation"
    IDENTITY = "identity"


class Norms(Enum):
    """``ADAPTIVE``: multimodal AdaLN. ``PLAIN``: its sets stay neutral, which leaves an ordinary norm."""

    ADAPTIVE = "multimodal AdaLN"
    PLAIN = "plain norm"


class Source(Enum):
    """Where rows come from. Understanding: pictures and clips to talk about. Generation: pictures and clips to denoise.

    ``PAIR`` is practice: pictures of two things, with questions about where they stand and nothing else.
    """

    PICTURE = "picture"
    PAIR = "pair"
    CLIP = "clip"
    STILL = "still"
    VIDEO = "video"


TALKS = (Source.PICTURE, Source.PAIR, Source.CLIP)
NOISE = (Source.STILL, Source.VIDEO)


@dataclass(frozen=True)
class Stage:
    """One step of the way.

    Args:
        name: of its folder.
        learns: parts with gradients; everything else is frozen.
        losses: what counts, and how much.
        rows: rows of every source in a batch. Rows of clips to denoise are counted in the first clip shape's tokens.
        plan: steps, learning rate and optimizer.
        warmup: None after stage 1; else the part that is warmed up.
    """

    name: str
    learns: tuple[Part, ...]
    losses: dict[Loss, float]
    rows: dict[Source, int]
    plan: Plan
    warmup: Part | None = None

    def counts(self, loss: Loss, talk: bool) -> bool:
        """Whether a talk (else noise) is learned from by ``loss``."""
        if loss is Loss.DISTILLATION:
            return self.taught(Part.PRE if talk else Part.POST)
        own = Loss.NEXT_TOKEN if talk else Loss.DIFFUSION
        return loss in self.losses and loss in (Loss.IDENTITY, own)

    def taught(self, part: Part) -> bool:
        """Whether the prior that became ``part`` (the pre or the post one) teaches here: where its part learns."""
        return Loss.DISTILLATION in self.losses and part in self.learns

    def check(self) -> None:
        """Raises ConfigError when losses, data and parts do not belong together."""
        talks, noise = (any(source in self.rows for source in group) for group in (TALKS, NOISE))
        wanted = {Loss.NEXT_TOKEN: talks, Loss.DIFFUSION: noise}
        if self.warmup is not None:
            wanted = {Loss.IDENTITY: True, Loss.DISTILLATION: True, Loss.DIFFUSION: self.warmup is Part.POST}
        missing = [loss.value for loss, needed in wanted.items() if needed and loss not in self.losses]
        if missing:
            raise ConfigError(f"Stage '{self.name}' draws data whose loss it does not count: {', '.join(missing)}.")
        if not self.rows or not self.learns:
            raise ConfigError(f"Stage '{self.name}' needs data to draw and parts that learn.")


GENERATES = (Part.NOISE_TOKENS, Part.NOISE_OUT)
EVERYTHING = tuple(Part)


def stage_steps(
    *,
    rows: dict[str, dict[Source, int]],
    plans: dict[str, Plan],
    guided: bool = False,
) -> tuple[Stage, ...]:
    """The seven steps of the three stages.

    Args:
        rows, plans: every step's batch and plan; keys are the steps' names.
        guided: after stage 1 too, the vision and the video prior teach while their parts learn (ours, not the paper's).
    """

    def step(name: str, learns: tuple[Part, ...], losses: dict[Loss, float], warmup: Part | None = None) -> Stage:
        stage = Stage(name, learns, losses, rows[name], plans[name], warmup)
        stage.check()
        return stage

    understand, generate = {Loss.NEXT_TOKEN: 1.0}, {Loss.DIFFUSION: 1.0}
    guide = {Loss.DISTILLATION: 1.0} if guided else {}
    both = {**understand, **generate, **guide}
    passing = {Loss.IDENTITY: 1.0, Loss.DISTILLATION: 1.0}
    return (
        step("1-warmup-pre", (Part.PRE,), passing, warmup=Part.PRE),
        step("1-warmup-post", (Part.POST, *GENERATES), {**passing, **generate}, warmup=Part.POST),
        step("2-align-pre-connector", (Part.PRE_CONNECTOR, Part.ANSWERS), understand),
        step("2-align-post-connector", (Part.POST_CONNECTOR, Part.NOISE_IN), generate),
        step("2-align-post", (Part.POST_CONNECTOR, Part.NOISE_IN, Part.POST, *GENERATES), {**generate, **guide}),
        step(
            "2-align-together",
            (Part.PRE_CONNECTOR, Part.POST_CONNECTOR, Part.POST, Part.ANSWERS, Part.NOISE_IN, *GENERATES),
            both,
        ),
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

    def plan(steps: int, lr: float, **more: object) -> Plan:
        return Plan(steps, lr, warmup=min(500, steps // 10), accumulate=8, checkpointing=True, **more)  # type: ignore[arg-type]

    rows = {
        "1-warmup-pre": {Source.PICTURE: 192, Source.CLIP: 64},
        "1-warmup-post": {Source.STILL: 8, Source.VIDEO: 24},
        "2-align-pre-connector": {Source.PICTURE: 96, Source.CLIP: 32},
        "2-align-post-connector": {Source.STILL: 96, Source.VIDEO: 32},
        "2-align-post": {Source.STILL: 32, Source.VIDEO: 96},
        "2-align-together": {Source.PICTURE: 48, Source.CLIP: 16, Source.STILL: 16, Source.VIDEO: 48},
        "3-unified": {Source.PICTURE: 12, Source.CLIP: 4, Source.STILL: 4, Source.VIDEO: 12},
    }
    plans = {
        "1-warmup-pre": plan(20_000, 1e-4),
        "1-warmup-post": plan(20_000, 2e-4),
        "2-align-pre-connector": plan(2_000, 1e-5),
        "2-align-post-connector": plan(10_000, 1e-4),
        "2-align-post": plan(20_000, 1e-4),
        "2-align-together": plan(10_000, 1e-4),
        "3-unified": plan(20_000, 2e-5),
    }
    return stage_steps(rows=rows, plans=plans)


def tiny() -> tuple[Stage, ...]:
    """The bundled size, on a CPU."""

    def plan(steps: int, lr: float, ema: float = 0.99) -> Plan:
        return Plan(steps, lr, warmup=min(30, max(1, steps // 10)), optimizer=Optimizer.MUON, betas=(0.9, 0.98), ema=ema)

    talks, noise = {Source.PICTURE: 24, Source.CLIP: 8}, {Source.STILL: 16, Source.VIDEO: 16}
    rows = dict.fromkeys(NAMES[:1] + NAMES[2:3], talks) | dict.fromkeys(("1-warmup-post", *NAMES[3:5]), noise)
    mixed = {Source.PICTURE: 12, Source.CLIP: 8, Source.STILL: 4, Source.VIDEO: 24}
    unified = {Source.PICTURE: 8, Source.CLIP: 6, Source.STILL: 2, Source.VIDEO: 14}
    plans = {
        "1-warmup-pre": plan(40, 1e-3),
        "1-warmup-post": plan(60, 1e-3),
        "2-align-pre-connector": plan(80, 1e-3),
        "2-align-post-connector": plan(24, 1e-3),
        "2-align-post": plan(60, 1e-3),
        "2-align-together": plan(80, 1e-3),
        "3-unified": plan(2400, 7e-4, ema=0.995),
    }
    return stage_steps(rows=rows | {NAMES[5]: mixed, NAMES[6]: unified}, plans=plans, guided=True)


PRESETS = {"tiny": tiny, "9b": nine_b}


def preset(name: str) -> tuple[Stage, ...]:
    """The stages of a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset '{name}'; choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]()


def unguided(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same way with no teachers after stage 1, as the paper has it."""
    kept = [{loss: weight for loss, weight in stage.losses.items() if loss is not Loss.DISTILLATION} for stage in stages]
    return tuple(stage if stage.warmup else replace(stage, losses=own) for stage, own in zip(stages, kept, strict=True))


def chosen(stages: tuple[Stage, ...], names: Sequence[str]) -> tuple[Stage, ...]:
    """Only the stages of these names (or numbers of stages: "3" is every step of stage 3), in order.

    Raises:
        ConfigError: no stage has such a name.
    """
    unknown = [name for name in names if not any(stage.name.startswith(name) for stage in stages)]
    if unknown:
        raise ConfigError(f"There is no stage '{unknown[0]}'; the stages are {', '.join(stage.name for stage in stages)}.")
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
            needs = "rows to understand ('messages')" if set(stage.rows) <= set(TALKS) else "rows to generate ('prompt')"
            raise ConfigError(f"Stage '{stage.name}' needs {needs}, and the data has none; add some or leave the stage out.")
        made.append(replace(stage, rows=rows))
    return tuple(made)


def scaled(stages: tuple[Stage, ...], steps: float = 1.0, rows: float = 1.0, seed: int = 0) -> tuple[Stage, ...]:
    """The same way with other lengths and batches; at least one step and one row of everything."""
    made = []
    for stage in stages:
        own = {source: max(1, round(count * rows)) for source, count in stage.rows.items()}
        length = max(1, round(stage.plan.steps * steps))
        plan = replace(stage.plan, steps=length, warmup=max(1, min(stage.plan.warmup, length // 10)), seed=seed)
        made.append(replace(stage, rows=own, plan=plan))
    return tuple(made)


def part_of(name: str, layers: tuple[int, int]) -> Part:
    """The part a parameter belongs to.

    Args:
        name: of the parameter.
        layers: index of the base part's first block and of the post part's.
    """
    if name.startswith("model.layers."):
        layer = int(name.split(".")[2])
        return Part.PRE if layer < layers[0] else Part.BASE if layer < layers[1] else Part.POST
    for part in Part:
        if any(name.startswith(beginning) for beginning in part.value):
            return part
    raise ConfigError(f"The parameter '{name}' belongs to no part.")


def freeze(model: HaploOmniForConditionalGeneration, learns: tuple[Part, ...], norms: Norms = Norms.ADAPTIVE) -> int:
    """Let these parts learn and freeze all others; returns how many numbers learn."""
    first = model.model.pre.num_hidden_layers
    layers = first, first + model.model.base.num_hidden_layers
    count = 0
    for name, parameter in model.named_parameters():
        modulation = "SSG_" in name or "layernorm.indicator" in name
        learning = part_of(name, layers) in learns and not (modulation and norms is Norms.PLAIN)
        parameter.requires_grad_(learning)
        count += parameter.numel() if learning else 0
    return count


@dataclass
class Record:
    """What a stage did, and how loud every modality is at the connectors after it; written beside its weights."""

    stage: str
    learns: list[str]
    losses: dict[str, float]
    rows: dict[str, int]
    plan: dict[str, object]
    parameters: int
    started_from: str
    seconds: float = 0.0
    processes: int = 1
    device: str = ""
    amplitudes: dict[str, dict[str, float]] = field(default_factory=dict)
