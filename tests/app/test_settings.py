"""Options from the command line and the environment."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from app.settings import Settings, read_settings
from quantization.modes import Offload

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_are_private():
    settings = read_settings([], {})
    assert settings == Settings()
    assert settings.host == "127.0.0.1" and settings.share is False and settings.checkpoint is None


def test_environment_then_command_line():
    environ = {"HAPLO_PORT": "8000", "HAPLO_SHARE": "1", "HAPLO_CHECKPOINT": "a/b", "HAPLO_MAX_QUEUE": "2"}
    settings = read_settings(["--port", "9000", "--no-share"], environ)
    assert (settings.port, settings.share, settings.checkpoint, settings.max_queue) == (9000, False, "a/b", 2)


def test_a_space_is_reachable():
    assert read_settings([], {"SYSTEM": "spaces"}).host == "0.0.0.0"
    assert read_settings([], {"SYSTEM": "spaces", "HAPLO_HOST": "127.0.0.1"}).host == "127.0.0.1"


@pytest.mark.parametrize("empty", ["", " ", "\t"])
@pytest.mark.parametrize("name", [field.name for field in fields(Settings)])
def test_empty_is_unset_everywhere(name, empty):
    variable = f"HAPLO_{name.upper()}"
    flag = f"--{name.replace('_', '-')}"
    assert read_settings([], {variable: empty}) == Settings()
    if not isinstance(getattr(Settings(), name), bool):
        assert read_settings([flag, empty], {}) == Settings()
        assert read_settings([f"{flag}={empty}"], {"HAPLO_PORT": "8000"}).port == 8000


def test_an_empty_host_of_a_space_is_reachable():
    assert read_settings([], {"SYSTEM": "spaces", "HAPLO_HOST": ""}).host == "0.0.0.0"
    assert read_settings([], {"SYSTEM": "", "HAPLO_HOST": ""}).host == "127.0.0.1"


def test_a_space_sees_all_visitors_at_one_address():
    assert read_settings([], {"SYSTEM": "spaces"}).max_per_address == 0
    assert read_settings(["--max-per-address", "3"], {"SYSTEM": "spaces"}).max_per_address == 3
    assert read_settings([], {}).max_per_address > 0


def test_spaces_around_a_value_do_not_count():
    environ = {
        "HAPLO_PORT": " 8000 ",
        "HAPLO_DTYPE": "float32 ",
        "HAPLO_SHARE": " 1",
        "HAPLO_CHECKPOINT": "my folder ",
    }
    settings = read_settings(["--memory", " low"], environ)
    assert (settings.port, settings.dtype, settings.share, settings.memory) == (8000, "float32", True, "low")
    assert settings.checkpoint == "my folder "


@pytest.mark.parametrize(("older", "word"), [("parts", "model"), ("blocks", "sequential")])
def test_the_older_words_of_offload_are_understood(older, word):
    assert read_settings(["--offload", older], {}).offload == word
    assert read_settings([], {"HAPLO_OFFLOAD": older}).offload == word
    assert Offload(older) is Offload(word)


WRONG = {
    "port": ["many", "70000", "-1", "1e3", "9" * 5000, "8000\nx", "\u0663"],
    "max_queue": ["0", "-3", "two"],
    "max_per_visitor": ["0", "-1", "few"],
    "max_per_address": ["-1", "few"],
    "max_minutes": ["0", "long"],
    "keep": ["0", "-5", "1.5"],
    "grace": ["-1", "short"],
    "device": ["gpu", "cuda:x", "cuda:", "CUDA"],
    "dtype": ["float64", "x"],
    "memory": ["much"],
    "weights": ["int4"],
    "offload": ["all"],
    "vae_tiling": ["1"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_told_where_it_came_from(name, value, capsys):
    variable = f"HAPLO_{name.upper()}"
    flag = f"--{name.replace('_', '-')}"
    for argv, environ, source, other in (
        ([], {variable: value}, variable, flag),
        ([flag, value], {}, flag, variable),
    ):
        with pytest.raises(SystemExit) as caught:
            read_settings(argv, environ)
        said = capsys.readouterr().err
        assert caught.value.code == 2
        assert said.startswith(f"error: {source}") and other not in said
        assert said.count("\n") == 1 and len(said) < 200 and said[:-1].isprintable()


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        (["--port", "70000"], {}, "70000"),
        ([], {"HAPLO_PORT": "many"}, "whole number"),
        ([], {"HAPLO_SHARE": "maybe"}, "use 1 or 0"),
        (["--max-queue", "0"], {}, "max-queue 0"),
        (["--nosuch"], {}, "--nosuch"),
        (["--port"], {}, "--port"),
    ],
)
def test_wrong_values_exit_with_a_sentence(argv, environ, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        read_settings(argv, environ)
    assert caught.value.code == 2 and expected in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    code = "import sys, app\nfrom runpy import run_path\nmain = run_path('app.py')['main']\n" + (
        "try:\n    main(['--help'])\nexcept SystemExit as e:\n    assert e.code == 0\n"
        "print('HEAVY', [m for m in ('torch', 'gradio', 'transformers', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "--checkpoint" in done.stdout and "HEAVY []" in done.stdout
