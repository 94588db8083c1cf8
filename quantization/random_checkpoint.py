"""``python -m quantization.random_checkpoint``: a checkpoint of any size with random weights.

By default of the released 9B shapes, to prove that they load and run.
The words it reads are those of the bundled tokenizer; what it answers means nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from tqdm import tqdm

from core.config import HaploOmniConfig
from core.errors import HaploOmniError, QuantizationError
from core.files import read_json
from core.profile import default_profile
from core.weights.resolve import bundled_checkpoint, read_config, resolve_checkpoint
from quantization.files import SHARD_BYTES, ShardWriter, check_disk, clear_target, copy_sidecar_files
from quantization.modes import Precision
from quantization.weights import TensorSpec, tensor_specs

# ids of the tokenizer that comes along
TOKEN_IDS = ("image_token_index", "video_token_index", "eos_token_id", "pad_token_id")


def random_tensor(spec: TensorSpec, seed: int, spread: float, dtype: torch.dtype) -> Tensor:
    """A tensor of any shape, the spec's: norms and gates as they start, everything else normal numbers.

    The same seed and name give the same values.

    Args:
        spread: standard deviation of the normal numbers.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{spec.name}".encode()))
    if spec.name.endswith((".SSG_C", ".SSG_L")):
        shift_scale_gate = torch.tensor([[0.0], [0.0], [1.0]], dtype=dtype)  # (3, 1)
        return shift_scale_gate.expand(spec.shape).clone()  # (3, D)
    if spec.name.endswith(".bias"):
        return torch.zeros(spec.shape, dtype=dtype)
    if len(spec.shape) == 1 and not spec.name.endswith("newline"):
        return torch.ones(spec.shape, dtype=dtype)
    return torch.randn(spec.shape, generator=generator).mul_(spread).to(dtype)


def random_checkpoint(
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
        config: of the model; it gets the token ids of the bundled tokenizer.
        shard_bytes: of a file, at most.
        released_vae: with an autoencoder of CogVideoX-2B's shapes and random weights, not the bundled one.

    Raises:
        QuantizationError: the target exists, or there is too little disk.
    """
    clear_target(target, force)
    bundled = read_json(bundled_checkpoint() / "config.json")
    for key in TOKEN_IDS:
        setattr(config, key, bundled[key])
    specs = tensor_specs(config)
    num_elements = sum(spec.num_elements for spec in specs)
    check_disk(target, num_elements * precision.size_bytes)
    writer = ShardWriter(target, shard_bytes)

    # everything but the weights: the bundled checkpoint's, fitted to this configuration
    copy_sidecar_files(bundled_checkpoint(), target)
    _fit_processors(target, config)
    domain = "Random weights: nothing it says or shows means anything."
    profile = default_profile(config, num_elements)
    replace(profile, name="HaploOmni with random weights", domain=domain).save(target)
    if released_vae:
        shutil.rmtree(target / "vae")
        (target / "preview.json").unlink(missing_ok=True)
        torch.manual_seed(seed)
        vae = AutoencoderKLCogVideoX(sample_height=480, sample_width=720).to(precision.dtype)
        vae.save_pretrained(target / "vae")

    # the weights, one after the other
    for spec in tqdm(specs, desc="random weights", unit="tensor"):
        writer.add(spec.name, random_tensor(spec, seed, config.initializer_range, precision.dtype))
    architectures = ["HaploOmniForConditionalGeneration"]
    writer.finish(config.to_dict() | {"dtype": precision.dtype_name, "architectures": architectures})
    return target


def _fit_processors(folder: Path, config: HaploOmniConfig) -> None:
    """Tiles and patches of this configuration in the processors' files."""
    side = config.default_image_size
    for name in (
        "preprocessor_config.json",
        "video_processor/preprocessor_config.json",
        "processor_config.json",
    ):
        values = read_json(folder / name)
        if "size" in values:
            values["size"] = {"height": side, "width": side}
        if "image_grid_pinpoints" in values:
            values["image_grid_pinpoints"] = config.image_grid_pinpoints
        if "num_image_tokens" in values:
            values["num_image_tokens"] = config.patches_per_side**2
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")


def build_parser() -> argparse.ArgumentParser:
    """Options of ``python -m quantization.random_checkpoint``: which shapes, and the folder to write."""
    parser = argparse.ArgumentParser(prog="python -m quantization.random_checkpoint", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--config", default=None, help="checkpoint folder whose shapes to take; by default the released 9B's"
    )
    parser.add_argument("--seed", type=int, default=0)
    dtypes = [precision.dtype_name for precision in Precision]
    parser.add_argument("--dtype", choices=dtypes, default=Precision.BF16.dtype_name)
    parser.add_argument("--force", action="store_true", help="write over an existing folder")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write it; exit code 2 with one sentence when it cannot be done."""
    options = build_parser().parse_args(argv)
    precision = Precision.named(options.dtype)
    is_released = options.config is None
    try:
        config = HaploOmniConfig() if is_released else _config_of(options.config)
        made = random_checkpoint(
            options.out, config, options.seed, precision, options.force, released_vae=is_released
        )
    except HaploOmniError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    size = sum(file.stat().st_size for file in made.glob("*.safetensors"))
    print(f"{made}: {size / 1e9:.2f} GB of random weights")  # noqa: T201
    return 0


def _config_of(name: str) -> HaploOmniConfig:
    config = read_config(resolve_checkpoint(name, ["*.json"]))
    if getattr(config, "quantization_config", None) is not None:
        raise QuantizationError(f"{name} is quantized; name a full checkpoint.")
    return config


if __name__ == "__main__":
    sys.exit(main())
