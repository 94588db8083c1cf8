"""What a mode costs, in bytes and from configurations alone: weights, key-value cache, denoising, decoding.

The figures of activations count every tensor alive at the worst moment; the coefficients are those of this repository's
forward pass, found by counting on fake tensors of the real sizes (``tests/quantization/test_memory.py`` counts again).
Kernels' own work space is not in them: the planner adds room for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from core.config import LATENT_PATCH, SPATIAL_COMPRESSION, TEMPORAL_COMPRESSION, HaploOmniConfig, PartConfig
from quantization.files import read_json
from quantization.layout import BLOCK_PARTS
from quantization.modes import BUFFERS, Decode, Guidance, Mode, Offload, Precision, Tile, Weights
from quantization.weights import weight_bytes

PROMPT_TOKENS = 256  # of a guidance branch, at most


@dataclass(frozen=True)
class Request:
    """What is to be done: a clip of ``frames`` x ``height`` x ``width`` pixels, and a chat of ``chat_tokens``."""

    frames: int = 49
    height: int = 480
    width: int = 720
    chat_tokens: int = 4096
    guided: bool = True

    @property
    def latent_frames(self) -> int:
        return (self.frames - 1) // TEMPORAL_COMPRESSION + 1

    @property
    def noise_tokens(self) -> int:
        """Of one guidance branch."""
        side = SPATIAL_COMPRESSION * LATENT_PATCH
        return self.latent_frames * (self.height // side) * (self.width // side)


# numbers alive for a pixel at the worst moment of decoding pictures, clips of three latent frames, and longer ones: a constant,
# by layers, by channels of the last three blocks, and by layers times channels of the last two; fitted to counts of 26 shapes
# of diffusers' AutoencoderKLCogVideoX (0.42) with 16 latent channels, all within 3 %
_DECODING = {
    1: (139.0, 88.6, 7.82, 2.22, 1.29, 4.17, 1.30),
    3: (1110.0, 718.0, 59.2, 12.6, 2.09, 5.14, 0.69),
    5: (1920.0, 1390.0, 56.9, 13.3, 3.24, 8.93, 2.0),
}


@dataclass(frozen=True)
class Decoder:
    """The autoencoder: ``numbers`` in it, channels of its blocks (full resolution first), and layers of a block."""

    numbers: int = 215_583_907
    channels: tuple[int, ...] = (128, 256, 256, 512)
    layers: int = 3

    @classmethod
    def of(cls, vae_config: dict[str, Any], numbers: int) -> Decoder:
        """From a diffusers ``vae/config.json`` and the numbers in its weights."""
        return cls(numbers, tuple(vae_config["block_out_channels"]), vae_config["layers_per_block"])

    @classmethod
    def of_checkpoint(cls, folder: Path) -> Decoder:
        """A checkpoint's own autoencoder; the released one where it has none, or its weights are not here yet."""
        config, weights = (folder / "vae" / name for name in ("config.json", "diffusion_pytorch_model.safetensors"))
        if not (config.is_file() and weights.is_file()):
            return cls()
        with safe_open(weights, "pt") as opened:
            numbers = sum(prod(opened.get_slice(name).get_shape()) for name in opened.keys())  # noqa: SIM118  (not a dict)
        return cls.of(read_json(config), numbers)

    def numbers_a_pixel(self, latent_frames: int) -> float:
        """Alive at the worst moment of decoding so many latent frames."""
        constant, layer, *by_channel, last, before = _DECODING[min(5, latent_frames)]
        own = sum(weight * channels for weight, channels in zip(by_channel, self.channels, strict=False))
        return constant + self.layers * (layer + last * self.channels[0] + before * self.channels[1]) + own


@dataclass(frozen=True)
class Model:
    """A model's configuration and what planning asks of it again and again."""

    config: HaploOmniConfig
    _weights: dict[tuple[Weights, Precision], dict[str, int]] = field(default_factory=dict, compare=False, repr=False)

    def weight_bytes(self, weights: Weights, precision: Precision) -> dict[str, int]:
        """By part; see :func:`quantization.weights.weight_bytes`."""
        key = (weights, precision)
        if key not in self._weights:
            self._weights[key] = weight_bytes(self.config, weights, precision)
        return self._weights[key]

    @cached_property
    def parts(self) -> tuple[PartConfig, PartConfig, PartConfig]:
        """pre, base, post."""
        pre, base, post = (self.config.part(name) for name in BLOCK_PARTS)
        return pre, base, post

    @cached_property
    def cache_numbers(self) -> int:
        """Keys and values of one token in all blocks."""
        return sum(map(_cache_numbers, self.parts))


@dataclass(frozen=True)
class Costs:
    """Bytes on the device at the worst moment of each job, weights included, and what stays in main memory.

    Args:
        weights: of the model on the device all the time, by part.
        chat, denoise, decode: the three jobs.
        host: in main memory.
    """

    weights: dict[str, int]
    chat: int
    denoise: int
    decode: int
    host: int

    @property
    def peak(self) -> int:
        """Of everything."""
        return max(self.chat, self.denoise, self.decode)


