"""A checkpoint folder to everything the pipelines need."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler
from torch import nn

from core.config import HaploOmniConfig
from core.errors import CheckpointError, ConfigError, HaploOmniError
from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniProcessor
from core.weights.resolve import RELEASED_VAE, resolve_checkpoint, verify_checkpoint, verify_config, verify_safetensors

PROFILE_FILE = "haploomni.json"
RELEASED_PROFILE = Path(__file__).with_name("released_profile.json")


@dataclass(frozen=True)
class Holding:
    """How weights are held in memory, where that is not simply "as stored, on one device".

    Args:
        quantization: transformers' quantization config; None keeps the weights as they are stored.
        read_to: where weights are read (and quantized) to; by default the CPU.
        place: moves the model and the autoencoder to where they work; by default all of both to the device.
    """

    quantization: Any = None
    read_to: torch.device | None = None
    place: Callable[[nn.Module, nn.Module, torch.device], None] | None = None


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


def read_config(folder: Path) -> HaploOmniConfig:
    """The configuration of a checkpoint folder, before anything else is read.

    Raises:
        CheckpointError: there is none, or it describes no possible model.
    """
    verify_config(folder)
    try:
        return HaploOmniConfig.from_pretrained(folder)
    except ConfigError as error:
        raise CheckpointError(f"{folder / 'config.json'} describes no possible model: {error}") from error


def read_profile(folder: Path) -> dict[str, Any]:
    """A checkpoint's defaults and limits; those of the released weights where it has none of its own."""
    own = folder / PROFILE_FILE
    profile: dict[str, Any] = json.loads((own if own.is_file() else RELEASED_PROFILE).read_text(encoding="utf-8"))
    return profile


def load_checkpoint(
    name: str | Path | None,
    device: torch.device,
    dtype: torch.dtype,
    vae: str | Path | None = None,
    holding: Holding | None = None,
) -> LoadedCheckpoint:
    """Resolve, verify and load a checkpoint onto ``device``.

    Args:
        vae: folder or hub id with ``vae/`` and ``scheduler/``; by default the checkpoint's own, else CogVideoX-2b's.
        holding: quantized, offloaded or both.

    Raises:
        CheckpointError: a file is missing, cut or foreign, with the file's name.
    """
    holding = holding or Holding()
    folder = resolve_checkpoint(name)
    verify_checkpoint(folder)
    read_config(folder)
    own = (folder / "vae").is_dir()
    vae_folder = folder if vae is None and own else resolve_checkpoint(vae or RELEASED_VAE, ["vae/*", "scheduler/*"])
    autoencoder, scheduler = _load_diffusion_parts(vae_folder, torch.float32 if device.type == "cpu" else dtype)
    try:
        model = HaploOmniForConditionalGeneration.from_pretrained(folder, dtype=dtype, **_reading(holding))
        processor = HaploOmniProcessor.from_pretrained(folder)
    except HaploOmniError:
        raise
    except Exception as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be loaded: {error}") from error
    profile = read_profile(folder)
    preview_file = vae_folder / "preview.json"
    preview = json.loads(preview_file.read_text(encoding="utf-8")) if preview_file.is_file() else None
    model, autoencoder = model.eval(), autoencoder.eval()
    if holding.place is not None:
        holding.place(model, autoencoder, device)
    else:
        model, autoencoder = model.to(device), autoencoder.to(device)
    return LoadedCheckpoint(folder, model, processor, autoencoder, scheduler, profile, preview)


def _reading(holding: Holding) -> dict[str, Any]:
    """What ``from_pretrained`` is told about quantization and devices."""
    told: dict[str, Any] = {} if holding.quantization is None else {"quantization_config": holding.quantization}
    return told if holding.read_to is None else {**told, "device_map": {"": holding.read_to}}


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
