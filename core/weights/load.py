"""A checkpoint folder to everything the pipelines need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler

from core.errors import CheckpointError, ConfigError, HaploOmniError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniProcessor
from core.weights.resolve import RELEASED_VAE, resolve_checkpoint, verify_checkpoint, verify_safetensors

PROFILE_FILE = "haploomni.json"
RELEASED_PROFILE = Path(__file__).with_name("released_profile.json")


@dataclass
class LoadedCheckpoint:
    """The parts of a checkpoint. ``profile`` holds its defaults, limits and prompt form; ``preview`` its RGB factors."""

    folder: Path
    model: HaploOmniForConditionalGeneration
    processor: HaploOmniProcessor
    vae: AutoencoderKLCogVideoX
    scheduler: CogVideoXDDIMScheduler
    profile: dict[str, Any]
    preview: dict[str, Any] | None


def load_checkpoint(
    name: str | Path | None, device: torch.device, dtype: torch.dtype, vae: str | Path | None = None
) -> LoadedCheckpoint:
    """Resolve, verify and load a checkpoint onto ``device``.

    Args:
        vae: folder or hub id with ``vae/`` and ``scheduler/``; by default the checkpoint's own, else CogVideoX-2b's.

    Raises:
        CheckpointError: a file is missing, cut or foreign, with the file's name.
    """
    folder = resolve_checkpoint(name)
    verify_checkpoint(folder)
    own = (folder / "vae").is_dir()
    vae_folder = folder if vae is None and own else resolve_checkpoint(vae or RELEASED_VAE, ["vae/*", "scheduler/*"])
    autoencoder, scheduler = _load_diffusion_parts(vae_folder, torch.float32 if device.type == "cpu" else dtype)
    try:
        model = HaploOmniForConditionalGeneration.from_pretrained(folder, dtype=dtype)
        processor = HaploOmniProcessor.from_pretrained(folder)
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'} describes no possible model: {error}") from error
    except HaploOmniError:
        raise
    except Exception as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be loaded: {error}") from error
    profile_file = folder / PROFILE_FILE
    profile = json.loads((profile_file if profile_file.is_file() else RELEASED_PROFILE).read_text(encoding="utf-8"))
    preview_file = vae_folder / "preview.json"
    preview = json.loads(preview_file.read_text(encoding="utf-8")) if preview_file.is_file() else None
    autoencoder = autoencoder.to(device).eval()
    return LoadedCheckpoint(folder, model.to(device).eval(), processor, autoencoder, scheduler, profile, preview)


def _load_diffusion_parts(folder: Path, dtype: torch.dtype) -> tuple[AutoencoderKLCogVideoX, CogVideoXDDIMScheduler]:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    for file in (folder / "vae" / "config.json", weights, folder / "scheduler" / "scheduler_config.json"):
        if not file.is_file():
            raise CheckpointError(f"The autoencoder folder {folder} has no {file.relative_to(folder)}; name one with --vae.")
    verify_safetensors(weights)
    try:
        vae, info = AutoencoderKLCogVideoX.from_pretrained(
            folder,
            subfolder="vae",
            torch_dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            low_cpu_mem_usage=False,
        )
        scheduler = CogVideoXDDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    except Exception as error:
        raise CheckpointError(f"The autoencoder in {folder} cannot be loaded: {error}") from error
    foreign = [*info["missing_keys"], *info["unexpected_keys"]]
    if foreign:
        raise CheckpointError(f"{weights} does not fit its config.json: {foreign[0]} is missing or unexpected.")
    return vae, scheduler
