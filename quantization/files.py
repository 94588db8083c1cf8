"""Writing checkpoint folders tensor by tensor, so that memory never holds a whole model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME

from core.errors import CheckpointError, QuantizationError
from core.files import UNFINISHED, read_json

RECORD = "export.json"  # what an export says about itself
SHARD_BYTES = 2 * 2**30


def export_seconds(folder: Path) -> float | None:
    """The seconds that an export took, by its record; None for any other folder.

    Raises:
        CheckpointError: the record is damaged.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    seconds = read_json(file).get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e9:
        raise CheckpointError(f"{file} does not say how many seconds the export took; remove it.")
    return float(seconds)


def clear_target(target: Path, force: bool) -> None:
    """Refuse a folder to write to that holds something already; with ``force`` it goes.

    Raises:
        QuantizationError: it holds something.
    """
    if target.exists() and any(target.iterdir()):
        if not force:
            raise QuantizationError(f"{target} exists and is not empty; name another folder, or add --force.")
        shutil.rmtree(target)


def check_disk(target: Path, size_bytes: int) -> None:
    """Refuse to write more bytes than the disk of ``target`` has room for.

    Raises:
        QuantizationError: it has less than a twentieth more.
    """
    place = next(parent for parent in (target, *target.resolve().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < size_bytes * 1.05:
        raise QuantizationError(
            f"{target} would take {size_bytes / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "make room or name another disk."
        )


def copy_sidecar_files(source: Path, target: Path) -> None:
    """Copy everything of a checkpoint but its weights and configuration.

    That is processors, tokenizer, autoencoder, scheduler and defaults.
    """
    left_out = {"config.json", "README.md", SAFE_WEIGHTS_INDEX_NAME}
    for item in sorted(source.iterdir()):
        is_weights = item.suffix in (".safetensors", ".bin", ".pt", ".pth")
        if is_weights or item.name.startswith(".") or item.name in left_out:
            continue
        if item.is_dir():
            shutil.copytree(item, target / item.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(item, target / item.name)


class ShardWriter:
    """Writes tensors to numbered safetensors files of at most ``shard_bytes`` each, then the index.

    Until :meth:`finish` the folder carries the mark :data:`~core.files.UNFINISHED`.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = folder
        self.shard_bytes = shard_bytes
        self._held: dict[str, Tensor] = {}
        self._held_bytes = 0
        self._written_bytes = 0
        self._shards: list[list[str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / UNFINISHED).touch()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one more tensor, of any shape; the file that is full with it is written."""
        size = tensor.numel() * tensor.element_size()
        if self._held and self._held_bytes + size > self.shard_bytes:
            self._flush()
        self._held[name] = tensor.contiguous()
        self._held_bytes += size

    def _flush(self) -> None:
        save_file(self._held, self.folder / f"shard-{len(self._shards)}", metadata={"format": "pt"})
        self._shards.append(list(self._held))
        self._written_bytes += self._held_bytes
        self._held = {}
        self._held_bytes = 0

    def finish(self, config: dict[str, Any]) -> None:
        """Name the files, write index and ``config.json``, and take the mark away."""
        if self._held:
            self._flush()
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05d}-of-{len(self._shards):05d}.safetensors"
            (self.folder / f"shard-{number}").rename(self.folder / file)
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._written_bytes}, "weight_map": weight_map}
        (self.folder / SAFE_WEIGHTS_INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
        (self.folder / "config.json").write_text(json.dumps(config, indent=2, default=str) + "\n")
        (self.folder / UNFINISHED).unlink()
