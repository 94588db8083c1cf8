"""A checkpoint's files: JSON, and safetensors in one file or in shards.

Every fault is one sentence with the file's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from core.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

SHIPPED_SHARD_BYTES = 9_000_000  # of checkpoints in git: hubs refuse plain pushes of files over 10 MiB
UNFINISHED = "UNFINISHED"  # stands in a checkpoint folder while it is being written
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object, with or without a byte order mark.

    Raises:
        CheckpointError: it cannot be read, or is no JSON object.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read ({error.strerror}); copy or download it again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON; copy or download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} does not hold a JSON object; copy or download it again.")
    return value


def read_plain_json(file: Path) -> dict[str, Any]:
    """A JSON object of a file that libraries read as well, which stumble over a byte order mark.

    Raises:
        CheckpointError: it cannot be read, is no JSON object, or begins with a byte order mark.
    """
    value = read_json(file)
    if file.read_bytes().startswith(BYTE_ORDER_MARK):
        raise CheckpointError(f"{file} begins with a byte order mark; save it as UTF-8 without one.")
    return value


def weight_files(folder: Path, stem: str = "model") -> list[Path]:
    """The safetensors files of a folder: the single one, or the shards that its index names.

    Args:
        stem: ``model`` (transformers) or ``diffusion_pytorch_model`` (diffusers).

    Raises:
        CheckpointError: there are none or two sets, or the index names a file that is not in the folder.
    """
    single = folder / f"{stem}.safetensors"
    index = folder / f"{stem}.safetensors.index.json"
    if single.is_file() and index.is_file():
        raise CheckpointError(
            f"{folder} holds both {single.name} and {index.name}, two sets of weights; remove the older one."
        )
    if single.is_file():
        return [single]
    if not index.is_file():
        raise CheckpointError(f"The checkpoint {folder} has no {single.name}; other formats are never read.")
    weight_map = read_plain_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} names no weights; copy or download it again.")
    for name in weight_map.values():
        if not isinstance(name, str) or not _is_shard_name(name):
            raise CheckpointError(
                f"{index} names {str(name)[:200]!r}, which is no safetensors file of its own folder."
            )
    files = [folder / name for name in sorted(set(weight_map.values()))]
    for file in files:
        if not file.is_file():
            raise CheckpointError(
                f"{index} names {file.name}, which is not in the folder; copy or download it again."
            )
    return files


def _is_shard_name(name: str) -> bool:
    return name.endswith(".safetensors") and not set(name) & set("/\\:\0")


def stored_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in safetensors files, by name, without reading them; the files are whole.

    Raises:
        CheckpointError: a file is cut or longer than it says, or no safetensors file at all.
    """
    shapes = {}
    for file in files:
        try:
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118  (not a dict)
                    shapes[name] = tuple(opened.get_slice(name).get_shape())
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{file} is cut short, damaged or no safetensors file at all; copy or download it again."
            ) from error
    return shapes


def read_tensors(files: Iterable[Path]) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of whole safetensors files, one after the other.

    The tensors, of any shape, are mapped, not read at once.
    """
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a dict)
                yield name, opened.get_tensor(name)
