"""``python -m quantization.export``: a checkpoint to a quantized folder that need not be quantized again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from core.errors import HaploOmniError, QuantizationError
from core.files import read_plain_json, read_tensors, stored_shapes, weight_files
from core.weights.resolve import read_config, resolve_checkpoint
from quantization.bnb import four_bit_parameter, is_available, quantization_config, stored_weights
from quantization.files import (
    RECORD,
    ShardWriter,
    check_disk,
    clear_target,
    copy_sidecar_files,
)
from quantization.modes import Precision, Weights
from quantization.weights import tensor_specs, weight_bytes


def quantize(name: str, weight: Tensor, weights: Weights) -> dict[str, Tensor]:
    """One matrix [rows, columns] as the tensors that transformers stores and reads for it, by name."""
    if weights is Weights.INT8:
        from bitsandbytes.nn import Int8Params

        given: Any = Int8Params(weight, requires_grad=False)  # bitsandbytes' parameters are not typed
        made = given.to(weight.device)
        stem = name.removesuffix(".weight")
        return {
            name: made.CB,
            f"{stem}.SCB": made.SCB,
            f"{stem}.weight_format": torch.tensor(0, dtype=torch.uint8),
        }
    made = four_bit_parameter(weight, weights).to(weight.device)
    scales = made.quant_state.as_dict(packed=True)
    return {name: made.data, **{f"{name}.{key}": value for key, value in scales.items()}}


def export(
    source: Path, target: Path, weights: Weights, precision: Precision = Precision.BF16, force: bool = False
) -> Path:
    """Write a quantized copy of the checkpoint ``source``; at no time more than a shard of it is in memory.

    Raises:
        CheckpointError: the source is damaged.
        QuantizationError: it is quantized already, the target exists, or there is too little disk.
    """
    if weights is Weights.FULL:
        raise QuantizationError("A full copy needs no export; choose int8, nf4 or nf4-double.")
    if not is_available("cpu"):
        raise QuantizationError(
            "Quantizing needs the package bitsandbytes; install it with pip install bitsandbytes."
        )
    if stored_weights(source) is not Weights.FULL:
        raise QuantizationError(f"{source} is quantized already; export from the full checkpoint.")
    clear_target(target, force)
    config = read_config(source)
    files = weight_files(source)
    names = stored_shapes(files).keys()
    specs = tensor_specs(config)
    check_disk(target, sum(weight_bytes(specs, weights, precision).values()))
    matrices = {tensor.name for tensor in specs if tensor.quantizable}
    if missing := matrices - names:
        raise QuantizationError(
            f"{source} has no tensor {min(missing)}; it is no HaploOmni checkpoint of its configuration."
        )
    started = time.monotonic()
    writer = ShardWriter(target)
    copy_sidecar_files(source, target)
    for name, tensor in tqdm(
        read_tensors(files), total=len(names), desc=f"to {weights.value}", unit="tensor"
    ):
        if tensor.is_floating_point():
            tensor = tensor.to(precision.dtype)
        made = quantize(name, tensor, weights) if name in matrices else {name: tensor}
        for key, value in made.items():
            writer.add(key, value)
    how = quantization_config(config, weights, precision)
    assert how is not None
    stored = read_plain_json(source / "config.json")
    stored.pop("torch_dtype", None)  # an older name of "dtype"
    stored |= {"dtype": precision.dtype_name, "quantization_config": how.to_dict()}
    record = {
        "weights": weights.value,
        "precision": precision.value,
        "seconds": round(time.monotonic() - started, 1),
    }
    (target / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    writer.finish(stored)
    return target


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m quantization.export``: from which checkpoint, to which weights and folder."""
    parser = argparse.ArgumentParser(prog="python -m quantization.export", description=__doc__)
    parser.add_argument(
        "--checkpoint", default=None, help="folder or hub id of the full weights; by default the bundled ones"
    )
    parser.add_argument(
        "--weights",
        choices=[w.value for w in Weights if w is not Weights.FULL],
        default=Weights.NF4_DOUBLE.value,
    )
    parser.add_argument(
        "--dtype",
        choices=[precision.dtype_name for precision in Precision],
        default=Precision.BF16.dtype_name,
        help="of all other tensors",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true", help="write over an existing folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Export; exit code 2 with one sentence when it cannot be done."""
    options = build_parser().parse_args(argv)
    started = time.monotonic()
    try:
        source = resolve_checkpoint(options.checkpoint)
        precision = Precision.named(options.dtype)
        made = export(source, options.out, Weights(options.weights), precision, options.force)
    except HaploOmniError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    size = sum(file.stat().st_size for file in made.glob("*.safetensors"))
    seconds = time.monotonic() - started
    print(f"{made}: {size / 1e9:.2f} GB in {seconds:.0f} s; start it with --checkpoint {made}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
