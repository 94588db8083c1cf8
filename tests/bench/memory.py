"""``python -m tests.bench.memory``: what the planner predicts for the released sizes beside bytes counted on fake tensors."""

from __future__ import annotations

import sys

import torch
from diffusers import AutoencoderKLCogVideoX
from torch._subclasses.fake_tensor import FakeTensorMode

from core.config import HaploOmniConfig
from core.model.modeling import HaploOmniForConditionalGeneration
from quantization.memory import Decoder, Model, Request, activation_bytes, decode_bytes, reading_bytes
from quantization.modes import TILES, Precision
from tests.quantization.tracker import decoding_peak, denoising_peak, reading_peak

HALF = Precision.BF16


def main() -> int:
    """Print the table."""
    print("| 9B, bf16, 480 x 720 | predicted | counted | ratio |")
    print("|---|---|---|---|")
    model = Model(HaploOmniConfig())
    with FakeTensorMode(allow_non_fake_inputs=True):
        real = HaploOmniForConditionalGeneration._from_config(HaploOmniConfig(), dtype=HALF.dtype).eval()
        for tokens in (1024, 4096):
            predicted = reading_bytes(model, tokens, HALF, real.model.layers[0].mlp.piece)
            show(f"reading {tokens} tokens, keys and values included", predicted, reading_peak(real, tokens))
        for frames in (9, 49):
            for rows, piece in ((1, 0), (1, 4096), (2, 0), (2, 4096)):
                for block in real.model.layers:
                    block.mlp.piece = piece
                request = Request(frames)
                predicted = activation_bytes(model, rows * request.noise_tokens, HALF, piece)
                branches = "both prompts at once" if rows == 2 else "one prompt"
                pieces = f", MLPs {piece} tokens at a time" if piece else ""
                peak = denoising_peak(real, rows, (request.latent_frames, 60, 90))
                show(f"a denoising step of {frames} frames, {branches}{pieces}", predicted, peak)
        torch.set_default_dtype(HALF.dtype)  # a fake autoencoder cannot be cast
        vae = AutoencoderKLCogVideoX(sample_height=480, sample_width=720)
        torch.set_default_dtype(torch.float32)
        for frames in (9, 49):
            for tile in (None, *TILES):
                if tile:
                    vae.enable_tiling(tile_sample_min_height=tile.height, tile_sample_min_width=tile.width)
                else:
                    vae.disable_tiling()
                how = f"in tiles of {tile.height} x {tile.width}" if tile else "whole"
                predicted = decode_bytes(Decoder(), Request(frames), HALF, tile)
                show(f"decoding {frames} frames {how}", predicted, decoding_peak(vae, frames, 480, 720))
    return 0


def show(what: str, predicted: int, counted: int) -> None:
    """A row."""
    print(f"| {what} | {predicted / 2**30:.2f} GiB | {counted / 2**30:.2f} GiB | {predicted / counted:.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
