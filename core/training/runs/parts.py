"""What a run is made with: autoencoder, tokenizer, priors, data; loaded when they are first asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import AutoTokenizer, CLIPVisionModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

from core.config import HaploOmniConfig
from core.errors import CheckpointError
from core.processor import HaploOmniProcessor
from core.profile import ChatDefaults, CheckpointProfile, GenerationDefaults, GenerationLimits, PromptForm
from core.training.data.dialogues import Context, SceneDialogues
from core.training.data.latents import CLIPS, STILLS, ClipShape, LatentClips, autoencoder_digest
from core.training.data.noise import NoiseBatch
from core.training.data.packing import PackedBatch
from core.training.data.tokenization import CachedTokenizer
from core.training.loop.processes import BatchShard
from core.training.loop.provenance import digest
from core.training.runs.samples import SampleWriter, scene_prompts, scene_talks
from core.training.stages.stage import Source
from core.training.stages.task import Data
from core.training.stages.teachers import Teachers
from core.weights.prior_loading import load_prior

# tokens of a training row about a picture and about a clip
LENGTHS = {Source.PICTURE: 224, Source.PAIR: 224, Source.CLIP: 288}
TALKED_ABOUT = {Source.PICTURE: Context.PICTURE, Source.PAIR: Context.PAIR, Source.CLIP: Context.CLIP}

# of the small model
DEFAULTS = CheckpointProfile(
    name="HaploOmni tiny",
    domain=(
        "Trained on drawn shapes only: red, orange, yellow, green, blue, purple, pink, white or black "
        "circles, squares, triangles, stars, hearts and rings, one to six of them, "
        "on a plain, striped, checkered, dotted, gradient or gridded background "
        "in black, gray, brown, navy, white, light blue, green or purple; "
        "they stay still, move straight, in circles or zigzags, bounce, grow, shrink, change colour, "
        "enter or leave, alone, together or in turn. It knows nothing else."
    ),
    generation=GenerationDefaults(
        height=128, width=128, num_frames=9, num_inference_steps=25, guidance_scale=6.0
    ),
    generation_limits=GenerationLimits(max_side=256, max_frames=49),
    generation_prompt=PromptForm(system=None, user="{prompt}"),
    chat=ChatDefaults(max_new_tokens=64, temperature=0.0, num_frames=4),
)


@dataclass(frozen=True)
class PriorSchedule:
    """Steps of everything before the stages, and clips of every shape."""

    autoencoder: int = 2900
    language: int = 900
    vision: int = 1800
    video_stills: int = 1000
    video: int = 16_400
    stills: tuple[ClipShape, ...] = STILLS
    clips: tuple[ClipShape, ...] = CLIPS
    held_out_clips: int = 80

    def scaled(self, factor: float) -> PriorSchedule:
        """All of it shorter (or longer), nothing below one."""

        def some(number: int) -> int:
            return max(1, round(number * factor))

        def fewer(shapes: tuple[ClipShape, ...]) -> tuple[ClipShape, ...]:
            return tuple(replace(shape, clips=some(shape.clips)) for shape in shapes)

        numbers = {name: some(value) for name, value in asdict(self).items() if isinstance(value, int)}
        return PriorSchedule(**numbers, stills=fewer(self.stills), clips=fewer(self.clips))

    @property
    def held_out(self) -> tuple[ClipShape, ClipShape]:
        """The pictures and clips that training never sees."""
        still = replace(self.stills[0], clips=self.held_out_clips)
        clip = replace(self.clips[0], clips=self.held_out_clips)
        return still, clip


class Parts(Protocol):
    """What stages are made with, and the checkpoint that comes of them."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the language prior."""

    @property
    def teachers(self) -> Teachers:
        """The three priors, which teach while their parts learn."""

    @property
    def data(self) -> Data:
        """What stages draw from and are measured on."""

    @property
    def sample_writer(self) -> SampleWriter | None:
        """Draws samples while stages learn; None for none."""

    @property
    def vae_folder(self) -> Path | None:
        """The autoencoder's; None if there is none."""

    @property
    def profile(self) -> CheckpointProfile:
        """What the exported checkpoint says of itself."""


def data_key(data: Data) -> str:
    """A short name of everything that the stages draw from."""
    return digest({source.value: rows.key for source, rows in data.training.items()})


