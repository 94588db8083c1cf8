"""The steps before the stages of a run from nothing: autoencoder, language, vision, encoded clips, video."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from torch import Tensor
from transformers import Qwen2ForCausalLM

from core.training.data.latents import encode_clips
from core.training.loop.config import Optimizer, TrainingConfig
from core.training.loop.provenance import FILE, claim, digest, folder_digest, whole_folder
from core.training.loop.task import SavedTask
from core.training.loop.trainer import fit
from core.training.priors.autoencoder import AutoencoderTask, build_autoencoder, widened
from core.training.priors.language import LanguagePrior
from core.training.priors.latent_statistics import latent_moments, whiten_latents
from core.training.priors.tokenizer import build_tokenizer
from core.training.priors.video import VideoPrior
from core.training.priors.vision import VisionPrior
from core.training.runs.parts import SceneParts, finished_prior, prior_folder
from core.training.runs.run import RunContext
from core.weights.prior_loading import load_prior

AUTOENCODER = TrainingConfig(0, 2.5e-3, betas=(0.9, 0.98), weight_decay=1e-4, clip_norm=0.5, ema=0.995)
MUON = TrainingConfig(0, 2e-3, optimizer=Optimizer.MUON, betas=(0.9, 0.98), ema=0.995)


def muon_config(steps: int, **changes: Any) -> TrainingConfig:
    """How a prior of transformer blocks learns in so many steps."""
    return replace(MUON, steps=steps, warmup=min(40, max(1, steps // 10)), **changes)


@dataclass
class PriorStep:
    """Trains a prior (or the autoencoder) into ``priors`` of the run.

    Args:
        name: of the prior and of the folder that it is trained in.
        context: of the run.
        inputs: what it is made of, besides the seed.
        train: trains it.
    """

    name: str
    context: RunContext
    inputs: Callable[[], dict[str, Any]]
    train: Callable[[], None]

    @property
    def folder(self) -> Path:
        """Where it is trained."""
        return self.context.folder / self.name

    def is_done(self) -> bool:
        """Whether the prior is there; one that was put there by hand need not say what it was made of."""
        done = (prior_folder(self.context.folder, self.name) / "config.json").exists()
        if done and (self.folder / FILE).is_file():
            self.claim()
        return done

    def claim(self) -> None:
        """Write down what it is made of, or see that what was begun is made of the same.

        Raises:
            CheckpointError: it is not.
        """
        inputs = {"seed": self.context.seed, **self.inputs()}
        with self.context.processes.main_process_first():
            claim(self.folder, inputs, found=any(self.folder.glob("state-*")))

    def run(self) -> None:
        """Train it, or go on."""
        self.claim()
        self.train()


def fit_prior(
    context: RunContext, name: str, task: SavedTask, config: TrainingConfig, prior: str = ""
) -> None:
    """Train in the run's folder ``name``, and write the result as the prior of that name, or as ``prior``."""

    def save(_: dict[str, Tensor]) -> None:
        with whole_folder(prior_folder(context.folder, prior or name)) as folder:
            task.save(folder)

    fit(context.folder / name, task, replace(config, seed=context.seed), context.device, on_finish=save)


def first_autoencoder(start: Path | None) -> AutoencoderKLCogVideoX:
    """A new autoencoder, or an earlier, perhaps narrower one in the width of today's."""
    if start is None:
        return build_autoencoder()
    return widened(AutoencoderKLCogVideoX.from_pretrained(start, torch_dtype=torch.float32))


def autoencoder_step(context: RunContext, steps: int, start: Path | None) -> PriorStep:
    """Trains the autoencoder in so many steps, then its decoder alone."""

    def train() -> None:
        torch.manual_seed(context.seed)
        lr = 1.2e-3 if start else AUTOENCODER.lr
        config = replace(AUTOENCODER, steps=steps, lr=lr, seed=context.seed)
        whole = AutoencoderTask(first_autoencoder(start), seed=context.seed)
        fit(context.folder / "autoencoder", whole, config, context.device)
        # a state of the decoder to go on from is balanced already
        if not any((context.folder / "autoencoder-decoder").glob("state-*")):
            whiten_latents(whole.vae, *latent_moments(whole.vae))
        rest = replace(config, steps=max(1, steps * 2 // 3), lr=lr * 0.6)
        decoder = AutoencoderTask(whole.vae, decoder_only=True, seed=context.seed)
        fit_prior(context, "autoencoder-decoder", decoder, rest, prior="autoencoder")

    def inputs() -> dict[str, Any]:
        return {"steps": steps, "start": folder_digest(start) if start else None}

    return PriorStep("autoencoder", context, inputs, train)


def language_step(context: RunContext, steps: int) -> PriorStep:
    """Trains the language prior and its tokenizer."""

    def train() -> None:
        task = LanguagePrior(build_tokenizer(), seed=context.seed)
        fit_prior(context, "language", task, muon_config(steps))

    return PriorStep("language", context, lambda: {"steps": steps}, train)


def vision_step(context: RunContext, steps: int) -> PriorStep:
    """Trains the vision prior."""

    def train() -> None:
        fit_prior(context, "vision", VisionPrior(seed=context.seed), muon_config(steps))

    return PriorStep("vision", context, lambda: {"steps": steps}, train)


@dataclass
class EncodeClips:
    """Encodes the clips to denoise, and some that training never sees; every process takes its share."""

    context: RunContext
    parts: SceneParts
    name: str = "clips"

    def is_done(self) -> bool:
        """Never: files are looked into one by one, and only what is missing or damaged is encoded."""
        return False

    def run(self) -> None:
        """Encode what is missing."""
        processes = self.context.processes
        schedule = self.parts.schedule
        folder = self.parts.base_run
        seed = self.context.seed
        vae = self.parts.vae.to(processes.device)
        share = {"process": processes.process_index, "processes": processes.num_processes}
        encode_clips(vae, folder / "clips", schedule.stills + schedule.clips, seed, **share)
        encode_clips(vae, folder / "clips-held-out", schedule.held_out, seed, held_out=True, **share)


def video_step(context: RunContext, parts: SceneParts) -> PriorStep:
    """Trains the video prior: with single pictures first, then with clips too."""
    schedule = parts.schedule

    def train() -> None:
        language = load_prior(Qwen2ForCausalLM, str(finished_prior(context.folder, "language")))
        task = VideoPrior(language, parts.stills, parts.clips, 64, 0, context.seed)
        fit_prior(context, "video-stills", task, muon_config(schedule.video_stills, ema=0.998))
        task = VideoPrior(language, parts.stills, parts.clips, 16, 20, context.seed + 1)
        stills = prior_folder(context.folder, "video-stills")
        task.video.load_state_dict(load_prior(CogVideoXTransformer3DModel, str(stills)).state_dict())
        fit_prior(context, "video", task, muon_config(schedule.video, lr=1.5e-3, ema=0.998))

    def inputs() -> dict[str, Any]:
        steps = {"stills": schedule.video_stills, "clips": schedule.video}
        language = folder_digest(finished_prior(context.folder, "language"))
        return {"steps": steps, "language": language, "clips": digest(parts.stills.key, parts.clips.key)}

    return PriorStep("video", context, inputs, train)
