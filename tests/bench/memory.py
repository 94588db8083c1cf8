"""``python -m tests.bench.memory``: the planner's predictions for the released sizes beside counted bytes.

They are counted on fake tensors, which need no memory.
"""

from __future__ import annotations

import sys
from itertools import product

import torch
from diffusers import AutoencoderKLCogVideoX
from torch._subclasses.fake_tensor import FakeTensorMode

from core.config import HaploOmniConfig
from core.geometry import latent_frames
from quantization.memory import Decoder, Model, Workload, activation_bytes, decode_bytes, reading_bytes
from quantization.modes import TILES, Precision
from tests.quantization.tracker import decoding_peak, denoising_peak, reading_peak, released_model

HALF = Precision.BF16


def main() -> int:
    """Count and print the table: reading, denoising, decoding."""
    print("| 9B, bf16, 480 x 720 | predicted | counted | ratio |")
    print("|---|---|---|---|")
    model = Model(HaploOmniConfig())
    with FakeTensorMode(allow_non_fake_inputs=True):
        real = released_model()
        for tokens in (1024, 4096):
            predicted = reading_bytes(model, tokens, HALF, real.model.layers[0].mlp.chunk_size)
            show(f"reading {tokens} tokens, keys and values included", predicted, reading_peak(real, tokens))
        for frames, rows, chunk_size in product((9, 49), (1, 2), (0, 4096)):
            for block in real.model.layers:
                block.mlp.chunk_size = chunk_size
            request = Workload.of_size(frames).clip
            predicted = activation_bytes(model, rows * request.noise_tokens, HALF, chunk_size)
            branches = "both prompts at once" if rows == 2 else "one prompt"
            chunks = f", MLPs {chunk_size} tokens at a time" if chunk_size else ""
            peak = denoising_peak(real, rows, (latent_frames(frames), 60, 90))
            show(f"a denoising step of {frames} frames, {branches}{chunks}", predicted, peak)
        torch.set_default_dtype(HALF.dtype)  # a fake autoencoder cannot be cast
        vae = AutoencoderKLCogVideoX(sample_height=480, sample_width=720)
        torch.set_default_dtype(torch.float32)
        for frames, tile in product((9, 49), (None, *TILES)):
            how = "whole"
            vae.disable_tiling()
            if tile:
                how = f"in tiles of {tile.height} x {tile.width}"
                vae.enable_tiling(tile_sample_min_height=tile.height, tile_sample_min_width=tile.width)
            predicted = decode_bytes(Decoder(), Workload.of_size(frames).clip, HALF, tile)
            show(f"decoding {frames} frames {how}", predicted, decoding_peak(vae, frames, 480, 720))
    return 0


def show(what: str, predicted: int, counted: int) -> None:
    """Print a row: predicted and counted bytes, and their ratio."""
    print(
        f"| {what} | {predicted / 2**30:.2f} GiB | {counted / 2**30:.2f} GiB | {predicted / counted:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
