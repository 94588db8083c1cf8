"""Training on people's own priors, checkpoint and rows: the stages without the small world."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import CLIPVisionModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

from core.config import HaploOmniConfig
from core.errors import CheckpointError, ConfigError
from core.processor import HaploOmniProcessor
from core.training.batches import Sentences
from core.training.course import CONNECTOR, Course, write_amplitudes
from core.training.own_data import OwnClips, OwnTalks, read_rows
from core.training.stage_task import Data, Teachers
from core.training.stages import Source, Stage, unguided, with_sources
from core.training.studio import Studio
from core.weights.load import PROFILE_FILE, RELEASED_PROFILE
from core.weights.priors import build_from_priors
from core.weights.resolve import resolve_checkpoint
from core.weights.specialists import IMAGE_TOKEN, TURN_END, VIDEO_TOKEN, load_prior, load_tokenizer

HELD_OUT_EVERY = 20  # of enough rows, one in so many is kept for measuring
ENOUGH = 40


@dataclass(frozen=True)
class Origin:
    """Where an own course starts: three priors, or a HaploOmni checkpoint; folders or hub ids.

    Args:
        vae: an AutoencoderKLCogVideoX; by default the checkpoint's.
        size: (frames, height, width) of the clips to generate.
    """

    vision: str | None = None
    language: str | None = None
    video: str | None = None
    checkpoint: str | None = None
    vae: str | None = None
    size: tuple[int, int, int] = (49, 480, 720)

    def check(self) -> None:
        """Raises ConfigError unless it is either three priors or a checkpoint, and the size is possible."""
        priors = (self.vision, self.language, self.video)
        if bool(self.checkpoint) == any(priors) or (any(priors) and not all(priors)):
            raise ConfigError("Give either --checkpoint, or all of --vision, --language and --video.")
        frames, height, width = self.size
        if frames < 1 or (frames - 1) % 8 or height % 16 or width % 16 or min(height, width) < 16:
            raise ConfigError(f"Clips of {frames}x{height}x{width} cannot be: frames are 1, 9, 17, ..., sides multiples of 16.")


class OwnCourse(Course):
    """The stages over own priors or an own checkpoint, on own rows.

    Args:
        out: of the run.
        stages: the way; sources without rows are left out.
        origin: what to start from.
        files: JSONL of rows, see :mod:`core.training.own_data`.
        strict: stop at the first bad row.
        longest: tokens a row may have.
        seed, device, samples: as in :class:`Course`.
    """

    parts = ("assemble", "stages", "export")
    fitting_rows = 8

    def __init__(
        self,
        out: Path,
        stages: tuple[Stage, ...],
        origin: Origin,
        files: list[Path],
        strict: bool = False,
        longest: int = 2048,
        seed: int = 0,
        device: str = "auto",
        samples: int = 4,
    ) -> None:
        super().__init__(out, stages, seed=seed, device=device, samples=samples)
        origin.check()
        if not files:
            raise ConfigError("Your own priors or checkpoint need your own rows: give them with --data.")
        self.origin, self.files, self.strict, self.longest = origin, files, strict, longest
        stages = with_sources(stages, self.data.training)
        self.stages = unguided(stages) if origin.checkpoint else stages  # a checkpoint comes without its priors

    @cached_property
    def start_folder(self) -> Path:
        """Where the stages start."""
        return resolve_checkpoint(self.origin.checkpoint) if self.origin.checkpoint else self.out / "assembled"

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        if self.origin.checkpoint:
            return self.processor.tokenizer
        return load_tokenizer(str(self.origin.language))

    @cached_property
    def processor(self) -> HaploOmniProcessor:
        """The model's."""
        if self.origin.checkpoint:
            return HaploOmniProcessor.from_pretrained(self.start_folder)
        self.assemble()
        return HaploOmniProcessor.for_config(HaploOmniConfig.from_pretrained(self.start_folder), self.tokenizer)

    @cached_property
    def vae(self) -> AutoencoderKLCogVideoX:
        if self.vae_folder is None:
            raise CheckpointError(f"{self.start_folder} has no autoencoder to learn generation with; name one with --vae.")
        try:
            vae = AutoencoderKLCogVideoX.from_pretrained(self.vae_folder, torch_dtype=torch.float32)
        except Exception as error:
            raise CheckpointError(f"No autoencoder can be loaded from {self.vae_folder}; name one with --vae.") from error
        return vae.to(self.processes.device)

    @cached_property
    def vae_folder(self) -> Path | None:
        """Where the autoencoder is; None if there is none."""
        place = resolve_checkpoint(self.origin.vae, ["vae/*"]) if self.origin.vae else self.start_folder
        if (place / "vae").is_dir():
            return place / "vae"
        return place if self.origin.vae else None

    @cached_property
    def teachers(self) -> Teachers:
        origin = self.origin
        if origin.checkpoint:
            raise ConfigError("Stage 1 learns from the three priors: start from them, or leave it out with --stages 2 3.")
        language = load_prior(Qwen2ForCausalLM, str(origin.language))
        if len(self.tokenizer) > language.get_input_embeddings().weight.shape[0]:
            language.resize_token_embeddings(len(self.tokenizer))
        vision = load_prior(CLIPVisionModel, str(origin.vision))
        return Teachers(vision, language, load_prior(CogVideoXTransformer3DModel, str(origin.video), "transformer"))

    def assemble(self) -> None:
        folder = self.out / "assembled"
        with self.processes.main_process_first():
            if self.origin.checkpoint or (folder / "config.json").exists():
                return
            torch.manual_seed(self.seed)
            image, clip, end = self.tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, VIDEO_TOKEN, TURN_END])
            pad = self.tokenizer.pad_token_id
            settings: dict[str, Any] = {"eos_token_id": end, "pad_token_id": end if pad is None else pad}
            connectors = {"pre_connector": CONNECTOR, "post_connector": CONNECTOR}
            teachers = self.teachers
            model = build_from_priors(teachers.vision, teachers.language, teachers.video, image, clip, **settings, **connectors)
            model.save_pretrained(folder)

    def prescale(self) -> None:
        """Set the starting values from the rows, once."""
        file = self.out / "assembled" / "amplitudes.json"
        with self.processes.main_process_first():
            if self.origin.checkpoint or file.exists() or not any(stage.warmup for stage in self.stages):
                return
            model = self.load(self.start_folder)
            report = self.start_values(model)
            model.save_pretrained(self.start_folder)
            write_amplitudes(report, file.parent)

    @cached_property
    def data(self) -> Data:
        rows = read_rows(self.files, self.processor, self.longest, self.strict)
        config = HaploOmniConfig.from_pretrained(self.start_folder)
        sentences, grouped = Sentences(self.tokenizer), config.visual_attention == "grouped"
        frames, height, width = self.origin.size

        def source(kind: Source, own: list[dict[str, Any]]) -> Any:
            if kind in (Source.PICTURE, Source.CLIP):
                return OwnTalks(own, self.processor, grouped)
            length = frames if kind is Source.VIDEO else 1
            return OwnClips(own, sentences, self.vae, self.out / "clips" / kind.value, length, height, width)

        kinds = {
            Source.PICTURE: rows.talks,
            Source.CLIP: rows.clip_talks,
            Source.STILL: rows.stills,
            Source.VIDEO: rows.videos,
        }
        seen, unseen = dict(kinds), {}
        for kind in (Source.PICTURE, Source.CLIP):  # rows to generate are encoded into numbered files: they are not split
            own = kinds[kind]
            if len(own) >= ENOUGH:
                unseen[kind] = own[::HELD_OUT_EVERY]
                seen[kind] = [row for number, row in enumerate(own) if number % HELD_OUT_EVERY]
        return Data(
            {kind: source(kind, own) for kind, own in seen.items() if own},
            {kind: source(kind, own) for kind, own in unseen.items()},
        )

    @cached_property
    def studio(self) -> Studio:
        training = self.data.training
        talks = [
            (row["messages"][:-1], row["messages"][-1]["content"][0]["text"])
            for kind in (Source.PICTURE, Source.CLIP)
            for row in getattr(training.get(kind), "rows", [])[: self.samples]
        ]
        prompts = [row["prompt"] for row in getattr(training.get(Source.VIDEO), "rows", [])[: self.samples]]
        return Studio(self.processor, self.vae if prompts else None, self.profile, talks, prompts, self.origin.size)

    @property
    def profile(self) -> dict[str, Any]:
        """The checkpoint's defaults, or the released ones."""
        own = self.start_folder / PROFILE_FILE
        return json.loads((own if own.is_file() else RELEASED_PROFILE).read_text(encoding="utf-8"))

    def run_stages(self) -> Path:
        self.prescale()
        return super().run_stages()

    def export(self) -> Path:
        return self._export(self.vae_folder, self.profile)
