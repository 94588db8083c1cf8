"""Where a checkpoint is, and whether its files are whole, before anything is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import GenerationConfig

from core.config import HaploOmniConfig, is_token
from core.errors import CheckpointError
from core.files import UNFINISHED, read_plain_json, stored_shapes, weight_files

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
_READ_IF_THERE = (
    "generation_config.json",
    "tokenizer.json",
    "vocab.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


def bundled_checkpoint() -> Path:
    """The small checkpoint that ships with the repository."""
    return Path(__file__).resolve().parents[2] / "examples" / "checkpoints" / "haploomni-tiny"


def resolve_checkpoint(name: str | Path | None, patterns: list[str] | None = None) -> Path:
    """A local folder for ``name``: None: the bundled checkpoint; a folder: itself; a hub id: downloaded.

    Args:
        patterns: which files to download, as glob patterns; by default all that loading reads.

    Raises:
        CheckpointError: no such folder, or the download failed.
    """
    if name is None:
        return bundled_checkpoint()
    try:
        path = Path(name).expanduser()
        is_folder = path.is_dir()
        is_file = path.is_file()
    except (OSError, RuntimeError) as error:  # closed to this user, too long a name, an unknown ~user
        said = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{str(name)[:100]!r} cannot be looked at ({said}); name another folder."
        ) from None
    if is_folder:
        return path
    if is_file:
        raise CheckpointError(f"'{name}' is a file; name the folder of the checkpoint.")
    if not _HUB_ID.fullmatch(str(name)) or str(name).startswith("."):
        raise CheckpointError(
            f"There is no checkpoint folder '{name}', and it is no hub id of the form owner/name."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=patterns or _PATTERNS))
    except Exception as error:
        raise CheckpointError(
            f"'{name}' is no local folder and could not be downloaded from the hub "
            f"({type(error).__name__}); {_advice(error)}."
        ) from error


def _advice(error: Exception) -> str:
    """What to do about a download that failed; proxies are refused before anything is asked for."""
    if "socksio" in str(error):
        return "the SOCKS proxy of the environment needs a package, run: python -m pip install socksio"
    if "proxy URL" in str(error):
        return "the proxy of the environment is of no usable kind; set http_proxy and https_proxy right"
    return "check the name and the network"


def verify_checkpoint(folder: Path) -> None:
    """Check that every needed file is there and every safetensors file is whole.

    Raises:
        CheckpointError: names the first file that is missing, cut or foreign.
    """
    verify_config(folder)
    for name in _NEEDED:
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"The checkpoint {folder} has no {name}; copy or download it again.")
        read_plain_json(file)
    for name in _READ_IF_THERE:
        if (folder / name).is_file():
            read_plain_json(folder / name)
    stored_shapes(weight_files(folder))


def verify_config(folder: Path) -> None:
    """Check that ``config.json`` is that of a HaploOmni.

    Raises:
        CheckpointError: it is missing, damaged or foreign, or the folder is half-written.
    """
    if (folder / UNFINISHED).exists():
        raise CheckpointError(f"{folder} is half-written; write it again from the full checkpoint.")
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"The checkpoint {folder} has no config.json; copy or download it again.")
    if read_plain_json(file).get("model_type") != "HaploOmni":
        raise CheckpointError(f"{file} does not describe a HaploOmni model.")


def read_config(folder: Path) -> HaploOmniConfig:
    """The configuration of a checkpoint folder, before anything else is read.

    Raises:
        CheckpointError: there is none, or it describes no possible model.
    """
    verify_config(folder)
    try:
        return HaploOmniConfig.from_pretrained(folder)
    except Exception as error:  # transformers refuses values of a wrong type by several classes
        raise CheckpointError(
            f"{folder / 'config.json'} describes no possible model: {in_a_line(error)}"
        ) from error


def in_a_line(error: Exception) -> str:
    """The last line of what a library says, which is the one about the value."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def verify_generation(folder: Path, vocab_size: int) -> None:
    """Check the token ids of ``generation_config.json``, where there is one.

    Transformers ignores a broken one silently.

    Raises:
        CheckpointError: an id is no row of the vocabulary.
    """
    file = folder / "generation_config.json"
    if not file.is_file():
        return
    values = read_plain_json(file)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        given = values.get(key)
        tokens = given if isinstance(given, list) else [given]
        if not all(is_token(token, vocab_size) for token in tokens):
            raise CheckpointError(
                f"{file}: {key} is {given!r}, which is no row of a vocabulary of {vocab_size}."
            )
    try:
        GenerationConfig.from_dict(values).validate()
    except Exception as error:
        raise CheckpointError(f"{file} cannot be used: {str(error).strip().splitlines()[0]}") from error
