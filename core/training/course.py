"""From nothing to a HaploOmni: autoencoder, three priors, their assembly, three stages, checkpoint.

Every part writes into its own folder of the run and is skipped when it is finished, so the whole may be cut off anywhere.
"""

from __future__ import annotations

import json
import logging
import platform
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

from core.config import HaploOmniConfig
from core.errors import CheckpointError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniProcessor
from core.training.autoencoder import AutoencoderTask, balance_latents, build_autoencoder, latent_moments
from core.training.batches import Medium, NoiseBatch, Sentences, TalkBatch
from core.training.export import DEFAULTS, export_checkpoint
from core.training.fitted_start import fit_start
from core.training.language import LanguagePrior
from core.training.latents import CLIPS, STILLS, ClipShape, LatentClips, encode_clips
from core.training.prescaling import measure_amplitudes, prescale, wanted_amplitudes
from core.training.stage_task import Data, SceneTalks, StageTask, Teachers
from core.training.stages import NAMES, Loss, Norms, Record, Source, Stage
from core.training.studio import Studio, scene_prompts, scene_talks
from core.training.tokenizer import build_tokenizer
from core.training.trainer import Optimizer, Plan, SavedTask, Share, fit, is_sharded, join_processes
from core.training.video import VideoPrior, build_scheduler
from core.training.vision import VisionPrior
from core.weights.priors import build_from_priors
from core.weights.specialists import load_prior

logger = logging.getLogger(__name__)

# tokens of a training row about a picture and about a clip
LENGTHS = {Source.PICTURE: 224, Source.PAIR: 224, Source.CLIP: 288}
CONNECTOR = {"use_pre_norm": True, "use_affine_bias": True}
TINY = {
    "image_aspect_ratio": "anyres_max_1",
    "image_grid_pinpoints": [[84, 84]],
    "max_position_embeddings": 1024,
}


