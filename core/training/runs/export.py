"""The last step of a run: its newest weights as a checkpoint in the released layout."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from transformers import PreTrainedTokenizerBase

from core.files import SHIPPED_SHARD_BYTES
from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniProcessor
from core.profile import PREVIEW_FILE, CheckpointProfile
from core.schedule import build_scheduler
from core.training.runs.parts import DEFAULTS, Parts
from core.training.runs.run import RunContext
from core.training.runs.stage_steps import load_model


@dataclass
class ExportStep:
    """Writes ``checkpoint`` of the run; the main process alone does it.

    Args:
        context: of the run.
        parts: autoencoder, tokenizer and the checkpoint's defaults.
        weights: which weights, when its turn comes.
    """

    context: RunContext
    parts: Parts
    weights: Callable[[], Path]
    name: str = "export"

    def is_done(self) -> bool:
        """Never: what was written may be of weights before the newest, and writing takes seconds."""
        return False

    def run(self) -> None:
        """Write the checkpoint anew from the newest weights."""
        if self.context.processes.is_main_process:
            parts = self.parts
            model = load_model(self.weights())
            folder = self.context.folder / "checkpoint"
            export_checkpoint(folder, model, parts.tokenizer, parts.vae_folder, parts.profile)


def export_checkpoint(
    folder: Path,
    model: HaploOmniForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    vae: Path | None,
    profile: CheckpointProfile = DEFAULTS,
) -> None:
    """Write weights in bfloat16, tokenizer, processors, VAE, scheduler, preview factors and the defaults.

    Args:
        folder: of the checkpoint; made if missing.
        model: what is written; it is not changed.
        tokenizer: the language prior's.
        vae: the autoencoder's folder; its preview factors, if any, come along. None: a model that only talks.
        profile: what the defaults file says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).bfloat16()
    half.save_pretrained(folder, max_shard_size=SHIPPED_SHARD_BYTES)
    config: Any = model.config
    HaploOmniProcessor.for_config(config, tokenizer).save_pretrained(folder)
    if vae is not None:
        half_vae = AutoencoderKLCogVideoX.from_pretrained(vae, torch_dtype=torch.bfloat16)
        half_vae.save_pretrained(folder / "vae", max_shard_size=SHIPPED_SHARD_BYTES)
        _forget_origin(folder / "vae" / "config.json")
        previews = [file for file in (vae / PREVIEW_FILE, vae.parent / PREVIEW_FILE) if file.is_file()]
        if previews:
            shutil.copyfile(previews[0], folder / PREVIEW_FILE)
    build_scheduler().save_pretrained(folder / "scheduler")
    profile.save(folder)


def _forget_origin(file: Path) -> None:
    """Drop the path that diffusers notes: where something was read from is nobody's business."""
    settings = json.loads(file.read_text())
    settings.pop("_name_or_path", None)
    file.write_text(json.dumps(settings, indent=2) + "\n")
