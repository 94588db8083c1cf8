"""Options from the command line and the environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.launch import choose_port
from app.settings import Settings, read_settings
from core.errors import HaploOmniError

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


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        (["--port", "70000"], {}, "70000"),
        ([], {"HAPLO_PORT": "many"}, "whole number"),
        ([], {"HAPLO_SHARE": "maybe"}, "use 1 or 0"),
        (["--max-queue", "0"], {}, "max-queue 0"),
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


def test_ports():
    assert choose_port("127.0.0.1", 0) == 0
    with pytest.raises(HaploOmniError, match="no address of this machine"):
        choose_port("192.0.2.77", 7860)
