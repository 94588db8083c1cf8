"""``python -m quantization.export``: a checkpoint to a pre-quantized folder that need not be quantized again."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from core.config import HaploOmniConfig
from quantization.bnb import is_available, quantization_config, stored_weights
from quantization.errors import QuantizationError
from quantization.files import (
    RECORD,
    ShardWriter,
    copy_companions,
    find_checkpoint,
    read_json,
    read_tensors,
    tensor_names,
    weight_files,
)
from quantization.layout import tensors
from quantization.modes import Precision, Weights
from quantization.weights import weight_bytes


def quantize(name: str, weight: Tensor, weights: Weights) -> dict[str, Tensor]:
    """One matrix [rows, columns] as the tensors that transformers stores and reads for it."""
    import bitsandbytes

    given: Any  # bitsandbytes' parameters are not typed
    if weights is Weights.INT8:
        given = bitsandbytes.nn.Int8Params(weight, requires_grad=False)
        made = given.to(weight.device)
        stem = name.removesuffix(".weight")
        return {name: made.CB, f"{stem}.SCB": made.SCB, f"{stem}.weight_format": torch.tensor(0, dtype=torch.uint8)}
    nested = weights is Weights.NF4_DOUBLE
    given = bitsandbytes.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=nested)
    made = given.to(weight.device)
    scales = made.quant_state.as_dict(packed=True)
    return {name: made.data, **{f"{name}.{key}": value for key, value in scales.items()}}


def export(source: Path, target: Path, weights: Weights, precision: Precision = Precision.BF16, force: bool = False) -> Path:
    """Write a quantized copy of the checkpoint ``source``; at no time more than a shard of it is in memory.

    Raises:
        QuantizationError: the source is quantized already or damaged, the target exists, or there is too little disk.
    """
    if weights is Weights.FULL:
        raise QuantizationError("A full copy needs no export; choose int8, nf4 or nf4-double.")
    if not is_available("cpu"):
        raise QuantizationError("Quantizing needs the package bitsandbytes; install it with pip install bitsandbytes.")
    if stored_weights(source) is not Weights.FULL:
        raise QuantizationError(f"{source} is quantized already; export from the full checkpoint.")
    if target.exists() and any(target.iterdir()):
        if not force:
            raise QuantizationError(f"{target} exists and is not empty; name another folder, or add --force.")
        shutil.rmtree(target)
    files, config = weight_files(source), HaploOmniConfig.from_pretrained(source)
    names = tensor_names(files)
    _check_disk(target, sum(weight_bytes(config, weights, precision).values()))
    matrices = {tensor.name for tensor in tensors(config) if tensor.quantizable}
    if missing := matrices - set(names):
        raise QuantizationError(f"{source} has no tensor {min(missing)}; it is no HaploOmni checkpoint of its configuration.")
    started = time.monotonic()
    writer, dtype = ShardWriter(target), precision.dtype
    copy_companions(source, target)
    for name, tensor in tqdm(read_tensors(files), total=len(names), desc=f"to {weights.value}", unit="tensor"):
        tensor = tensor.to(dtype) if tensor.is_floating_point() else tensor
        for key, value in (quantize(name, tensor, weights) if name in matrices else {name: tensor}).items():
            writer.add(key, value)
    how = quantization_config(config, weights, precision)
    assert how is not None
    stored = read_json(source / "config.json") | {
        "dtype": str(dtype).removeprefix("torch."),
        "quantization_config": how.to_dict(),
    }
    stored.pop("torch_dtype", None)
    record = {"weights": weights.value, "precision": precision.value, "seconds": round(time.monotonic() - started, 1)}
    (target / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    writer.finish(json.loads(json.dumps(stored, default=str)))
    return target


def _check_disk(target: Path, wanted: int) -> None:
    place = next(parent for parent in (target, *target.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < wanted * 1.05:
        raise QuantizationError(
            f"{target} would take {wanted / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; make room or name another disk."
        )


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m quantization.export", description=__doc__)
    parser.add_argument("--checkpoint", default=None, help="folder or hub id of the full weights; by default the bundled ones")
    parser.add_argument(
        "--weights", choices=[w.value for w in Weights if w is not Weights.FULL], default=Weights.NF4_DOUBLE.value
    )
    parser.add_argument(
        "--dtype", choices=[p.value for p in Precision], default=Precision.BF16.value, help="of all other tensors"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true", help="write over an existing folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit code 2 with one sentence when it cannot be done."""
    options = build_parser().parse_args(argv)
    started = time.monotonic()
    try:
        source = find_checkpoint(options.checkpoint)
        made = export(source, options.out, Weights(options.weights), Precision(options.dtype), options.force)
    except QuantizationError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    size = sum(file.stat().st_size for file in made.glob("*.safetensors"))
    print(f"{made}: {size / 1e9:.2f} GB in {time.monotonic() - started:.0f} s; start it with --checkpoint {made}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