def fixed_batches(data: Data, count: int = 4) -> list[PackedBatch | NoiseBatch]:
    """``count`` rows of every source, practice aside; always the same."""
    return [
        rows.sample_batch(f"amplitudes/{source.value}", count, BatchShard(0))
        for source, rows in data.training.items()
        if source is not Source.PAIR
    ]


def prior_folder(run: Path, name: str) -> Path:
    """Where a run has a prior, or the autoencoder."""
    return run / "priors" / name


def finished_prior(run: Path, name: str) -> Path:
    """The same.

    Raises:
        CheckpointError: it is not finished.
    """
    folder = prior_folder(run, name)
    if not (folder / "config.json").exists():
        raise CheckpointError(
            f"There is no {folder}; make it with python -m core.training {name} --out {run}."
        )
    return folder


class SceneParts:
    """The parts of a run from nothing: the priors that it trained itself, and drawn scenes.

    Args:
        base_run: folder of the run that has the priors and the clips.
        schedule: what they were made with.
        num_samples: clips drawn now and then while a stage learns, and twice as many answers.
    """

    def __init__(self, base_run: Path, schedule: PriorSchedule, num_samples: int = 0) -> None:
        self.base_run = base_run
        self.schedule = schedule
        self.num_samples = num_samples
        self.profile = DEFAULTS

    @property
    def vae_folder(self) -> Path:
        """Where the run's autoencoder is written."""
        return prior_folder(self.base_run, "autoencoder")

    @cached_property
    def vae(self) -> AutoencoderKLCogVideoX:
        """The trained autoencoder, in float32."""
        folder = finished_prior(self.base_run, "autoencoder")
        try:
            return AutoencoderKLCogVideoX.from_pretrained(folder, torch_dtype=torch.float32)
        except Exception as error:
            raise CheckpointError(
                f"No autoencoder can be loaded from {folder}; delete it to make it anew."
            ) from error

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that was trained with the language prior."""
        return AutoTokenizer.from_pretrained(finished_prior(self.base_run, "language"))

    @cached_property
    def sentences(self) -> CachedTokenizer:
        """The same with what it has read before."""
        return CachedTokenizer(self.tokenizer)

    @cached_property
    def teachers(self) -> Teachers:
        """The run's three priors, in float32."""
        run = self.base_run
        return Teachers(
            load_prior(CLIPVisionModel, str(finished_prior(run, "vision"))),
            load_prior(Qwen2ForCausalLM, str(finished_prior(run, "language"))),
            load_prior(CogVideoXTransformer3DModel, str(finished_prior(run, "video"))),
        )

    @cached_property
    def stills(self) -> LatentClips:
        """Pictures to denoise, encoded by this run's autoencoder."""
        return self._encoded(self.schedule.stills)

    @cached_property
    def clips(self) -> LatentClips:
        """Clips to denoise, encoded by this run's autoencoder."""
        return self._encoded(self.schedule.clips)

    def _encoded(self, shapes: tuple[ClipShape, ...], held_out: bool = False) -> LatentClips:
        folder = self.base_run / ("clips-held-out" if held_out else "clips")
        return LatentClips(self.sentences, folder, shapes, autoencoder_digest(self.vae), held_out)

    @cached_property
    def data(self) -> Data:
        """Drawn scenes to talk about and to denoise; held-out ones to measure on."""
        talks = {
            source: SceneDialogues(self.sentences, medium, LENGTHS[source])
            for source, medium in TALKED_ABOUT.items()
        }
        unseen_talks = {
            source: SceneDialogues(self.sentences, TALKED_ABOUT[source], LENGTHS[source], held_out=True)
            for source in (Source.PICTURE, Source.CLIP)
        }
        still, clip = self.schedule.held_out
        unseen_noise = {
            Source.STILL: self._encoded((still,), held_out=True),
            Source.VIDEO: self._encoded((clip,), held_out=True),
        }
        noise = {Source.STILL: self.stills, Source.VIDEO: self.clips}
        return Data({**talks, **noise}, {**unseen_talks, **unseen_noise})

    @cached_property
    def sample_writer(self) -> SampleWriter | None:
        """What is drawn while stages learn."""
        count = self.num_samples
        if not count:
            return None
        config = HaploOmniConfig.from_pretrained(self.base_run / "assembled")
        processor = HaploOmniProcessor.for_config(config, self.tokenizer)
        talks = scene_talks(2 * count)
        return SampleWriter(processor, self.vae, self.profile, talks, scene_prompts(count), (9, 128, 128))
