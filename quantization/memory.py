"""What a mode costs, in bytes and from configurations alone: weights, key-value cache, denoising, decoding.

The figures of activations count every tensor alive at the worst moment.
Their coefficients are those of this repository's forward pass, found by counting on fake tensors of the real
sizes; ``tests/quantization/test_memory.py`` counts again.
Kernels' own work space is not in them: the planner adds room for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from core.config import HaploOmniConfig, PartConfig
from core.errors import CheckpointError
from core.files import read_plain_json, stored_shapes, weight_files
from core.geometry import latent_frames
from core.requests import VideoRequest
from quantization.modes import BUFFERS, Decode, ExecutionMode, Guidance, Offload, Precision, Tile, Weights
from quantization.weights import BLOCK_PARTS, TensorSpec, tensor_specs, weight_bytes

PROMPT_TOKENS = 256  # of a guidance branch, at most


@dataclass(frozen=True)
class Workload:
    """What memory is planned for: a clip, and a conversation of ``chat_tokens`` tokens, pictures included.

    Of the clip its size counts, and whether it is guided.
    """

    clip: VideoRequest
    chat_tokens: int = 1

    @classmethod
    def of_size(
        cls,
        num_frames: int = 49,
        height: int = 480,
        width: int = 720,
        chat_tokens: int = 4096,
        guidance_scale: float = 6.0,
    ) -> Workload:
        """One whose clip of ``height`` x ``width`` pixels has no words yet."""
        return cls(VideoRequest("", "", height, width, num_frames, 1, guidance_scale, 0), chat_tokens)


# Elements alive for a pixel at the worst moment of decoding: of pictures, of clips of three latent frames,
# and of longer ones: a constant, by layers, by channels of the last three blocks, and by layers times
# channels of the last two.
# Fitted to counts of 26 shapes of diffusers' AutoencoderKLCogVideoX (0.42), 16 latent channels; within 3 %.
_DECODING = {
    1: (139.0, 88.6, 7.82, 2.22, 1.29, 4.17, 1.30),
    3: (1110.0, 718.0, 59.2, 12.6, 2.09, 5.14, 0.69),
    5: (1920.0, 1390.0, 56.9, 13.3, 3.24, 8.93, 2.0),
}


@dataclass(frozen=True)
class Decoder:
    """The autoencoder, by default the released one.

    Args:
        num_elements: in its weights.
        channels: of its four blocks, full resolution first.
        layers: of a block.
    """

    num_elements: int = 215_583_907
    channels: tuple[int, ...] = (128, 256, 256, 512)
    layers: int = 3

    @classmethod
    def of(cls, vae_config: dict[str, Any], num_elements: int) -> Decoder:
        """From a diffusers ``vae/config.json`` and the elements in its weights.

        Raises:
            CheckpointError: it describes no autoencoder of this kind.
        """
        channels = vae_config.get("block_out_channels")
        layers = vae_config.get("layers_per_block")
        sizes = [*channels, layers] if isinstance(channels, list | tuple) else []
        if len(sizes) != 5 or not all(isinstance(size, int) and 0 < size < 2**16 for size in sizes):
            raise CheckpointError(
                "vae/config.json needs four block_out_channels and a number of layers_per_block."
            )
        return cls(num_elements, tuple(sizes[:-1]), sizes[-1])

    @classmethod
    def of_checkpoint(cls, folder: Path) -> Decoder:
        """A checkpoint's own autoencoder; the released one where it has none, or its weights are not here."""
        own = folder / "vae"
        stem = "diffusion_pytorch_model"
        if not (own / "config.json").is_file() or not any(own.glob(f"{stem}.safetensors*")):
            return cls()
        shapes = stored_shapes(weight_files(own, stem))
        return cls.of(read_plain_json(own / "config.json"), sum(map(prod, shapes.values())))

    def elements_per_pixel(self, num_latent_frames: int) -> float:
        """Alive for every pixel of a frame at the worst moment of decoding so many latent frames."""
        constant, layer, *by_channel, last, before = _DECODING[min(5, num_latent_frames)]
        own = sum(weight * channels for weight, channels in zip(by_channel, self.channels, strict=False))
        return constant + self.layers * (layer + last * self.channels[0] + before * self.channels[1]) + own


