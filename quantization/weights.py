"""Bytes of a model's weights, part by part, in any mode; from the configuration alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, prod

from core.config import HaploOmniConfig
from core.model.meta import tensor_shapes
from quantization.modes import Precision, Weights

PARTS = ("embeddings", "pre", "base", "post", "connectors", "noise", "lm_head")
BLOCK_PARTS = ("pre", "base", "post")
LAYERS = "model.layers."  # of the blocks, numbered through all parts
BLOCK = 64  # elements that share a scale in 4 bits
NESTED_BLOCK = 256  # scales that share a scale in double quantization
CODE_BYTES = 16 * 4  # the 16 levels, a copy in every layer
NESTED_BYTES = 256 * 4 + 4  # the levels of the scales, and their offset


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a checkpoint.

    Args:
        part: one of :data:`PARTS`.
        quantizable: a matrix of a block; nothing else is ever quantized.
    """

    name: str
    shape: tuple[int, ...]
    part: str
    quantizable: bool = False

    @property
    def num_elements(self) -> int:
        """How many numbers it holds, a product of its sides."""
        return prod(self.shape)


def tensor_specs(config: HaploOmniConfig) -> tuple[TensorSpec, ...]:
    """Every tensor of a checkpoint, from its configuration alone."""
    block_parts = [name for name in BLOCK_PARTS for _ in range(config.part(name).num_hidden_layers)]
    specs = []
    for name, shape in tensor_shapes(config).items():
        quantizable = name.startswith(LAYERS) and name.endswith("_proj.weight")
        specs.append(TensorSpec(name, shape, _part(name, block_parts), quantizable))
    return tuple(specs)


def _part(name: str, block_parts: list[str]) -> str:
    """Which of :data:`PARTS` a tensor belongs to; ``block_parts`` are those of the blocks in their order."""
    if name.startswith(LAYERS):
        return block_parts[int(name.removeprefix(LAYERS).partition(".")[0])]
    if name.startswith("model.embed_tokens."):
        return "embeddings"
    if name.startswith("lm_head."):
        return "lm_head"
    # what is neither: before, between and after the parts in the decoder itself, latents and time beside it
    return "connectors" if name.startswith("model.") else "noise"


def matrix_bytes(rows: int, columns: int, weights: Weights, precision: Precision) -> int:
    """Bytes of one matrix with its scales, in bitsandbytes' layout."""
    num_elements = rows * columns
    if weights is Weights.FULL:
        return num_elements * precision.size_bytes
    if weights is Weights.INT8:  # a byte an element, a float32 scale a row
        return num_elements + 4 * rows
    # half a byte an element, a float32 scale a block
    scales = ceil(num_elements / BLOCK)
    held = ceil(num_elements / 2) + CODE_BYTES
    if weights is Weights.NF4:
        return held + 4 * scales
    # the scales in a byte each, with float32 scales of their own
    return held + scales + 4 * ceil(scales / NESTED_BLOCK) + NESTED_BYTES


def tensor_bytes(tensor: TensorSpec, weights: Weights, precision: Precision) -> int:
    """Bytes of one tensor; those that are never quantized keep their precision."""
    if tensor.quantizable:
        rows, columns = tensor.shape
        return matrix_bytes(rows, columns, weights, precision)
    return tensor.num_elements * precision.size_bytes


def weight_bytes(tensors: Iterable[TensorSpec], weights: Weights, precision: Precision) -> dict[str, int]:
    """Bytes of every one of :data:`PARTS`, in their order."""
    made = dict.fromkeys(PARTS, 0)
    for tensor in tensors:
        made[tensor.part] += tensor_bytes(tensor, weights, precision)
    return made
