"""Quantized weights by bitsandbytes, through transformers' ``BitsAndBytesConfig``."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from core.config import HaploOmniConfig
from core.errors import QuantizationError
from core.files import read_plain_json
from quantization.modes import Precision, Weights
from quantization.weights import tensor_specs

OUTLIERS = 6.0  # of int8: activations beyond it are multiplied in full (LLM.int8(), arXiv 2208.07339)
# what the CPU's packed 4-bit product can take: multiples of these
PACKED_ROWS = 32
PACKED_COLUMNS = 64

# int8 warns that it casts its input, once a layer and a forward pass; people cannot act on it
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def is_available(device_type: str) -> bool:
    """Whether bitsandbytes is installed and knows this kind of device."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return False
    import bitsandbytes

    return device_type in getattr(bitsandbytes, "supported_torch_devices", {"cuda"})


def full_modules(config: HaploOmniConfig) -> list[str]:
    """Full names of all linear layers that are never quantized: everything but the matrices of the blocks."""
    full = (spec.name for spec in tensor_specs(config) if len(spec.shape) == 2 and not spec.quantizable)
    linear = (name for name in full if name.endswith(".weight") and "embed_tokens" not in name)
    return [name.removesuffix(".weight") for name in linear]


def quantization_config(
    config: HaploOmniConfig, weights: Weights, precision: Precision
) -> BitsAndBytesConfig | None:
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
    stored = read_plain_json(folder / "config.json").get("quantization_config")
    if stored is None:
        return Weights.FULL
    if not isinstance(stored, dict):
        raise QuantizationError(
            f"{folder / 'config.json'}: quantization_config must be an object; "
            "remove it or copy the file again."
        )
    if stored.get("quant_method") == "bitsandbytes":
        if stored.get("load_in_8bit"):
            return Weights.INT8
        if stored.get("load_in_4bit") and stored.get("bnb_4bit_quant_type") == "nf4":
            return Weights.NF4_DOUBLE if stored.get("bnb_4bit_use_double_quant") else Weights.NF4
    method = stored.get("bnb_4bit_quant_type") or stored.get("quant_method") or "an unknown method"
    raise QuantizationError(
        f"{folder} is quantized by {method}, which is not read here; use the full checkpoint, int8 or nf4."
    )


def stored_dtype(folder: Path) -> str | None:
    """PyTorch's name of the precision of a checkpoint's weights, if its ``config.json`` says."""
    stored = read_plain_json(folder / "config.json")
    return stored.get("dtype", stored.get("torch_dtype"))


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
    """What is not left to the planner.

    That is ``{"weights": ...}`` where people want it, or where the checkpoint is quantized already.

    Raises:
        QuantizationError: it is quantized another way than wanted.
    """
    held = check_stored(folder, None if wanted is None else Weights(wanted))
    if wanted is None and held is Weights.FULL:
        return {}
    return {"weights": held}


def is_four_bit(model: nn.Module) -> bool:
    """Whether a model has any layer in 4 bits."""
    import bitsandbytes

    return any(isinstance(module, bitsandbytes.nn.Linear4bit) for module in model.modules())


def quantize_blocks(model: Any, weights: Weights, precision: Precision, device: torch.device) -> None:
    """Turn the matrices of a model on the CPU into 4 bits, each on ``device`` and back to the CPU.

    For blocks that will be streamed: a GPU takes seconds where a CPU takes minutes, and holds one matrix.
    """
    for block in model.model.layers:
        for name, linear in list(block.named_modules()):
            if type(linear) is nn.Linear and name.endswith("_proj"):
                block.set_submodule(name, four_bit_linear(linear, weights, precision.dtype, device))
    model.is_loaded_in_4bit = True  # transformers counts two weights in a byte
    model.save_pretrained = _refuse_to_save


def four_bit_parameter(matrix: Tensor, weights: Weights) -> Any:
    """A matrix [rows, columns] that becomes 4 bits when it is moved to a device."""
    import bitsandbytes

    nested = weights is Weights.NF4_DOUBLE
    given: Any = bitsandbytes.nn.Params4bit  # bitsandbytes' parameters are not typed
    return given(matrix, requires_grad=False, quant_type="nf4", compress_statistics=nested)


def four_bit_linear(
    linear: nn.Linear, weights: Weights, dtype: torch.dtype, device: torch.device
) -> nn.Module:
    """A linear layer in 4 bits that computes in ``dtype``: on the CPU, quantized on ``device``."""
    import bitsandbytes

    with torch.device("meta"):
        made: Any = bitsandbytes.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=dtype,
            compress_statistics=weights is Weights.NF4_DOUBLE,
            quant_type="nf4",
        )
    made.weight = four_bit_parameter(linear.weight.data.to(dtype), weights).to(device).to("cpu")
    made.bias = linear.bias
    return made.eval()


def finalize_bnb(model: nn.Module, dtype: torch.dtype, stays_on_cpu: bool) -> None:
    """Make a freshly loaded model safe to run: in ``dtype``, and packed on a CPU only where that is sound.

    On CPUs with bfloat16 instructions bitsandbytes packs every 4-bit matrix at its first use.
    That is fast for single tokens, but a packed model takes only certain shapes, computes in bfloat16, and
    can be neither saved nor moved (bitsandbytes 0.50 would do both wrongly).
    So it is switched on for a bfloat16 model that stays, and such a model refuses to be saved.
    """
    import bitsandbytes

    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    packs = stays_on_cpu and dtype == torch.bfloat16
    packs = packs and not any(m.out_features % PACKED_ROWS or m.in_features % PACKED_COLUMNS for m in layers)
    for layer in layers:
        layer.compute_dtype = dtype
        layer.compute_type_is_set = True
        state: Any = layer.weight
        state.quant_state.dtype = dtype
        layer.support_avx512bf16_for_cpu = layer.support_avx512bf16_for_cpu and packs
    if any(layer.support_avx512bf16_for_cpu for layer in layers):
        model.save_pretrained = _refuse_to_save  # type: ignore[assignment]


def _refuse_to_save(*_: Any, **__: Any) -> None:
    raise QuantizationError(
        "This 4-bit model cannot be saved, since it is packed or streamed; "
        "write one with python -m quantization.export."
    )