@dataclass(frozen=True)
class Model:
    """A model's configuration and what planning asks of it again and again."""

    config: HaploOmniConfig
    _weights: dict[tuple[Weights, Precision], dict[str, int]] = field(
        default_factory=dict, compare=False, repr=False
    )

    def weight_bytes(self, weights: Weights, precision: Precision) -> dict[str, int]:
        """Bytes by part; see :func:`quantization.weights.weight_bytes`."""
        key = (weights, precision)
        if key not in self._weights:
            self._weights[key] = weight_bytes(self.tensors, weights, precision)
        return self._weights[key]

    @cached_property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All of its tensors, by name and shape."""
        return tensor_specs(self.config)

    @cached_property
    def parts(self) -> tuple[PartConfig, PartConfig, PartConfig]:
        """The settings of pre, base and post part."""
        pre, base, post = map(self.config.part, BLOCK_PARTS)
        return pre, base, post

    @cached_property
    def kv_elements_per_token(self) -> int:
        """Elements of the keys and values of one token in all blocks."""
        return sum(map(_kv_elements, self.parts))


@dataclass(frozen=True)
class Costs:
    """Bytes on the device at the worst moment of each job, weights included, and what stays in main memory.

    Args:
        weights: on the device all the time, by part, the autoencoder's included.
        chat, denoise, decode: on the device in each of the three jobs.
        host: in main memory.
        decoding: of ``decode``, what is beside all weights.
    """

    weights: dict[str, int]
    chat: int
    denoise: int
    decode: int
    host: int
    decoding: int = 0

    @property
    def peak(self) -> int:
        """Bytes on the device at the worst moment of all jobs."""
        return max(self.chat, self.denoise, self.decode)


def activation_bytes(model: Model, tokens: int, precision: Precision, chunk_size: int) -> int:
    """Bytes of activations of one denoising pass.

    Args:
        tokens: of all rows together.
        chunk_size: tokens that MLPs take at a time; 0: all.
    """
    widest = max(_token_elements(part, _share(tokens, chunk_size)) for part in model.parts)
    return round(tokens * (widest + _held_elements(model)) * precision.size_bytes)


def reading_bytes(model: Model, tokens: int, precision: Precision, chunk_size: int) -> int:
    """Bytes of reading a talk of ``tokens`` tokens, keys and values included; ``chunk_size`` as above."""
    remembered = 0.0  # keys and values, which grow from part to part
    worst = 0.0
    for part in model.parts:
        remembered += _kv_elements(part)
        worst = max(worst, remembered + _token_elements(part, _share(tokens, chunk_size)))
    return round(tokens * (worst + _held_elements(model)) * precision.size_bytes)


def _share(tokens: int, chunk_size: int) -> float:
    """The share of the tokens that are in an MLP at once."""
    return min(1.0, chunk_size / tokens) if chunk_size else 1.0


def _kv_elements(part: PartConfig) -> int:
    """Elements of the keys and values of a token in a part."""
    return 2 * part.num_hidden_layers * part.num_key_value_heads * part.head_dim


def _held_elements(model: Model) -> int:
    """Elements alive for a token through all blocks: what came in, and its rotary cosines and sines."""
    pre, base, post = model.parts
    return post.hidden_size + 2 * pre.hidden_size + 2 * base.head_dim


def _token_elements(part: PartConfig, share: float) -> float:
    """Elements alive for a token in a block: while its norm is modulated, or in its MLP."""
    norm = 11 * part.hidden_size
    mlp = 4 * part.hidden_size + 2 * part.intermediate_size * share + part.hidden_size * (share < 1)
    return max(norm, mlp)


def decode_bytes(decoder: Decoder, clip: VideoRequest, precision: Precision, tile: Tile | None) -> int:
    """Bytes of decoding a clip: whole (None), or in tiles of at most a size.

    Two or three latent frames are decoded at a time.
    """
    area = clip.height * clip.width
    at_once = area
    made = 0
    if tile is not None:
        at_once = min(area, tile.height * tile.width)
        made = 3 * clip.num_frames * area  # RGB of the tiles that are done
    elements = decoder.elements_per_pixel(latent_frames(clip.num_frames)) * at_once + made
    return round(elements * precision.size_bytes)


def quantized_work_bytes(model: Model, mode: ExecutionMode, tokens: int) -> int:
    """Bytes that quantized layers need beside.

    With 4 bits the largest matrix unpacked, with 8 bits its int32 product.
    """
    widest = max(model.parts, key=lambda part: part.intermediate_size)
    if mode.weights.four_bit:
        return widest.intermediate_size * widest.hidden_size * mode.precision.size_bytes
    if mode.weights is Weights.INT8:
        at_once = min(tokens, mode.mlp_chunk_size or tokens)
        return 4 * at_once * widest.intermediate_size + at_once * widest.hidden_size * 2
    return 0


def costs(
    model: Model, decoder: Decoder, mode: ExecutionMode, workload: Workload, cpu: bool = False
) -> Costs:
    """What a workload costs in a mode.

    Args:
        cpu: everything is on a CPU, where the autoencoder always works in float32.
    """
    clip = workload.clip
    decoder_precision = Precision.FP32 if cpu else mode.precision
    autoencoder = decoder.num_elements * decoder_precision.size_bytes

    # what stays on the device: weights, buffers that blocks pass through, the autoencoder unless elsewhere
    every = model.weight_bytes(mode.weights, mode.precision)
    kept, streamed = _placed(model, mode, every)
    on_device = sum(kept.values())
    is_beside = mode.decode is not Decode.CPU and mode.offload is not Offload.MODEL
    kept["autoencoder"] = autoencoder if is_beside else 0
    resident = on_device + streamed + kept["autoencoder"]

    # reading the conversation
    reading = reading_bytes(model, workload.chat_tokens, mode.precision, mode.mlp_chunk_size)
    reading += quantized_work_bytes(model, mode, workload.chat_tokens)

    # denoising: the prompts' keys and values of all branches, and one pass of those that go together
    branches = 1 + clip.is_guided
    tokens = clip.noise_tokens * (branches if mode.guidance is Guidance.BATCHED else 1)
    denoising = model.kv_elements_per_token * mode.precision.size_bytes * branches * PROMPT_TOKENS
    denoising += activation_bytes(model, tokens, mode.precision, mode.mlp_chunk_size)
    denoising += quantized_work_bytes(model, mode, tokens)

    # decoding, beside the model unless it has left
    decode = decoding = 0
    if mode.decode is not Decode.CPU:
        tile = mode.tile if mode.decode is Decode.TILED else None
        decoding = decode_bytes(decoder, clip, decoder_precision, tile)
        decode = autoencoder + decoding
        if mode.offload is not Offload.MODEL:
            decode += on_device + streamed

    # main memory: what is not on the device, and what decodes there
    host = sum(every.values()) - on_device
    if mode.offload is Offload.MODEL:
        host = sum(every.values()) + autoencoder
    elif mode.decode is Decode.CPU:  # in float32, as CPUs like it
        host += decoder.num_elements * Precision.FP32.size_bytes
        host += decode_bytes(decoder, clip, Precision.FP32, mode.tile)
    return Costs(kept, resident + reading, resident + denoising, decode, host, decoding)


def _placed(model: Model, mode: ExecutionMode, every: dict[str, int]) -> tuple[dict[str, int], int]:
    """Bytes of the parts that stay on the device, and of the buffers that blocks are streamed through."""
    away = {"embeddings", "lm_head"} if mode.offload in (Offload.EMBEDDINGS, Offload.SEQUENTIAL) else set()
    if mode.offload is not Offload.SEQUENTIAL:
        return {name: size for name, size in every.items() if name not in away}, 0
    # of every part as many blocks as it has buffers
    streamed = 0
    for name, part in zip(BLOCK_PARTS, model.parts, strict=True):
        streamed += min(BUFFERS, part.num_hidden_layers) * every[name] // part.num_hidden_layers
    return {name: size for name, size in every.items() if name not in {*away, *BLOCK_PARTS}}, streamed
