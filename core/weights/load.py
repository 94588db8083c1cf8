"""A checkpoint folder to everything the pipelines need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXDDIMScheduler
from torch import nn

from core.config import HaploOmniConfig
from core.errors import CheckpointError, HaploOmniError
from core.files import read_plain_json, stored_shapes, weight_files
from core.geometry import LATENT_CHANNELS, SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION
from core.model.meta import tensor_shapes
from core.model.modeling import HaploOmniForConditionalGeneration
from core.processor import HaploOmniProcessor
from core.profile import (
    PREVIEW_FILE,
    PROFILE_FILE,
    CheckpointProfile,
    PreviewFactors,
    default_profile,
    is_released_size,
    read_preview_file,
    read_profile_file,
)
from core.weights.resolve import (
    RELEASED_VAE,
    in_a_line,
    read_config,
    resolve_checkpoint,
    verify_checkpoint,
    verify_generation,
)


@dataclass(frozen=True)
class LoadOptions:
    """How weights are held in memory, where that is not simply "as stored, on one device".

    Args:
        quantization: transformers' quantization config; None keeps the weights as they are stored.
        load_device: where weights are read (and quantized) to; by default the CPU.
        dispatch: brings the model and the autoencoder to where they work; by default both to the device.
    """

    quantization: Any = None
    load_device: torch.device | None = None
    dispatch: Callable[[nn.Module, nn.Module, torch.device], None] | None = None


@dataclass
class LoadedCheckpoint:
    """A checkpoint in memory.

    Args:
        folder: where it was read from.
        model, vae: in evaluation mode, where they work.
        processor, scheduler: what goes with them.
        profile: its defaults, limits and prompt form.
        preview: its factors from latents to RGB; None: they have to be measured.
    """

    folder: Path
    model: HaploOmniForConditionalGeneration
    processor: HaploOmniProcessor
    vae: AutoencoderKLCogVideoX
    scheduler: CogVideoXDDIMScheduler
    profile: CheckpointProfile
    preview: PreviewFactors | None


def read_profile(folder: Path) -> CheckpointProfile:
    """A checkpoint's own defaults and limits; where it has none, those that its sizes allow.

    Raises:
        CheckpointError: ``haploomni.json`` or ``config.json`` is damaged or contradictory.
    """
    if (folder / PROFILE_FILE).is_file():
        return read_profile_file(folder / PROFILE_FILE)
    config = read_config(folder)
    return default_profile(config, sum(map(prod, tensor_shapes(config).values())))


def load_checkpoint(
    name: str | Path | None,
    device: torch.device,
    dtype: torch.dtype,
    vae: str | Path | None = None,
    options: LoadOptions | None = None,
) -> LoadedCheckpoint:
    """Resolve, verify and load a checkpoint onto ``device``.

    Args:
        name: folder or hub id; None is the bundled checkpoint.
        dtype: of the model's weights; on a CPU the autoencoder is in float32 all the same.
        vae: folder or hub id with ``vae/`` and ``scheduler/``.
            By default the checkpoint's own, else CogVideoX-2b's.
        options: quantized, offloaded or both.

    Raises:
        CheckpointError: a file is missing, cut or foreign, with the file's name.
    """
    options = options or LoadOptions()
    folder = resolve_checkpoint(name)
    verify_checkpoint(folder)
    config = read_config(folder)
    profile = read_profile(folder)
    verify_generation(folder, config.vocab_size)
    vae_folder = _autoencoder_folder(folder, vae, config)
    autoencoder, scheduler = _load_diffusion_parts(
        vae_folder, torch.float32 if device.type == "cpu" else dtype
    )
    try:
        model = HaploOmniForConditionalGeneration.from_pretrained(folder, dtype=dtype, **_reading(options))
        processor = HaploOmniProcessor.from_pretrained(folder)
    except HaploOmniError:
        raise
    except Exception as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be loaded: {in_a_line(error)}") from error
    preview = None
    if (vae_folder / PREVIEW_FILE).is_file():
        preview = read_preview_file(vae_folder / PREVIEW_FILE)
    model.eval()
    autoencoder.eval()
    if options.dispatch is not None:
        options.dispatch(model, autoencoder, device)
    else:
        model.to(device)
        autoencoder.to(device)
    return LoadedCheckpoint(folder, model, processor, autoencoder, scheduler, profile, preview)


def _reading(options: LoadOptions) -> dict[str, Any]:
    """What ``from_pretrained`` is told about quantization and devices."""
    told: dict[str, Any] = {}
    if options.quantization is not None:
        told["quantization_config"] = options.quantization
    if options.load_device is not None:
        told["device_map"] = {"": options.load_device}
    return told


def _autoencoder_folder(folder: Path, wanted: str | Path | None, config: HaploOmniConfig) -> Path:
    """Where ``vae/`` and ``scheduler/`` are: as wanted, the checkpoint's own, or CogVideoX-2b's."""
    if wanted is not None:
        return resolve_checkpoint(wanted, ["vae/*", "scheduler/*", PREVIEW_FILE])
    if (folder / "vae").is_dir():
        return folder
    if is_released_size(config):
        return resolve_checkpoint(RELEASED_VAE, ["vae/*", "scheduler/*"])
    raise CheckpointError(
        f"The checkpoint {folder} has no autoencoder; "
        "name a folder or hub id with its vae/ and scheduler/ by --vae."
    )


def _load_diffusion_parts(
    folder: Path, dtype: torch.dtype
) -> tuple[AutoencoderKLCogVideoX, CogVideoXDDIMScheduler]:
    for file in (folder / "vae" / "config.json", folder / "scheduler" / "scheduler_config.json"):
        if not file.is_file():
            raise CheckpointError(
                f"The autoencoder folder {folder} has no {file.relative_to(folder)}; name one with --vae."
            )
        read_plain_json(file)
    stored_shapes(weight_files(folder / "vae", "diffusion_pytorch_model"))  # whole, or refused
    return _load_autoencoder(folder / "vae", dtype), _load_scheduler(folder / "scheduler")


def _load_autoencoder(folder: Path, dtype: torch.dtype) -> AutoencoderKLCogVideoX:
    file = folder / "config.json"
    if read_plain_json(file).get("_class_name") != "AutoencoderKLCogVideoX":
        raise CheckpointError(
            f"{file} does not describe an AutoencoderKLCogVideoX; name another folder with --vae."
        )
    try:
        vae, info = AutoencoderKLCogVideoX.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, output_loading_info=True, low_cpu_mem_usage=False
        )
        own = vae.config
        fits = (
            own.latent_channels == LATENT_CHANNELS
            and own.temporal_compression_ratio == TEMPORAL_COMPRESSION
            and 2 ** (len(own.block_out_channels) - 1) == SPATIAL_COMPRESSION
            and 0 < own.scaling_factor < float("inf")
        )
        with torch.no_grad():  # tried: diffusers builds what it cannot run
            vae.decode(torch.zeros(1, LATENT_CHANNELS, 1, 2, 2, dtype=dtype))  # (1, 16, F, h, w)
    except Exception as error:
        raise CheckpointError(f"The autoencoder of {file} cannot be loaded: {in_a_line(error)}") from error
    foreign = [*info["missing_keys"], *info["unexpected_keys"]]
    if foreign:
        raise CheckpointError(
            f"The weights in {folder} do not fit {file}: {foreign[0]} is missing or unexpected."
        )
    if not fits:
        raise CheckpointError(
            f"{file} describes no autoencoder of {LATENT_CHANNELS} latent channels, {TEMPORAL_COMPRESSION} "
            f"frames and {SPATIAL_COMPRESSION} pixels to a latent, with a scaling_factor above 0."
        )
    return vae


def _load_scheduler(folder: Path) -> CogVideoXDDIMScheduler:
    """The scheduler, tried: diffusers reads any value and stumbles in the first clip."""
    try:
        scheduler = CogVideoXDDIMScheduler.from_pretrained(folder)
        tried = CogVideoXDDIMScheduler.from_config(scheduler.config)
        tried.set_timesteps(2)
        noise = torch.ones(1, 1, LATENT_CHANNELS, 2, 2)  # (1, F, 16, h, w)
        latents = tried.step(noise, tried.timesteps[0], noise, return_dict=False)[0]
    except Exception as error:
        raise CheckpointError(
            f"{folder / 'scheduler_config.json'} cannot be used: {in_a_line(error)}"
        ) from error
    if not bool(torch.isfinite(latents).all()):
        raise CheckpointError(
            f"{folder / 'scheduler_config.json'} cannot be used: its steps give values that are no numbers."
        )
    return scheduler
