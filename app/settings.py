"""Every start option once: a command line flag, the same as an environment variable, and its default."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from quantization.modes import Offload, Precision, Preference, Weights


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
    max_queue: int = 16


_HELP = {
    "checkpoint": "folder or Hugging Face id of the weights; default: the bundled small model",
    "vae": "folder or hub id with vae/ and scheduler/; default: the checkpoint's own, else CogVideoX-2b",
    "device": "auto, cpu, cuda, cuda:N or mps",
    "dtype": "auto, float32, bfloat16 or float16",
    "memory": "how to hold the model: auto, quality, balanced, low or cpu",
    "weights": "full, int8, nf4 or nf4-double; default: what --memory chooses, or what the checkpoint is",
    "offload": "none, embeddings, parts or blocks: what leaves the GPU while it is not needed; default: what --memory chooses",
    "vae_tiling": "decode frames in tiles: auto, on or off",
    "host": "address to listen on; 0.0.0.0 opens the page to the network",
    "port": "port to listen on; the next free one is taken when it is busy and was not asked for",
    "share": "make a public link through Gradio's servers",
    "outputs": "folder for finished clips; default: a temporary one, emptied at exit",
    "max_queue": "waiting jobs before further ones are refused",
}
_CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": ("auto", *(precision.dtype_name for precision in Precision)),
    "memory": tuple(preference.value for preference in Preference),
    "weights": tuple(weights.value for weights in Weights),
    "offload": tuple(offload.value for offload in Offload),
    "vae_tiling": ("auto", "on", "off"),
}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def build_parser() -> argparse.ArgumentParser:
    """The command line; flags not given stay None so that the environment can fill them."""
    parser = argparse.ArgumentParser(
        prog="app.py",
        description="HaploOmni: chat about pictures and clips, and make clips from text, in the browser.",
        epilog="Every option can be set in the environment as HAPLO_<NAME>, for example HAPLO_PORT=8000.",
    )
    for field in fields(Settings):
        flag = f"--{field.name.replace('_', '-')}"
        default = "" if field.default is None or field.name == "share" else f" (default: {field.default})"
        if isinstance(field.default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=_HELP[field.name])
        else:
            kind = int if isinstance(field.default, int) else str
            parser.add_argument(flag, type=kind, default=None, help=_HELP[field.name] + default)
    return parser


def read_settings(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the command line, then the environment, then the defaults; exits with 2 on a wrong value."""
    environ = os.environ if environ is None else environ
    parser = build_parser()
    given = vars(parser.parse_args(sys.argv[1:] if argv is None else argv))
    values: dict[str, Any] = {}
    for field in fields(Settings):
        value, variable = given[field.name], f"HAPLO_{field.name.upper()}"
        if value is None and variable in environ:
            value = _parse(parser, variable, environ[variable], field.default)
        values[field.name] = field.default if value is None else value
    if environ.get("SYSTEM") == "spaces" and given["host"] is None and "HAPLO_HOST" not in environ:
        values["host"] = "0.0.0.0"  # a Space's container is reached from outside only so
    if not 0 <= values["port"] <= 65535:
        parser.error(f"the port {values['port']} is not possible; choose 1 to 65535 (0: any free one)")
    for name, choices in _CHOICES.items():
        if values[name] is not None and values[name] not in choices:
            flag = f"--{name.replace('_', '-')}"
            parser.error(f"{flag} {values[name]} is not possible; choose {', '.join(choices[:-1])} or {choices[-1]}")
    if values["max_queue"] < 1:
        parser.error(f"--max-queue {values['max_queue']} is not possible; choose 1 or more")
    return Settings(**values)


def _parse(parser: argparse.ArgumentParser, variable: str, text: str, default: object) -> object:
    if isinstance(default, bool):
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        parser.error(f"{variable}={text} is not possible; use 1 or 0")
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            parser.error(f"{variable}={text} is not a whole number")
    return text or None if default is None else text
