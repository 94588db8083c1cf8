"""Bytes of a model's weights, part by part, in any mode; from the configuration alone."""

from __future__ import annotations

from math import ceil

from core.config import HaploOmniConfig
from quantization.layout import PARTS, TensorSpec, tensors
from quantization.modes import Precision, Weights

BLOCK = 64  # numbers that share a scale in 4 bits
NESTED_BLOCK = 256  # scales that share a scale in double quantization
CODE_BYTES = 16 * 4  # the 16 levels, a copy in every layer
NESTED_BYTES = 256 * 4 + 4  # the levels of the scales, and their offset


def matrix_bytes(rows: int, columns: int, weights: Weights, precision: Precision) -> int:
    """Bytes of one matrix with its scales, in bitsandbytes' layout."""
    numbers = rows * columns
    if weights is Weights.FULL:
        return numbers * precision.size_bytes
    if weights is Weights.INT8:
        return numbers + 4 * rows
    scales = ceil(numbers / BLOCK)
    held = ceil(numbers / 2) + CODE_BYTES
    if weights is Weights.NF4:
        return held + 4 * scales
    return held + scales + 4 * ceil(scales / NESTED_BLOCK) + NESTED_BYTES


def tensor_bytes(tensor: TensorSpec, weights: Weights, precision: Precision) -> int:
    """Bytes of one tensor; those that are never quantized keep their precision."""
    if tensor.quantizable:
        rows, columns = tensor.shape
        return matrix_bytes(rows, columns, weights, precision)
    return tensor.numbers * precision.size_bytes


def weight_bytes(config: HaploOmniConfig, weights: Weights, precision: Precision) -> dict[str, int]:
    """Bytes of every part."""
    made = dict.fromkeys(PARTS, 0)
    for tensor in tensors(config):
        made[tensor.part] += tensor_bytes(tensor, weights, precision)
    return made


def number_of_weights(config: HaploOmniConfig) -> int:
    """Numbers in the whole model."""
    return sum(tensor.numbers for tensor in tensors(config))
