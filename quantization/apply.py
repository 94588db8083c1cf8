"""A mode on a loaded model: what holds weights at loading, and what can still change while it runs."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.hooks import remove_hook_from_module

from quantization.bnb import finalize_bnb, is_four_bit, quantize_blocks
from quantization.modes import Decode, Device, ExecutionMode, Offload, Weights
from quantization.offload import apply_offload

CHANGEABLE = {
    "decode": {"decode", "tile"},
    "denoise": {"guidance", "mlp_chunk_size"},
    "chat": {"mlp_chunk_size"},
}
"""What of a mode each job can change while it runs."""


def quantizes_on_dispatch(mode: ExecutionMode, device: torch.device) -> bool:
    """Whether weights are read as they are stored and then quantized there: if blocks are streamed."""
    return mode.weights.four_bit and mode.offload is Offload.SEQUENTIAL and device.type != Device.CPU.value


def dispatch(mode: ExecutionMode, model: Any, vae: Any, device: torch.device) -> None:
    """Bring a freshly loaded model and autoencoder into a mode.

    Args:
        device: where everything is computed that the mode does not leave on the CPU.
    """
    if quantizes_on_dispatch(mode, device) and not is_four_bit(model):
        quantize_blocks(model, mode.weights, mode.precision, device)
    if mode.weights is not Weights.FULL:
        finalize_bnb(model, mode.precision.dtype, stays_on_cpu=device.type == "cpu")
    apply_offload(model, vae, device, mode.offload, vae_on_cpu=mode.decode is Decode.CPU)
    apply_runtime(mode, model, vae)


def apply_runtime(mode: ExecutionMode, model: Any, vae: Any) -> None:
    """What can change at any time: MLPs in chunks, and how and where the autoencoder decodes."""
    for block in model.model.layers:
        block.mlp.chunk_size = mode.mlp_chunk_size
    vae.disable_tiling()
    if mode.decode is not Decode.WHOLE:
        vae.enable_tiling(tile_sample_min_height=mode.tile.height, tile_sample_min_width=mode.tile.width)
    if mode.decode is Decode.CPU:
        remove_hook_from_module(vae)
        vae.to("cpu").float()


def load_device(mode: ExecutionMode, device: torch.device) -> torch.device | None:
    """Where weights are quantized while they are read; None: they are read to the CPU as they are stored."""
    if mode.weights is Weights.FULL:
        return None
    # int8 layers cannot be moved once they are made
    if mode.weights is Weights.INT8:
        return device
    # quantizing is faster on a GPU, but blocks to be streamed stay in main memory
    if device.type == Device.CUDA.value and mode.offload is not Offload.SEQUENTIAL:
        return device
    return torch.device("cpu")
