"""Where a checkpoint is, and whether its files are whole, before anything is loaded."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from core.errors import CheckpointError

RELEASED = "EasonXiao-888/HaploOmni"
RELEASED_VAE = "THUDM/CogVideoX-2b"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.jinja"]
_NEEDED = (
    "config.json",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "video_processor/preprocessor_config.json",
)


def bundled_checkpoint() -> Path:
    """The small checkpoint that ships with the repository."""
    return Path(__file__).resolve().parents[2] / "examples" / "checkpoints" / "haploomni-tiny"


def resolve_checkpoint(name: str | Path | None, patterns: list[str] | None = None) -> Path:
    """A local folder for ``name``: None is the bundled checkpoint; a folder is itself; a hub id is downloaded.

    Raises:
        CheckpointError: no such folder, or the download failed.
    """
    if name is None:
        return bundled_checkpoint()
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise CheckpointError(f"'{name}' is a file; name the folder of the checkpoint.")
    if not _HUB_ID.fullmatch(str(name)) or str(name).startswith("."):
        raise CheckpointError(f"There is no checkpoint folder '{name}', and it is no hub id of the form owner/name.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=patterns or _PATTERNS))
    except Exception as error:
        raise CheckpointError(
            f"'{name}' is no local folder and could not be downloaded from the hub ({type(error).__name__}); "
            "check the name and the network."
        ) from error


def verify_checkpoint(folder: Path) -> None:
    """Check that every needed file is there and every safetensors file is whole.

    Raises:
        CheckpointError: names the first file that is missing, cut or foreign.
    """
    for name in _NEEDED:
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"The checkpoint {folder} has no {name}; copy or download it again.")
        _read_json(file)
    verify_config(folder)
    for shard in weight_files(folder):
        verify_safetensors(shard)


def verify_config(folder: Path) -> None:
    """Check that ``config.json`` is that of a HaploOmni.

    Raises:
        CheckpointError: it is missing, damaged or foreign.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"The checkpoint {folder} has no config.json; copy or download it again.")
    if _read_json(file).get("model_type") != "HaploOmni":
        raise CheckpointError(f"{file} does not describe a HaploOmni model.")


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a checkpoint, by its index or the single file.

    Raises:
        CheckpointError: there are none, or the index names a shard that is not there.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise CheckpointError(f"{index} names {missing[0] if missing else 'no weights'}, which is not in the folder.")
        return [folder / name for name in names]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    raise CheckpointError(f"The checkpoint {folder} has no model.safetensors; other formats are never read.")


def verify_safetensors(file: Path) -> None:
    """Check a safetensors file's header against its length.

    Raises:
        CheckpointError: the file is cut, or no safetensors file at all.
    """
    size_bytes = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size_bytes
        if length + 8 > size_bytes:
            raise CheckpointError(f"{file} is cut short or is no safetensors file; copy or download it again.")
        try:
            header = json.loads(stream.read(length))
            end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(f"{file} is no safetensors file; copy or download it again.") from None
    if 8 + length + end != size_bytes:
        raise CheckpointError(f"{file} has {size_bytes} bytes but its header describes {8 + length + end}; copy it again.")


def _read_json(file: Path) -> dict:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} is not valid JSON; copy or download it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} does not hold a JSON object; copy or download it again.")
    return value
