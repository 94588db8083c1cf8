"""Quantized weights by bitsandbytes, through transformers' ``BitsAndBytesConfig``."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig

from core.config import HaploOmniConfig
from quantization.errors import QuantizationError
from quantization.layout import tensors
from quantization.modes import Precision, Weights

OUTLIERS = 6.0  # of int8: activations beyond it are multiplied in full (LLM.int8(), arXiv 2208.07339)
PACKED_ROWS, PACKED_COLUMNS = 32, 64  # what the CPU's packed 4-bit product can take: multiples of these

# warnings that people should not act on: int8 casts its input (one a layer and a forward pass), and an optional package of
# CPU kernels is missing, which would be fetched from a hub
for noisy in ("bitsandbytes.autograd._functions", "bitsandbytes.backends.cpu.ops"):
    logging.getLogger(noisy).setLevel(logging.ERROR)


def is_available(device_type: str) -> bool:
    """Whether bitsandbytes is installed and knows this kind of device."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return False
    import bitsandbytes

    return device_type in getattr(bitsandbytes, "supported_torch_devices", {"cuda"})


def full_modules(config: HaploOmniConfig) -> list[str]:
    """Full names of all linear layers that are never quantized: everything but the matrices of the blocks."""
    return [
        t.name.removesuffix(".weight") for t in tensors(config) if len(t.shape) == 2 and _is_linear(t.name) and not t.quantizable
    ]


def _is_linear(name: str) -> bool:
    return name.endswith(".weight") and "embed_tokens" not in name


def quantization_config(config: HaploOmniConfig, weights: Weights, precision: Precision) -> BitsAndBytesConfig | None:
    """What ``from_pretrained`` needs to quantize while it reads; None for full weights."""
    if weights is Weights.FULL:
        return None
    skip = full_modules(config)
    if weights is Weights.INT8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=OUTLIERS, llm_int8_skip_modules=skip)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=weights is Weights.NF4_DOUBLE,
        bnb_4bit_compute_dtype=precision.dtype,
        llm_int8_skip_modules=skip,
    )


def stored_weights(folder: Path) -> Weights:
    """How the weights in a checkpoint folder are stored, by its ``config.json``.

    Raises:
        QuantizationError: quantized in a way this program does not run.
    """
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")
    if stored is None:
        return Weights.FULL
    if stored.get("quant_method") == "bitsandbytes":
        if stored.get("load_in_8bit"):
            return Weights.INT8
        if stored.get("load_in_4bit") and stored.get("bnb_4bit_quant_type") == "nf4":
            return Weights.NF4_DOUBLE if stored.get("bnb_4bit_use_double_quant") else Weights.NF4
    method = stored.get("bnb_4bit_quant_type") or stored.get("quant_method") or "an unknown method"
    raise QuantizationError(f"{folder} is quantized by {method}, which is not read here; use the full checkpoint, int8 or nf4.")


def check_stored(folder: Path, wanted: Weights | None) -> Weights:
    """What a checkpoint will be held as: as it is stored, or quantized on loading.

    Raises:
        QuantizationError: it is quantized already, another way than wanted.
    """
    stored = stored_weights(folder)
    if stored is Weights.FULL:
        return wanted or Weights.FULL
    if wanted not in (None, stored):
        raise QuantizationError(
            f"{folder} is quantized as {stored.value} already and cannot become {wanted.value}; "
            f"leave --weights out, or use the full checkpoint."
        )
    return stored


def fixed_weights(folder: Path, wanted: str | None) -> dict[str, Weights]:
    """What is not left to the planner: ``{"weights": ...}`` where people want it, or the checkpoint is quantized already.

    Raises:
        QuantizationError: it is quantized another way than wanted.
    """
    held = check_stored(folder, None if wanted is None else Weights(wanted))
    return {} if wanted is None and held is Weights.FULL else {"weights": held}


def settle(model: nn.Module, dtype: torch.dtype, stays_on_cpu: bool) -> None:
    """Make a freshly loaded model safe to run: the computing dtype, and the CPU's packing only where it is sound.

    On CPUs with bfloat16 instructions bitsandbytes packs every 4-bit matrix at its first use. That is fast for single
    tokens, but a packed model can be neither saved nor moved (bitsandbytes 0.50 would do both wrongly), takes only
    certain shapes, and computes in bfloat16. So it is switched on for a bfloat16 model that stays, and such a model
    refuses to be saved.
    """
    import bitsandbytes

    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    packs = stays_on_cpu and dtype == torch.bfloat16
    packs = packs and not any(m.out_features % PACKED_ROWS or m.in_features % PACKED_COLUMNS for m in layers)
    for layer in layers:
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
        state: Any = layer.weight
        state.quant_state.dtype = dtype
        layer.support_avx512bf16_for_cpu = layer.support_avx512bf16_for_cpu and packs
    if any(layer.support_avx512bf16_for_cpu for layer in layers):
        model.save_pretrained = _refuse_to_save  # type: ignore[assignment]


def _refuse_to_save(*_: Any, **__: Any) -> None:
    raise QuantizationError(
        "A 4-bit model that runs on the CPU is packed and cannot be saved; write one with python -m quantization.export."
    )