def activation_bytes(model: Model, tokens: int, precision: Precision, piece: int) -> int:
    """Of one denoising pass over ``tokens`` tokens of all rows together; MLPs take ``piece`` tokens at a time (0: all)."""
    widest = max(_tokens_numbers(part, _share(tokens, piece)) for part in model.parts)
    return round(tokens * (widest + _held_numbers(model)) * precision.size_bytes)


def reading_bytes(model: Model, tokens: int, precision: Precision, piece: int) -> int:
    """Of reading a talk of ``tokens`` tokens, keys and values included, which grow from part to part."""
    remembered = worst = 0.0
    for part in model.parts:
        remembered += _cache_numbers(part)
        worst = max(worst, remembered + _tokens_numbers(part, _share(tokens, piece)))
    return round(tokens * (worst + _held_numbers(model)) * precision.size_bytes)


def _share(tokens: int, piece: int) -> float:
    """Of the tokens that are in an MLP at once."""
    return min(1.0, piece / tokens) if piece else 1.0


def _cache_numbers(part: PartConfig) -> int:
    """Keys and values of a token."""
    return 2 * part.num_hidden_layers * part.num_key_value_heads * part.head_dim


def _held_numbers(model: Model) -> int:
    """Alive for a token through all blocks: what came in, and its turn."""
    pre, base, post = model.parts
    return post.hidden_size + 2 * pre.hidden_size + 2 * base.head_dim


def _tokens_numbers(part: PartConfig, share: float) -> float:
    """Numbers alive for a token in a block: while its norm is modulated, or in its MLP."""
    norm = 11 * part.hidden_size
    mlp = 4 * part.hidden_size + 2 * part.intermediate_size * share + part.hidden_size * (share < 1)
    return max(norm, mlp)


def decode_bytes(decoder: Decoder, request: Request, precision: Precision, tile: Tile | None) -> int:
    """Of decoding a clip whole, or in tiles of at most that size; two or three latent frames are decoded at a time."""
    area = request.height * request.width
    at_once = min(area, tile.height * tile.width) if tile else area
    made = 3 * request.frames * area if tile else 0
    return round((decoder.numbers_a_pixel(request.latent_frames) * at_once + made) * precision.size_bytes)


def quantized_work_bytes(model: Model, mode: Mode, tokens: int) -> int:
    """What quantized layers need beside: the largest matrix unpacked (4 bits), or its int32 product (8 bits)."""
    widest = max(model.parts, key=lambda part: part.intermediate_size)
    if mode.weights.four_bit:
        return widest.intermediate_size * widest.hidden_size * mode.precision.size_bytes
    if mode.weights is Weights.INT8:
        at_once = min(tokens, mode.mlp_piece) if mode.mlp_piece else tokens
        return 4 * at_once * widest.intermediate_size + at_once * widest.hidden_size * 2
    return 0


def costs(model: Model, decoder: Decoder, mode: Mode, request: Request) -> Costs:
    """What a request costs in a mode."""
    every = model.weight_bytes(mode.weights, mode.precision)
    kept, streamed = _placed(model, mode, every)
    cache = model.cache_numbers * mode.precision.size_bytes
    autoencoder = decoder.numbers * mode.precision.size_bytes
    beside = autoencoder if mode.decode is not Decode.CPU and mode.offload is not Offload.PARTS else 0
    on_device = sum(kept.values())
    resident = on_device + streamed + beside

    def job(tokens: int, passing: int) -> int:
        return resident + passing + quantized_work_bytes(model, mode, tokens)

    branches = 1 + request.guided
    at_once = branches if mode.guidance is Guidance.BATCHED else 1
    decode = 0
    if mode.decode is not Decode.CPU:
        own = autoencoder + decode_bytes(decoder, request, mode.precision, mode.tile if mode.decode is Decode.TILED else None)
        decode = own + (0 if mode.offload is Offload.PARTS else on_device + streamed)
    host = sum(every.values()) - on_device
    if mode.offload is Offload.PARTS:
        host = sum(every.values()) + autoencoder
    elif mode.decode is Decode.CPU:  # in float32, as CPUs like it
        host += 2 * autoencoder + decode_bytes(decoder, request, Precision.FP32, mode.tile)
    reading = reading_bytes(model, request.chat_tokens, mode.precision, mode.mlp_piece)
    tokens = at_once * request.noise_tokens
    denoising = cache * branches * PROMPT_TOKENS + activation_bytes(model, tokens, mode.precision, mode.mlp_piece)
    return Costs(
        kept,
        job(request.chat_tokens, reading),
        job(tokens, denoising),
        decode,
        host,
    )


def _placed(model: Model, mode: Mode, every: dict[str, int]) -> tuple[dict[str, int], int]:
    """Bytes of the parts that stay on the device, and of the buffers that blocks are streamed through."""
    away = {"embeddings", "lm_head"} if mode.offload in (Offload.EMBEDDINGS, Offload.BLOCKS) else set()
    if mode.offload is not Offload.BLOCKS:
        return {name: size for name, size in every.items() if name not in away}, 0
    streamed = 0
    for name, part in zip(BLOCK_PARTS, model.parts, strict=True):
        streamed += min(BUFFERS, part.num_hidden_layers) * every[name] // part.num_hidden_layers
    return {name: size for name, size in every.items() if name not in {*away, *BLOCK_PARTS}}, streamed
