"""Reading and writing checkpoint folders tensor by tensor, so that memory never holds a whole model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from quantization.errors import QuantizationError

INDEX = "model.safetensors.index.json"
RECORD = "export.json"  # what an export says about itself
UNFINISHED = "UNFINISHED"  # stands in a folder while it is being written
SHARD_BYTES = 2 * 2**30
BUNDLED = Path(__file__).resolve().parents[1] / "examples" / "checkpoints" / "haploomni-tiny"
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w.-]+")


def find_checkpoint(name: str | None, only_config: bool = False) -> Path:
    """The folder of a checkpoint: None is the bundled one, a folder itself; a hub id is downloaded.

    Args:
        only_config: nothing but its configuration is wanted.

    Raises:
        QuantizationError: there is none, or it is half-written.
    """
    folder = BUNDLED if name is None else Path(name).expanduser()
    if not folder.is_dir() and name is not None and _HUB_ID.fullmatch(name):
        from huggingface_hub import snapshot_download

        wanted = ["*.json"] if only_config else ["*.json", "*.safetensors", "*.txt", "*.jinja"]
        try:
            folder = Path(snapshot_download(name, allow_patterns=wanted))
        except Exception as error:
            raise QuantizationError(
                f"'{name}' is no local folder and could not be downloaded ({type(error).__name__}); check name and network."
            ) from error
    check_finished(folder)
    if not (folder / "config.json").is_file():
        raise QuantizationError(f"'{name}' is no checkpoint folder with a config.json; name one, or a hub id owner/name.")
    return folder


def check_finished(folder: Path) -> None:
    """Raises QuantizationError when a folder is half-written."""
    if (folder / UNFINISHED).exists():
        raise QuantizationError(f"{folder} is half-written; write it again from the full checkpoint.")


def read_json(file: Path) -> dict:
    """A JSON object.

    Raises:
        QuantizationError: it is none.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise QuantizationError(f"{file} is not valid JSON; copy or download it again.")
    return value


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        QuantizationError: one is missing.
    """
    names = ["model.safetensors"]
    if (folder / INDEX).is_file():
        names = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
    for name in names or ["model.safetensors"]:
        if not (folder / name).is_file():
            raise QuantizationError(f"{folder} has no {name}; copy or download it again.")
    return [folder / name for name in names]


def tensor_names(files: list[Path]) -> list[str]:
    """Names of all tensors in weight files.

    Raises:
        QuantizationError: a file is cut or foreign.
    """
    names: list[str] = []
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                names += list(opened.keys())
        except SafetensorError:
            raise QuantizationError(f"{file} is cut short or is no safetensors file; copy or download it again.") from None
    return names


def read_tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    """One tensor after the other; the files are mapped, not read whole."""
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a dict)
                yield name, opened.get_tensor(name)


def export_record(folder: Path) -> dict | None:
    """What an export says about itself: ``weights`` and the ``seconds`` it took; None for any other folder."""
    return read_json(folder / RECORD) if (folder / RECORD).is_file() else None


def copy_companions(source: Path, target: Path) -> None:
    """Everything of a checkpoint but its weights and configuration: processors, tokenizer, autoencoder, scheduler, defaults."""
    for item in sorted(source.iterdir()):
        weights = item.suffix in (".safetensors", ".bin", ".pt", ".pth") or item.name == INDEX
        if item.name.startswith(".") or weights or item.name in ("config.json", "README.md"):
            continue
        if item.is_dir():
            shutil.copytree(item, target / item.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(item, target / item.name)


class ShardWriter:
    """Writes tensors to numbered safetensors files of at most ``shard_bytes`` each, then the index.

    Until :meth:`finish` the folder carries the mark :data:`UNFINISHED`.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder, self.shard_bytes = folder, shard_bytes
        self._held: dict[str, Tensor] = {}
        self._held_bytes = self._written_bytes = 0
        self._shards: list[list[str]] = []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / UNFINISHED).touch()

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one more tensor."""
        size = tensor.numel() * tensor.element_size()
        if self._held and self._held_bytes + size > self.shard_bytes:
            self._flush()
        self._held[name] = tensor.contiguous()
        self._held_bytes += size

    def _flush(self) -> None:
        save_file(self._held, self.folder / f"shard-{len(self._shards)}", metadata={"format": "pt"})
        self._shards.append(list(self._held))
        self._written_bytes += self._held_bytes
        self._held, self._held_bytes = {}, 0

    def finish(self, config: dict) -> None:
        """Name the files, write index and ``config.json``, and take the mark away."""
        if self._held:
            self._flush()
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05d}-of-{len(self._shards):05d}.safetensors"
            (self.folder / f"shard-{number}").rename(self.folder / file)
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {"total_size": self._written_bytes}, "weight_map": weight_map}
        (self.folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
        (self.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (self.folder / UNFINISHED).unlink()
