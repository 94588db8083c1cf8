"""Every start option once: a command line flag, the same as an environment variable, and its default."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import Any, NoReturn

from quantization.modes import MemoryPreference, Offload, Precision, Weights, current_offload_word


@dataclass(frozen=True)
class Settings:
    """How the page starts. Each field is ``--name`` and ``HAPLO_NAME``."""

    checkpoint: str | None = None
    vae: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    host: str = "127.0.0.1"
    port: int = 7860
    share: bool = False
    memory: str = "auto"
    weights: str | None = None
    offload: str | None = None
    vae_tiling: str = "auto"
    outputs: str | None = None
    state: str | None = None
    keep: int = 60
    grace: int = 30
    max_queue: int = 16
    max_per_visitor: int = 4
    max_per_address: int = 8
    max_minutes: int = 240
    untested: bool = False


_HELP = {
    "checkpoint": "folder or Hugging Face id of the weights; default: the bundled small model",
    "vae": "folder or hub id with vae/ and scheduler/; default: the checkpoint's own, else CogVideoX-2b",
    "device": "auto, cpu, cuda, cuda:N or mps",
    "dtype": "auto, float32, bfloat16 or float16",
    "memory": "how to hold the model: auto, quality, balanced, low or cpu",
    "weights": "full, int8, nf4 or nf4-double; default: what --memory chooses, or what the checkpoint is",
    "offload": "none, embeddings, model or sequential: what leaves the GPU when it is not needed; "
    "default: what --memory chooses",
    "vae_tiling": "decode frames in tiles: auto, on or off",
    "host": "address to listen on; 0.0.0.0 opens the page to the network",
    "port": "port to listen on; the next free one is taken when it is busy and was not asked for",
    "share": "make a public link through Gradio's servers",
    "outputs": "folder for finished clips, which are kept there; default: a private one, kept as --keep says",
    "state": "folder in which jobs, results and uploads outlive a restart for their time, or none; "
    "default: this user's own",
    "keep": "minutes that an ended job and its result are kept",
    "grace": "seconds that a job goes on when nobody follows it any more",
    "max_queue": "waiting jobs before further ones are refused",
    "max_per_visitor": "jobs of one browser, running and waiting, before further ones are refused",
    "max_per_address": "jobs of one network address, likewise; 0: no limit",
    "max_minutes": "minutes of the model's time that one job may take",
    "untested": "start with packages outside the ranges that were tested",
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("auto", *(precision.dtype_name for precision in Precision)),
    "memory": tuple(preference.value for preference in MemoryPreference),
    "weights": tuple(weights.value for weights in Weights),
    "offload": tuple(offload.value for offload in Offload),
    "vae_tiling": ("auto", "on", "off"),
}
_FOLDERS = ("checkpoint", "vae", "outputs", "state")
_AT_LEAST = {
    "max_queue": 1,
    "max_per_visitor": 1,
    "max_per_address": 0,
    "max_minutes": 1,
    "keep": 1,
    "grace": 0,
}
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


class _Parser(argparse.ArgumentParser):
    """A parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def build_parser() -> argparse.ArgumentParser:
    """The command line; flags not given stay None so that the environment can fill them."""
    parser = _Parser(
        prog="app.py",
        description="HaploOmni: chat about pictures and clips, and make clips from text, in the browser.",
        epilog="Every option can be set in the environment as HAPLO_<NAME>, for example HAPLO_PORT=8000. "
        "An empty value, here or there, is the same as none.",
    )
    for field in fields(Settings):
        flag = _flag(field.name)
        default = (
            "" if field.default is None or isinstance(field.default, bool) else f" (default: {field.default})"
        )
        if isinstance(field.default, bool):
            parser.add_argument(
                flag, action=argparse.BooleanOptionalAction, default=None, help=_HELP[field.name]
            )
        else:
            parser.add_argument(flag, default=None, help=_HELP[field.name] + default)
    return parser


def read_settings(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the command line, the environment, then the defaults; exits with 2 on a wrong value."""
    environ = os.environ if environ is None else environ
    parser = build_parser()
    given = vars(parser.parse_args(sys.argv[1:] if argv is None else argv))
    values: dict[str, Any] = {}
    for field in fields(Settings):
        variable = f"HAPLO_{field.name.upper()}"
        text = environ.get(variable, "")
        if isinstance(given[field.name], bool):
            values[field.name] = given[field.name]
        elif (given[field.name] or "").strip():
            values[field.name] = _value(parser, field, _flag(field.name) + " ", given[field.name])
        elif text.strip():
            values[field.name] = _value(parser, field, f"{variable}=", text)
        elif field.name == "host" and environ.get("SYSTEM", "").strip() == "spaces":
            values[field.name] = "0.0.0.0"  # a Space's container is reached from outside only so
        elif field.name == "max_per_address" and environ.get("SYSTEM", "").strip() == "spaces":
            values[field.name] = 0  # all visitors come from the address of its proxy
        else:
            values[field.name] = field.default
    return Settings(**values)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _value(parser: argparse.ArgumentParser, field: Field, source: str, text: str) -> object:
    """The value of an option; what cannot be ends the program with a sentence that repeats ``source``."""
    if field.name in _FOLDERS:
        return text
    text = text.strip()
    shown = text if text.isprintable() and len(text) <= 60 else ascii(text)[:60]
    wrong = f"{source}{shown}"
    if isinstance(field.default, bool):
        if text.lower() not in _TRUE + _FALSE:
            parser.error(f"{wrong} is not possible; use 1 or 0")
        return text.lower() in _TRUE
    if isinstance(field.default, int):
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
            parser.error(f"{wrong} is not a whole number")
        number = int(text)
        if field.name == "port" and not 0 <= number <= 65535:
            parser.error(f"{wrong} is not possible; choose 1 to 65535 (0: any free one)")
        least = _AT_LEAST.get(field.name)
        if least is not None and number < least:
            parser.error(f"{wrong} is not possible; choose {least} or more")
        return number
    if field.name == "offload":
        text = current_offload_word(text)
    choices = _CHOICES.get(field.name)
    if choices is not None and text not in choices:
        parser.error(f"{wrong} is not possible; choose {', '.join(choices[:-1])} or {choices[-1]}")
    if field.name == "device" and not _DEVICE.fullmatch(text):
        parser.error(f"{wrong} is not possible; choose auto, cpu, cuda, cuda:N or mps")
    return text
