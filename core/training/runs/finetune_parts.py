"""What training on people's own things is made with: their priors or checkpoint, autoencoder and rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import CLIPVisionModel, PreTrainedTokenizerBase, Qwen2ForCausalLM

from core.config import HaploOmniConfig
from core.errors import CheckpointError, ConfigError
from core.geometry import is_legal_length, is_legal_side
from core.processor import HaploOmniProcessor
from core.profile import CheckpointProfile
from core.training.data.jsonl_dataset import ConversationDataset, LatentVideoDataset
from core.training.data.rows import read_rows
from core.training.data.tokenization import CachedTokenizer
from core.training.loop.provenance import folder_digest
from core.training.runs.run import RunContext
from core.training.runs.samples import SampleWriter
from core.training.stages.stage import Source
from core.training.stages.task import Data, Rows
from core.training.stages.teachers import Teachers
from core.weights import read_profile
from core.weights.prior_loading import load_prior, load_tokenizer
from core.weights.resolve import resolve_checkpoint

HELD_OUT_EVERY = 20  # of enough rows, one in so many is kept for measuring
ENOUGH = 40
FURTHER = ", trained further"  # what is added to the name of the checkpoint that a run starts from


@dataclass(frozen=True)
class BaseModelSource:
    """Where a finetuning starts: three priors, or a HaploOmni checkpoint; folders or hub ids.

    Args:
        vision: a CLIP vision model.
        language: a Qwen2 causal language model with its tokenizer.
        video: a CogVideoX transformer.
        checkpoint: a HaploOmni, instead of these three.
        vae: an AutoencoderKLCogVideoX; by default the checkpoint's.
        size: (frames, height, width) of the clips to generate, in pixels.
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
        if not (is_legal_length(frames) and is_legal_side(height) and is_legal_side(width)):
            raise ConfigError(
                f"Clips of {frames}x{height}x{width} cannot be: "
                "frames are 1, 9, 17, ..., sides multiples of 16."
            )

    def prior_digests(self) -> dict[str, str]:
        """Short names of the priors' files by prior; of one on a hub, its id."""
        given = {"vision": self.vision, "language": self.language, "video": self.video}
        return {name: _prior_digest(str(place), name) for name, place in given.items()}


def _prior_digest(given: str, name: str) -> str:
    folder = Path(given)
    if not folder.is_dir():
        return given
    inner = folder / "transformer"
    return folder_digest(inner if name == "video" and inner.is_dir() else folder)


