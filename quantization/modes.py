"""How a model can be held and run, and which combinations are legal where: data, with the reason in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import product
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Device(Enum):
    """Kinds of devices, by PyTorch's names."""

    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"


class Precision(Enum):
    """What is computed in, and what full weights are stored in."""

    BF16 = "bf16"
    FP16 = "fp16"
    FP32 = "fp32"

    @property
    def dtype(self) -> torch.dtype:
        """PyTorch's dtype of it."""
        from core.devices import DTYPES  # here, since the program's options need the words alone

        return DTYPES[self.dtype_name]

    @property
    def dtype_name(self) -> str:
        """PyTorch's name of it, which options and files use."""
        return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[self.value]

    @classmethod
    def named(cls, dtype_name: str) -> Precision:
        """The precision of a PyTorch name."""
        return next(precision for precision in cls if precision.dtype_name == dtype_name)

    @property
    def size_bytes(self) -> int:
        """Bytes of one number."""
        return 4 if self is Precision.FP32 else 2


class Weights(Enum):
    """How the matrices of the blocks are stored."""

    FULL = "full"
    INT8 = "int8"
    NF4 = "nf4"
    NF4_DOUBLE = "nf4-double"

    @property
    def four_bit(self) -> bool:
        """Whether a number takes half a byte, its scale aside."""
        return self in (Weights.NF4, Weights.NF4_DOUBLE)


BUFFERS = 2  # for every shape of block, when blocks are streamed: one that works, one that arrives
OLDER_OFFLOAD_WORDS: dict[object, str] = {"parts": "model", "blocks": "sequential"}


class Offload(Enum):
    """What leaves the device when it is not needed, in diffusers' words.

    ``EMBEDDINGS``: word embeddings and lm_head stay on the CPU.
    ``MODEL``: the model leaves while the autoencoder works, and the other way round.
    ``SEQUENTIAL``: the blocks are streamed to the device one after the other.
    """

    NONE = "none"
    EMBEDDINGS = "embeddings"
    MODEL = "model"
    SEQUENTIAL = "sequential"

    @classmethod
    def _missing_(cls, value: object) -> Offload | None:
        """Takes the older words too: ``Offload("parts")`` and ``Offload("blocks")``."""
        return cls(OLDER_OFFLOAD_WORDS[value]) if value in OLDER_OFFLOAD_WORDS else None


def current_offload_word(word: str) -> str:
    """``"model"`` for ``"parts"`` and ``"sequential"`` for ``"blocks"``; any other word as it is."""
    return OLDER_OFFLOAD_WORDS.get(word, word)


class MemoryPreference(Enum):
    """The one word: what matters most where not everything fits."""

    AUTO = "auto"
    QUALITY = "quality"
    BALANCED = "balanced"
    LOW = "low"
    CPU = "cpu"


class Decode(Enum):
    """How the autoencoder turns latents into frames."""

    WHOLE = "whole"
    TILED = "tiled"
    CPU = "cpu"


class Guidance(Enum):
    """Both branches of classifier-free guidance in one batch, or one at a time."""

    BATCHED = "batched"
    ONE_AT_A_TIME = "one-at-a-time"


@dataclass(frozen=True)
class Tile:
    """A tile of the decoded frame, in pixels."""

    height: int
    width: int


# pixels: unless height and width are multiples of these, the autoencoder returns a wrong size, or fails
TILE_HEIGHT_STEP = 48
TILE_WIDTH_STEP = 40
# largest first: fewer seams, more memory
TILES = (Tile(240, 360), Tile(192, 280), Tile(144, 240), Tile(96, 160))
MLP_CHUNK_SIZES = (4096, 1024, 0)  # tokens; 0: all at once


@dataclass(frozen=True)
class ExecutionMode:
    """One way to hold and run a model.

    Args:
        precision: of what is computed, and of weights that are not quantized.
        weights, offload, decode, guidance: see there.
        mlp_chunk_size: tokens that pass an MLP at a time; exact at any number; 0: all.
        tile: of a tiled decode.
    """

    precision: Precision = Precision.BF16
    weights: Weights = Weights.FULL
    offload: Offload = Offload.NONE
    decode: Decode = Decode.WHOLE
    guidance: Guidance = Guidance.BATCHED
    mlp_chunk_size: int = 4096
    tile: Tile = TILES[0]

    def describe(self) -> str:
        """In a few words, for people."""
        words = [f"{self.weights.value} weights in {self.precision.value}"]
        if self.offload is not Offload.NONE:
            words.append(f"{self.offload.value} offload")
        if self.decode is Decode.TILED:
            words.append(f"decoding in tiles of {self.tile.height}x{self.tile.width}")
        if self.decode is Decode.CPU:
            words.append("decoding on the CPU")
        if self.guidance is Guidance.ONE_AT_A_TIME:
            words.append("guidance one branch at a time")
        if not self.mlp_chunk_size:
            words.append("MLP in one chunk")
        return ", ".join(words)