def _muon(steps: int, lr: float = 2e-3, ema: float = 0.995) -> Plan:
    return Plan(steps, lr, warmup=min(40, max(1, steps // 10)), optimizer=Optimizer.MUON, betas=(0.9, 0.98), ema=ema)


@dataclass(frozen=True)
class Lengths:
    """Steps of everything before the stages, and clips of every shape."""

    autoencoder: int = 2900
    language: int = 900
    vision: int = 1800
    video_stills: int = 1000
    video: int = 16_400
    stills: tuple[ClipShape, ...] = STILLS
    clips: tuple[ClipShape, ...] = CLIPS
    held_out_clips: int = 80

    def scaled(self, factor: float) -> Lengths:
        """All of it shorter (or longer), nothing below one."""

        def some(number: int) -> int:
            return max(1, round(number * factor))

        def fewer(shapes: tuple[ClipShape, ...]) -> tuple[ClipShape, ...]:
            return tuple(replace(shape, clips=some(shape.clips)) for shape in shapes)

        numbers = {name: some(value) for name, value in asdict(self).items() if isinstance(value, int)}
        return Lengths(**numbers, stills=fewer(self.stills), clips=fewer(self.clips))


class Course:
    """One run in a folder.

    Args:
        out: of the run.
        stages: the way, see :mod:`core.training.stages`.
        lengths: of what comes before the stages.
        seed: of everything.
        device: ``auto`` or ``cpu``.
        norms: how the blocks' norms behave.
        start: an earlier autoencoder's folder to start from.
        samples: clips drawn every so often while a stage learns, and twice as many answers.
        world: another run's folder whose priors and clips serve here too.
    """

    looks = 5  # times a stage is measured and sampled
    fitting_rows = 24  # of every source, to fit the starting values on; 0: leave them as assembled
    parts: tuple[str, ...] = ("autoencoder", "language", "vision", "clips", "video", "assemble", "stages", "export")

    def __init__(
        self,
        out: Path,
        stages: tuple[Stage, ...],
        lengths: Lengths | None = None,
        seed: int = 0,
        device: str = "auto",
        norms: Norms = Norms.ADAPTIVE,
        start: Path | None = None,
        samples: int = 4,
        world: Path | None = None,
    ) -> None:
        self.out, self.stages, self.lengths = out, stages, lengths or Lengths()
        self.seed, self.device, self.norms, self.start, self.samples = seed, device, norms, start, samples
        self.world = world or out
        self.processes = join_processes(device)

    def _prior(self, name: str) -> Path:
        return self.world / "priors" / name

    def _fit(self, name: str, task: SavedTask, plan: Plan, prior: str = "") -> None:
        folder = self._prior(prior or name)
        fit(self.out / name, task, replace(plan, seed=self.seed), self.device, keep=lambda _: task.save(folder))

    # -- before the stages

    def autoencoder(self) -> None:
        """Train the autoencoder, then its decoder alone."""
        folder, steps = self._prior("autoencoder"), self.lengths.autoencoder
        if (folder / "config.json").exists():
            return
        torch.manual_seed(self.seed)
        vae = build_autoencoder()
        if self.start is not None:
            vae.load_state_dict(AutoencoderKLCogVideoX.from_pretrained(self.start, torch_dtype=torch.float32).state_dict())
        plan = Plan(steps, 1.5e-3 if self.start else 2.5e-3, betas=(0.9, 0.98), weight_decay=1e-4, clip_norm=0.5)
        whole = AutoencoderTask(vae, steps, seed=self.seed)
        fit(self.out / "autoencoder", whole, replace(plan, seed=self.seed), self.device)
        if not any((self.out / "autoencoder-decoder").glob("state-*")):  # a state to go on from is balanced already
            balance_latents(whole.vae, *latent_moments(whole.vae))
        rest = max(1, steps * 2 // 3)
        decoder = AutoencoderTask(whole.vae, rest, decoder_only=True, seed=self.seed)
        self._fit("autoencoder-decoder", decoder, replace(plan, steps=rest, lr=plan.lr * 0.6), "autoencoder")

    @cached_property
    def vae(self) -> AutoencoderKLCogVideoX:
        """The trained autoencoder."""
        return AutoencoderKLCogVideoX.from_pretrained(self._prior("autoencoder"), torch_dtype=torch.float32)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The language prior's."""
        return AutoTokenizer.from_pretrained(self._prior("language"))

    def language(self) -> None:
        """Train the language prior."""
        if not (self._prior("language") / "config.json").exists():
            self._fit("language", LanguagePrior(build_tokenizer(), seed=self.seed), _muon(self.lengths.language))

    def vision(self) -> None:
        """Train the vision prior."""
        if not (self._prior("vision") / "config.json").exists():
            self._fit("vision", VisionPrior(seed=self.seed), _muon(self.lengths.vision))

    def clips(self) -> None:
        """Encode the clips to denoise, and some that training never sees; every process takes its share."""
        state = self.processes
        self.vae.to(state.device)
        share = {"process": state.process_index, "processes": state.num_processes}
        encode_clips(self.vae, self.world / "clips", self.lengths.stills + self.lengths.clips, self.seed, **share)
        encode_clips(self.vae, self.world / "clips-held-out", self._held_out(), self.seed, held_out=True, **share)
        state.wait_for_everyone()

    def _held_out(self) -> tuple[ClipShape, ...]:
        first = self.lengths.stills[0], self.lengths.clips[0]
        return tuple(replace(shape, clips=self.lengths.held_out_clips) for shape in first)

    def _sources(self) -> tuple[LatentClips, LatentClips]:
        sentences = Sentences(self.tokenizer)
        folder = self.world / "clips"
        return (
            LatentClips(sentences, folder, self.lengths.stills),
            LatentClips(sentences, folder, self.lengths.clips),
        )

    def video(self) -> None:
        """Train the video prior: single pictures first, then clips too."""
        if (self._prior("video") / "config.json").exists():
            return
        stills, clips = self._sources()
        language = load_prior(Qwen2ForCausalLM, str(self._prior("language")))
        task = VideoPrior(language, stills, clips, 64, 0, self.seed)
        self._fit("video-stills", task, _muon(self.lengths.video_stills, ema=0.998))
        task = VideoPrior(language, stills, clips, 16, 20, self.seed + 1)
        task.video.load_state_dict(load_prior(CogVideoXTransformer3DModel, str(self._prior("video-stills"))).state_dict())
        self._fit("video", task, _muon(self.lengths.video, 1.5e-3, ema=0.998))

    @cached_property
    def teachers(self) -> Teachers:
        """The three priors."""
        return Teachers(
            load_prior(CLIPVisionModel, str(self._prior("vision"))),
            load_prior(Qwen2ForCausalLM, str(self._prior("language"))),
            load_prior(CogVideoXTransformer3DModel, str(self._prior("video"))),
        )

    @cached_property
    def data(self) -> Data:
        """Procedural scenes."""
        sentences = Sentences(self.tokenizer)
        stills, clips = self._sources()
        media = {Source.PICTURE: Medium.PICTURE, Source.PAIR: Medium.PAIR, Source.CLIP: Medium.CLIP}
        unseen = [LatentClips(sentences, self.world / "clips-held-out", [s], True) for s in self._held_out()]
        return Data(
            {s: SceneTalks(sentences, medium, LENGTHS[s]) for s, medium in media.items()}
            | {Source.STILL: stills, Source.VIDEO: clips},
            {s: SceneTalks(sentences, media[s], LENGTHS[s], held_out=True) for s in (Source.PICTURE, Source.CLIP)}
            | {Source.STILL: unseen[0], Source.VIDEO: unseen[1]},
        )

    @cached_property
    def studio(self) -> Studio:
        """What is drawn while stages learn."""
        processor = HaploOmniProcessor.for_config(HaploOmniConfig.from_pretrained(self.start_folder), self.tokenizer)
        return Studio(processor, self.vae, DEFAULTS, scene_talks(2 * self.samples), scene_prompts(self.samples), (9, 128, 128))

    def assemble(self) -> None:
        """Put the priors together, set the connectors' scales from the modalities' amplitudes, fit the starting values."""
        folder = self.out / "assembled"
        with self.processes.main_process_first():
            if (folder / "config.json").exists():
                return
            torch.manual_seed(self.seed)
            folder.mkdir(parents=True, exist_ok=True)
            model, report = self.first_model()
            write_amplitudes(report, folder)
            model.save_pretrained(folder)

    def some_batches(self, count: int = 4) -> list[TalkBatch | NoiseBatch]:
        """A few rows of every source, practice aside; always the same."""
        drawn = {source: rows for source, rows in self.data.training.items() if source is not Source.PAIR}
        return [rows.draw(f"amplitudes/{source.value}", count, Share(0)) for source, rows in drawn.items()]

    def first_model(self) -> tuple[HaploOmniForConditionalGeneration, dict[str, Any]]:
        """What the stages start from, and what was measured on the way."""
        model = assemble(self.teachers, self.tokenizer)
        return model, self.start_values(model)

    def start_values(self, model: HaploOmniForConditionalGeneration) -> dict[str, Any]:
        """Set the assembled model's starting values; returns what was measured."""
        batches, scheduler = self.some_batches(), build_scheduler()
        report = amplitudes_and_scales(model, self.teachers, batches)
        if self.fitting_rows:
            fitting = self.some_batches(self.fitting_rows)
            report["fitted"] = fit_start(model, self.teachers.language, scheduler, fitting)
        return report | {"after": measure_amplitudes(model, scheduler, batches, model.lm_head.weight.device)}

    # -- the stages

    def run_stage(self, stage: Stage, started_from: Path) -> None:
        """One stage, from another's (or the assembly's) weights."""
        folder = self.out / stage.name
        model = self.load(started_from)
        teachers = self.teachers if Loss.DISTILLATION in stage.losses else None
        task = StageTask(model, stage, self.data, teachers, self.seed, self.norms, self.studio)
        record = Record(
            stage.name,
            [part.name.lower() for part in stage.learns],
            {loss.value: weight for loss, weight in stage.losses.items()},
            {source.value: rows for source, rows in stage.rows.items()},
            {key: getattr(value, "value", value) for key, value in asdict(stage.plan).items()},
            task.parameters_learning,
            started_from.parent.name if started_from.name == "model" else started_from.name,
            device=platform.processor() or platform.machine(),
        )

        def keep(state: dict[str, Tensor]) -> None:
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            record.processes = self.processes.num_processes
            record.seconds = json.loads(lines[-1])["seconds"] if lines else 0.0
            if not is_sharded():
                record.amplitudes = measure_amplitudes(task.model, build_scheduler(), self.some_batches(), task.device)
            (folder / "stage.json").write_text(json.dumps(asdict(record), indent=1) + "\n")
            own = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
            task.model.save_pretrained(folder / "model.part", state_dict=own)
            (folder / "model.part").rename(folder / "model")

        fit(folder, task, stage.plan, self.device, max(1, stage.plan.steps // self.looks), keep)

    @property
    def start_folder(self) -> Path:
        """Where the stages start."""
        return self.out / "assembled"

    def run_stages(self) -> Path:
        """All stages that are not finished; returns the folder of the last one's weights."""
        for stage in self.stages:
            if not self._weights(stage.name).exists():
                self.run_stage(stage, self._newest_before(stage))
        return self._weights(self.stages[-1].name)

    def _weights(self, stage: str) -> Path:
        return self.out / stage / "model"

    def _newest_before(self, stage: Stage) -> Path:
        """The weights of the last finished step of the way before ``stage``, whether or not this course was asked for it."""
        earlier = [self._weights(name) for name in NAMES[: NAMES.index(stage.name)]]
        return next((folder for folder in reversed(earlier) if folder.exists()), self.start_folder)

    @staticmethod
    def load(folder: Path) -> HaploOmniForConditionalGeneration:
        """A model in float32."""
        return HaploOmniForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)

    def finished(self) -> list[Path]:
        """The weights of the finished stages, in order.

        Raises:
            CheckpointError: there are none yet.
        """
        done = [folder for folder in map(self._weights, NAMES) if folder.exists()]
        if not done:
            raise CheckpointError(f"No stage is finished in {self.out}; run the stages first.")
        return done

    def export(self) -> Path:
        """Write the checkpoint of the last finished stage."""
        return self._export(self._prior("autoencoder"))

    def _export(self, vae: Path | None, profile: dict[str, Any] | None = None) -> Path:
        """On the main process alone."""
        folder = self.out / "checkpoint"
        if self.processes.is_main_process:
            export_checkpoint(folder, self.load(self.finished()[-1]), self.tokenizer, vae, profile)
        self.processes.wait_for_everyone()
        return folder


def assemble(
    teachers: Teachers, tokenizer: PreTrainedTokenizerBase, connector: dict[str, bool] | None = None
) -> HaploOmniForConditionalGeneration:
    """The small HaploOmni of three small priors; ``connector`` holds the settings of both connectors."""
    image, video = (int(tokenizer.convert_tokens_to_ids(token)) for token in ("<image>", "<video>"))  # type: ignore[arg-type]
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    own = connector or CONNECTOR
    settings = {**TINY, "pre_connector": own, "post_connector": own}
    return build_from_priors(teachers.vision, teachers.language, teachers.video, image, video, **settings, **ends)


def amplitudes_and_scales(
    model: HaploOmniForConditionalGeneration, teachers: Teachers, batches: list[TalkBatch | NoiseBatch]
) -> dict[str, Any]:
    """Feature pre-scaling on real batches: what was measured, what was wanted, and the connectors' factors."""
    device, scheduler = model.lm_head.weight.device, build_scheduler()
    before = measure_amplitudes(model, scheduler, batches, device)
    wanted = wanted_amplitudes(teachers.language, teachers.video, batches, device)
    factors = prescale(model, before, wanted)
    return {"before": before, "wanted": wanted, "factors": factors}


def write_amplitudes(report: dict[str, Any], folder: Path) -> None:
    """``amplitudes.json`` for people, and one line of ``metrics.jsonl`` for programs."""
    (folder / "amplitudes.json").write_text(json.dumps(report, indent=1) + "\n")
    line: dict[str, float] = {"step": 0}
    for when in ("before", "after"):
        for side, modalities in report.get(when, {}).items():
            line |= {f"amplitude {when}/{side}/{modality}": value for modality, value in modalities.items()}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
