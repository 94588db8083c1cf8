"""``python -m quantization.synthesize``: a checkpoint of any size with random weights, to prove that the size loads and runs.

By default the released 9B shapes. The words it reads are those of the bundled tokenizer; what it answers means nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zlib
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from tqdm import tqdm

from core.config import HaploOmniConfig
from quantization.errors import QuantizationError
from quantization.files import BUNDLED, SHARD_BYTES, ShardWriter, copy_companions, find_checkpoint, read_json
from quantization.layout import TensorSpec, tensors
from quantization.modes import Precision, Weights
from quantization.weights import number_of_weights, weight_bytes

WORDS = ("image_token_index", "video_token_index", "eos_token_id", "pad_token_id")  # ids of the tokenizer that comes along


def random_tensor(spec: TensorSpec, seed: int, spread: float, dtype: torch.dtype) -> Tensor:
    """Norms and gates as they start, everything else normal numbers; the same for the same seed and name."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{spec.name}".encode()))
    if spec.name.endswith((".SSG_C", ".SSG_L")):
        return torch.tensor([[0.0], [0.0], [1.0]], dtype=dtype).expand(spec.shape).clone()
    if spec.name.endswith(".bias"):
        return torch.zeros(spec.shape, dtype=dtype)
    if len(spec.shape) == 1 and not spec.name.endswith("newline"):
        return torch.ones(spec.shape, dtype=dtype)
    return torch.randn(spec.shape, generator=generator).mul_(spread).to(dtype)


def synthesize(
    target: Path,
    config: HaploOmniConfig,
    seed: int = 0,
    precision: Precision = Precision.BF16,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
    released_vae: bool = False,
) -> Path:
    """Write the checkpoint shard by shard.

    Args:
        released_vae: with an autoencoder of CogVideoX-2B's shapes and random weights, instead of the bundled one.

    Raises:
        QuantizationError: the target exists, or there is too little disk.
    """
    if target.exists() and any(target.iterdir()):
        if not force:
            raise QuantizationError(f"{target} exists and is not empty; name another folder, or add --force.")
        shutil.rmtree(target)
    for key in WORDS:
        setattr(config, key, read_json(BUNDLED / "config.json")[key])
    writer = ShardWriter(target, shard_bytes)
    copy_companions(BUNDLED, target)
    _fit_processors(target, config)
    if released_vae:
        shutil.rmtree(target / "vae")
        (target / "preview.json").unlink(missing_ok=True)
        torch.manual_seed(seed)
        AutoencoderKLCogVideoX(sample_height=480, sample_width=720).to(precision.dtype).save_pretrained(target / "vae")
    every = list(tensors(config))
    for spec in tqdm(every, desc="random weights", unit="tensor"):
        writer.add(spec.name, random_tensor(spec, seed, config.initializer_range, precision.dtype))
    stored = config.to_dict() | {"dtype": str(precision.dtype).removeprefix("torch.")}
    writer.finish(json.loads(json.dumps(stored | {"architectures": ["HaploOmniForConditionalGeneration"]}, default=str)))
    return target


def _fit_processors(folder: Path, config: HaploOmniConfig) -> None:
    """Tiles and patches of this configuration in the processors' files."""
    side = config.default_image_size
    for name in (
        "preprocessor_config.json",
        "video_processor/preprocessor_config.json",
        "processor_config.json",
        "haploomni.json",
    ):
        values = read_json(folder / name)
        if "size" in values:
            values["size"] = {"height": side, "width": side}
        if "image_grid_pinpoints" in values:
            values["image_grid_pinpoints"] = config.image_grid_pinpoints
        if "num_image_tokens" in values:
            values["num_image_tokens"] = config.patches_per_side**2
        if "knows" in values:
            values |= {
                "name": "HaploOmni with random weights",
                "knows": "Random weights: it knows nothing and says nothing that means anything.",
            }
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m quantization.synthesize", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", default=None, help="checkpoint folder whose shapes to take; by default the released 9B's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=[p.value for p in Precision], default=Precision.BF16.value)
    parser.add_argument("--force", action="store_true", help="write over an existing folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Exit code 2 with one sentence when it cannot be done."""
    options = build_parser().parse_args(argv)
    precision = Precision(options.dtype)
    try:
        config = HaploOmniConfig() if options.config is None else _config_of(options.config)
        wanted = sum(weight_bytes(config, Weights.FULL, precision).values())
        place = next(parent for parent in (options.out, *options.out.resolve().parents) if parent.exists())
        free = shutil.disk_usage(place).free
        numbers = number_of_weights(config)
        print(f"{numbers / 1e9:.2f} billion numbers: {wanted / 1e9:.1f} GB to {options.out}, {free / 1e9:.1f} GB are free")  # noqa: T201
        if free < wanted * 1.02:
            raise QuantizationError("There is too little room; name another disk with --out.")
        synthesize(options.out, config, options.seed, precision, options.force, released_vae=options.config is None)
    except QuantizationError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _config_of(name: str) -> HaploOmniConfig:
    config = HaploOmniConfig.from_pretrained(find_checkpoint(name, only_config=True))
    if getattr(config, "quantization_config", None) is not None:
        raise QuantizationError(f"{name} is quantized; name a full checkpoint.")
    return config


if __name__ == "__main__":
    sys.exit(main())