@dataclass(frozen=True)
class Hardware:
    """What is there.

    Args:
        device: its kind.
        name: for people.
        free_bytes, total_bytes: of the device's memory.
        host_free_bytes: of main memory; on a CPU the same as ``free_bytes``.
        bf16: whether the device computes bfloat16 in hardware (NVIDIA: compute capability 8.0 and up;
            a CPU that lacks it is allowed to emulate, as the last resort).
        bitsandbytes: whether the package is installed and has kernels for this device.
    """

    device: Device
    name: str
    free_bytes: int
    total_bytes: int
    host_free_bytes: int
    bf16: bool = True
    bitsandbytes: bool = True


def emulates(mode: ExecutionMode, hardware: Hardware) -> bool:
    """Whether the mode's products are emulated, many times slower than in float32 on the same device."""
    return mode.precision is Precision.BF16 and not hardware.bf16


@dataclass(frozen=True)
class Rule:
    """Something that cannot be done: where it applies, why, and what to do instead."""

    applies: Callable[[ExecutionMode, Hardware], bool]
    reason: str


RULES: tuple[Rule, ...] = (
    Rule(
        lambda mode, hardware: mode.weights is Weights.INT8 and hardware.device is Device.MPS,
        "bitsandbytes has no int8 kernels for Apple GPUs; use nf4 or full weights.",
    ),
    Rule(
        lambda mode, hardware: mode.weights is not Weights.FULL and not hardware.bitsandbytes,
        "Quantized weights need the package bitsandbytes with kernels for this device; "
        "install it or use full weights.",
    ),
    Rule(
        lambda mode, hardware: hardware.device is not Device.CPU and emulates(mode, hardware),
        "This device computes bfloat16 only by slow emulation; use float16.",
    ),
    Rule(
        lambda mode, hardware: mode.precision is Precision.FP16 and hardware.device is Device.CPU,
        "CPUs compute float16 slowly and not everywhere; use bfloat16 or float32.",
    ),
    Rule(
        lambda mode, hardware: mode.offload is not Offload.NONE and hardware.device is Device.CPU,
        "There is no device to offload from: everything is in main memory already.",
    ),
    Rule(
        lambda mode, hardware: mode.offload is not Offload.NONE and hardware.device is Device.MPS,
        "An Apple GPU shares main memory: offloading would free nothing.",
    ),
    Rule(
        lambda mode, hardware: mode.decode is Decode.CPU and hardware.device is Device.CPU,
        "The autoencoder is on the CPU already; decode whole or in tiles.",
    ),
    Rule(
        lambda mode, _: mode.weights is Weights.INT8 and mode.offload in (Offload.MODEL, Offload.SEQUENTIAL),
        "int8 layers keep their bytes on the device when they are moved; "
        "use nf4 or full weights to offload, or no offload.",
    ),
    Rule(
        lambda mode, _: (
            mode.decode is Decode.TILED
            and bool(mode.tile.height % TILE_HEIGHT_STEP or mode.tile.width % TILE_WIDTH_STEP)
        ),
        f"Tiles must be multiples of {TILE_HEIGHT_STEP} pixels high and {TILE_WIDTH_STEP} wide; "
        "others decode to a wrong size.",
    ),
    Rule(
        lambda mode, _: mode.mlp_chunk_size < 0,
        "An MLP takes a number of tokens at a time, or 0 for all.",
    ),
)


def violations(mode: ExecutionMode, hardware: Hardware) -> list[str]:
    """Why a mode cannot run here; empty where it can."""
    return [rule.reason for rule in RULES if rule.applies(mode, hardware)]


def legal_modes(hardware: Hardware) -> list[ExecutionMode]:
    """Every legal combination here, from the fastest and best to the smallest."""
    made = []
    for precision, weights, offload, guidance, chunk_size, decode in product(
        Precision, Weights, Offload, Guidance, MLP_CHUNK_SIZES, Decode
    ):
        # the tile matters only where there are tiles
        for tile in TILES if decode is Decode.TILED else TILES[:1]:
            mode = ExecutionMode(precision, weights, offload, decode, guidance, chunk_size, tile)
            if not violations(mode, hardware):
                made.append(mode)
    return made