@dataclass(eq=False)
class FinetuneParts:
    """The parts of a finetuning.

    Args:
        context: of the run.
        source: what it starts from.
        files: JSONL of rows.
        strict: stop at the first bad row.
        longest: tokens a row may have.
        num_samples: clips drawn now and then, and as many answers about pictures and about clips.
    """

    context: RunContext
    source: BaseModelSource
    files: list[Path]
    strict: bool
    longest: int
    num_samples: int

    @cached_property
    def model_folder(self) -> Path:
        """The model that the stages start from: the checkpoint, or the run's assembled one."""
        if self.source.checkpoint:
            return resolve_checkpoint(self.source.checkpoint)
        return self.context.folder / "assembled"

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The language prior's, or the checkpoint's."""
        if self.source.checkpoint:
            return self.processor.tokenizer
        return load_tokenizer(str(self.source.language))

    @cached_property
    def config(self) -> HaploOmniConfig:
        """Of the model that the stages start from."""
        return HaploOmniConfig.from_pretrained(self.model_folder)

    @cached_property
    def processor(self) -> HaploOmniProcessor:
        """Of the checkpoint, or made for the assembled model."""
        if self.source.checkpoint:
            return HaploOmniProcessor.from_pretrained(self.model_folder)
        return HaploOmniProcessor.for_config(self.config, self.tokenizer)

    @cached_property
    def vae_folder(self) -> Path | None:
        """Where the autoencoder is; None if there is none."""
        given = self.source.vae
        place = resolve_checkpoint(given, ["vae/*"]) if given else self.model_folder
        if (place / "vae").is_dir():
            return place / "vae"
        return place if given else None

    @cached_property
    def vae(self) -> AutoencoderKLCogVideoX:
        """The autoencoder in float32, on the run's device."""
        if self.vae_folder is None:
            raise CheckpointError(
                f"{self.model_folder} has no autoencoder to learn generation with; name one with --vae."
            )
        try:
            vae = AutoencoderKLCogVideoX.from_pretrained(self.vae_folder, torch_dtype=torch.float32)
        except Exception as error:
            raise CheckpointError(
                f"No autoencoder can be loaded from {self.vae_folder}; name one with --vae."
            ) from error
        return vae.to(self.context.processes.device)

    @cached_property
    def teachers(self) -> Teachers:
        """The three priors.

        Raises:
            ConfigError: a checkpoint comes without them.
        """
        source = self.source
        if source.checkpoint:
            raise ConfigError(
                "Stage 1 learns from the three priors: start from them, or leave it out with --stages 2 3."
            )
        language = load_prior(Qwen2ForCausalLM, str(source.language))
        if len(self.tokenizer) > language.get_input_embeddings().weight.shape[0]:
            language.resize_token_embeddings(len(self.tokenizer))
        vision = load_prior(CLIPVisionModel, str(source.vision))
        video = load_prior(CogVideoXTransformer3DModel, str(source.video), "transformer")
        return Teachers(vision, language, video)

    @cached_property
    def data(self) -> Data:
        """The rows; clips to generate are encoded on the way."""
        rows = read_rows(self.files, self.processor, self.longest, self.strict)
        seen = {
            Source.PICTURE: rows.conversations,
            Source.CLIP: rows.clip_conversations,
            Source.STILL: rows.stills,
            Source.VIDEO: rows.videos,
        }
        unseen = {}
        # rows to generate are encoded into numbered files: they are not split
        for kind in (Source.PICTURE, Source.CLIP):
            own = seen[kind]
            if len(own) >= ENOUGH:
                unseen[kind] = own[::HELD_OUT_EVERY]
                seen[kind] = [row for number, row in enumerate(own) if number % HELD_OUT_EVERY]
        return Data(
            {kind: self._dataset(kind, own) for kind, own in seen.items() if own},
            {kind: self._dataset(kind, own) for kind, own in unseen.items()},
        )

    @cached_property
    def _sentences(self) -> CachedTokenizer:
        return CachedTokenizer(self.tokenizer)

    def _dataset(self, kind: Source, rows: list[dict[str, Any]]) -> Rows:
        if kind in (Source.PICTURE, Source.CLIP):
            return ConversationDataset(rows, self.processor, self.config.visual_attention == "grouped")
        frames, height, width = self.source.size
        if kind is Source.STILL:
            frames = 1
        folder = self.context.folder / "clips" / kind.value
        return LatentVideoDataset(rows, self._sentences, self.vae, folder, frames, height, width)

    @cached_property
    def sample_writer(self) -> SampleWriter | None:
        """Draws what the first rows ask for."""
        if not self.num_samples:
            return None
        talks = [
            (row["messages"][:-1], row["messages"][-1]["content"][0]["text"])
            for kind in (Source.PICTURE, Source.CLIP)
            for row in self._first_rows(kind)
        ]
        prompts = [row["prompt"] for row in self._first_rows(Source.VIDEO)]
        vae = self.vae if prompts else None
        return SampleWriter(self.processor, vae, self.profile, talks, prompts, self.source.size)

    def _first_rows(self, kind: Source) -> list[dict[str, Any]]:
        return getattr(self.data.training.get(kind), "rows", [])[: self.num_samples]

    @property
    def profile(self) -> CheckpointProfile:
        """The checkpoint's defaults under a name of its own: it is no longer what it started from."""
        start = read_profile(self.model_folder)
        if start.name.endswith(FURTHER):
            return start
        domain = f"Trained further on own rows; of what it started from it is said: {start.domain}"
        return replace(start, name=f"{start.name}{FURTHER}", domain=domain)
