"""A mode on a loaded model: what holds weights at loading, and what can still change while it runs."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.hooks import remove_hook_from_module

from quantization.bnb import settle
from quantization.modes import Decode, Device, Mode, Offload, Weights
from quantization.offload import apply_offload

CHANGEABLE = {"decode": {"decode", "tile"}, "denoise": {"guidance", "mlp_piece"}, "chat": {"mlp_piece"}}
"""What of a mode each job can change while it runs."""


def place(mode: Mode, model: Any, vae: Any, device: torch.device) -> None:
    """Bring a freshly loaded model and autoencoder into a mode."""
    if mode.weights is not Weights.FULL:
        settle(model, mode.precision.dtype, stays_on_cpu=device.type == "cpu")
    apply_offload(model, vae, device, mode.offload, vae_on_cpu=mode.decode is Decode.CPU)
    run_as(mode, model, vae)


def run_as(mode: Mode, model: Any, vae: Any) -> None:
    """What can change at any time: MLPs in pieces, and how and where the autoencoder decodes."""
    for block in model.model.layers:
        block.mlp.piece = mode.mlp_piece
    vae.disable_tiling()
    if mode.decode is not Decode.WHOLE:
        vae.enable_tiling(tile_sample_min_height=mode.tile.height, tile_sample_min_width=mode.tile.width)
    if mode.decode is Decode.CPU:
        remove_hook_from_module(vae)
        vae.to("cpu").float()


def read_to(mode: Mode, device: torch.device) -> torch.device | None:
    """Where weights are quantized while they are read; None: they are read to the CPU as they are stored."""
    if mode.weights is Weights.FULL:
        return None
    # int8 layers cannot be moved once they are made, and quantizing is faster on a GPU; blocks to be streamed stay in main memory
    on_device = device.type == Device.CUDA.value and mode.offload is not Offload.BLOCKS
    return device if on_device or mode.weights is Weights.INT8 else torch.device("cpu")
