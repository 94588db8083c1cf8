"""What a result was made of, kept beside it, so that one made of other things is refused in a sentence."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import CheckpointError

FILE = "inputs.json"
# words in the records of earlier versions, and today's
FORMER = {
    "plan": "config",
    "learns": "trainable",
    "fitting rows": "fit_batch_size",
    "next token": "next_token",
    "words": "token_embedding",
    "eyes": "patch_embedding",
    "answers": "answer_projection",
    "word_head": "lm_head",
    "noise_in": "latent_projector",
    "noise_tokens": "latent_embedding",
    "noise_out": "denoising_head",
}


def digest(*things: object) -> str:
    """A short name of values that JSON can hold; other values, another name."""
    return hashlib.sha256(json.dumps(things, sort_keys=True, default=_plain).encode()).hexdigest()[:20]


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else str(value)


def file_digest(path: Path) -> str:
    """A short name of a file's bytes."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:20]


def folder_digest(folder: Path) -> str:
    """A short name of a model folder: of its weights, settings and tokenizer, wherever it stands."""
    kinds = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
    files = sorted({file for kind in kinds for file in folder.rglob(kind) if file.name != FILE})
    return digest(*((file.relative_to(folder).as_posix(), file_digest(file)) for file in files))


def weights_digest(module: nn.Module) -> str:
    """A short name of a network's weights."""
    made = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        made.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        made.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()[:20]


def claim(
    folder: Path, inputs: dict[str, Any], found: bool, file: str = FILE, former: Mapping[str, str] = FORMER
) -> None:
    """Write down what ``folder``'s result is made of, or see that it is made of the same.

    Args:
        folder: of the result.
        inputs: what it is made of, as JSON can hold it.
        found: whether there is a result, or the beginning of one, already.
        file: name of the record.
        former: words of earlier versions' records, and today's.

    Raises:
        CheckpointError: it is made of something else, or does not say of what.
    """
    place = folder / file
    if not place.is_file():
        if found:
            raise CheckpointError(
                f"{folder} does not say what it was made of (an earlier version's?); {_advice(folder)}."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(json.dumps(inputs, indent=1, default=_plain) + "\n", place)
        return
    written = _flat(_in_todays_words(inputs_of(folder, file), former))
    wanted = _flat(json.loads(json.dumps(inputs, default=_plain)))
    for name in {**wanted, **written}:
        before = written.get(name)
        now = wanted.get(name)
        if before != now:
            raise CheckpointError(
                f"{folder} was made with {name} = {_said(before)}, and now it is {_said(now)}; "
                f"{_advice(folder)}."
            )


def _in_todays_words(value: Any, former: Mapping[str, str]) -> Any:
    """A record of an earlier version with today's words in the place of its own."""
    if isinstance(value, dict):
        return {former.get(name, name): _in_todays_words(inner, former) for name, inner in value.items()}
    if isinstance(value, list):
        return [_in_todays_words(inner, former) for inner in value]
    return former.get(value, value) if isinstance(value, str) else value


def _flat(inputs: dict[str, Any]) -> dict[str, Any]:
    """A table within the table becomes lines of its own, so that the very setting can be named."""
    flat: dict[str, Any] = {}
    for name, value in inputs.items():
        if isinstance(value, dict):
            flat |= {f"{name} {inner}": given for inner, given in value.items()}
        else:
            flat[name] = value
    return flat


def _advice(folder: Path) -> str:
    return f"take another --out, or delete {folder} to make it anew"


def _said(value: object) -> str:
    words = json.dumps(value)
    return words if len(words) <= 200 else f"{words[:200]}..."


def inputs_of(folder: Path, file: str = FILE) -> dict[str, Any]:
    """What a folder's result is made of, as :func:`claim` wrote it down.

    Raises:
        CheckpointError: the file is missing, or damaged.
    """
    written = read_json(folder / file)
    if not isinstance(written, dict):
        raise CheckpointError(f"{folder / file} is damaged; {_advice(folder)}.")
    return written


def claimed(folder: Path) -> str:
    """A short name of the weights in a folder: of what they were made of if known, else of the files."""
    home = folder.parent if folder.name == "model" else folder  # a stage's record stands beside its weights
    return digest(inputs_of(home)) if (home / FILE).is_file() else folder_digest(folder)


def read_json(file: Path) -> Any:
    """A small file of a run.

    Raises:
        CheckpointError: it is missing, or cut short.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        raise CheckpointError(f"{file} is {reason}; {_advice(file.parent)}.") from error


def write_whole(text: str, file: Path) -> None:
    """Write a small file: a kill leaves the old one or the new one, never half."""
    part = file.with_name(f"{file.name}.part{os.getpid()}")
    part.write_text(text, encoding="utf-8")
    os.replace(part, file)


def save_whole(latents: Tensor, file: Path) -> None:
    """Write encoded clips, [n, F, 16, h, w], whole or not at all."""
    part = file.with_name(f"{file.name}.part{os.getpid()}")
    torch.save(latents, part)
    os.replace(part, file)


def load_latents(file: Path) -> Tensor:
    """Encoded clips from disk, [n, F, 16, h, w].

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return torch.load(file, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{file} is missing or damaged; delete it and run the same command again."
        ) from error


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes this one's name at the end: a kill leaves no half of a result."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
