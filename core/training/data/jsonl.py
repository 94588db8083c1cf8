"""The lines of JSONL files as editors save them, and their values; nothing is lost without a word."""

from __future__ import annotations

import json
import math
import os
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

from core.errors import DataError

LONGEST_LINE = 4 * 2**20  # bytes
MOST_DIGITS = 300  # of a whole number
SNIFFED = 64  # bytes at a file's beginning that tell UTF-16 from UTF-8


def lines_of(file: Path) -> Iterator[bytes]:
    """The lines of exactly this file, in UTF-8 and without byte order marks.

    Of a line that is too long comes only its beginning, which is longer than the limit as well.

    Raises:
        DataError: it is missing, cannot be opened, or is half a UTF-16 file.
    """
    if os.path.isdir(file):
        raise DataError(f"{file} is a folder; name the JSONL file in it.")
    if not os.path.isfile(file):
        raise DataError(f"There is no data file {file}.")
    try:
        with open(file, "rb") as opened:
            encoding = _encoding(opened.read(SNIFFED))
            opened.seek(0)
            if encoding is not None:  # as Notepad and PowerShell save it
                text = opened.read().decode(encoding, "surrogatepass")
                yield from (
                    line.removeprefix("\ufeff").encode("utf-8", "surrogatepass") for line in text.split("\n")
                )
                return
            while line := opened.readline(LONGEST_LINE + 1):
                # what a line has too much is read over
                rest = line
                while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                    rest = opened.readline(LONGEST_LINE + 1)
                yield line.removeprefix(BOM_UTF8)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is neither whole UTF-8 nor whole UTF-16; save it as UTF-8 JSONL.") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32 by a file's first bytes; None for UTF-8.

    Without a byte order mark at least every third byte must be 0.
    """
    guessed = json.detect_encoding(head)
    marked = head[:2] in (b"\xff\xfe", b"\xfe\xff") or guessed == "utf-32"
    if guessed.startswith("utf-8") or not (marked or head.count(0) >= len(head) // 3):
        return None
    return guessed


def parse(line: bytes) -> Any:
    """A line's JSON, in which every number is one, every key stands once and every character is whole.

    Raises:
        DataError: it is not so.
    """
    if len(line) > LONGEST_LINE:
        raise DataError(f"the line is longer than {LONGEST_LINE // 2**20} MiB; name media by their path.")
    try:
        checks: dict[str, Any] = {"parse_constant": _no_number, "parse_float": _finite, "parse_int": _whole}
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_once, **checks)
        json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8."
        ) from error
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise DataError(
            f"the words hold half a character ({half}); write it whole or leave it out."
        ) from error
    except RecursionError as error:
        raise DataError("the brackets are too deep for a row.") from error
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"this is not JSON ({error}).") from error
    return row


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys all stand once."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"the key {shortened(twice)} stands there more than once.")
    return made


def _no_number(name: str) -> float:
    raise DataError(f"{name} is no number that JSON knows.")


def _finite(digits: str) -> float:
    if not math.isfinite(float(digits)):
        raise DataError(f"the number {digits[:20]} is too large.")
    return float(digits)


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise DataError(f"the number {digits[:20]}... is too large.")
    return int(digits)
