"""A finished run to a checkpoint folder in the released layout, with autoencoder, scheduler and defaults."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX
from transformers import PreTrainedTokenizerBase

from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniProcessor
from core.training.autoencoder import PREVIEW_FILE
from core.training.video import build_scheduler

DEFAULTS = {
    "name": "HaploOmni tiny",
    "knows": (
        "Trained on drawn shapes only: red, orange, yellow, green, blue, purple, pink or white circles, squares, "
        "triangles, stars, hearts and rings, one to four of them, on a plain, striped, checkered or dotted background in "
        "black, gray, brown or navy; they stay still, move, grow, shrink, enter or leave. It knows nothing else."
    ),
    "generation": {"height": 128, "width": 128, "num_frames": 9, "num_inference_steps": 25, "guidance_scale": 6.0},
    "generation_limits": {"max_side": 256, "max_frames": 49},
    "generation_prompt": {"system": None, "user": "{prompt}"},
    "chat": {"max_new_tokens": 64, "temperature": 0.0, "num_frames": 4},
}


def export_checkpoint(
    folder: Path,
    model: HaploOmniForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    vae: Path | None,
    profile: dict[str, Any] | None = None,
) -> None:
    """Write weights in bfloat16, tokenizer, processors, VAE, scheduler, preview factors and the defaults file.

    Args:
        vae: the autoencoder's folder; its preview factors, if it has any, come along. None: a checkpoint that only talks.
        profile: what the defaults file says; by default the small model's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    half = copy.deepcopy(model).to(torch.bfloat16)
    half.save_pretrained(folder)
    HaploOmniProcessor.for_config(model.config, tokenizer).save_pretrained(folder)
    if vae is not None:
        AutoencoderKLCogVideoX.from_pretrained(vae, torch_dtype=torch.bfloat16).save_pretrained(folder / "vae")
        _forget_origin(folder / "vae" / "config.json")
        previews = [file for file in (vae / PREVIEW_FILE, vae.parent / PREVIEW_FILE) if file.is_file()]
        if previews:
            shutil.copyfile(previews[0], folder / PREVIEW_FILE)
    build_scheduler().save_pretrained(folder / "scheduler")
    (folder / "haploomni.json").write_text(json.dumps(profile or DEFAULTS, indent=2) + "\n")


def _forget_origin(file: Path) -> None:
    """Drop the path that diffusers notes: where something was read from is nobody's business."""
    settings = json.loads(file.read_text())
    settings.pop("_name_or_path", None)
    file.write_text(json.dumps(settings, indent=2) + "\n")
