"""A start by the program itself, up to the sentence that says why it cannot be."""

from __future__ import annotations

import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.startup.helpers import one_sentence, write_requirements

ROOT = Path(__file__).resolve().parents[3]
HEAVY = "[m for m in ('torch', 'gradio', 'transformers', 'numpy', 'cv2') if m in sys.modules]"


def test_an_old_python_gets_a_sentence(monkeypatch, capsys):
    tree = ast.parse((ROOT / "app.py").read_text(), feature_version=(3, 6))
    imported = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert set(imported) <= {"os", "sys"} and not any(isinstance(node, ast.ImportFrom) for node in tree.body)
    main = runpy.run_path(str(ROOT / "app.py"))["main"]
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    assert main([]) == 2
    said = capsys.readouterr().err
    assert "Python 3.10.13" in said and "3.11" in said and one_sentence(said)


def start(arguments: str, closing: str = "", **more: str) -> subprocess.CompletedProcess:
    command = f'exec "{sys.executable}" app.py {arguments} {closing}'
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **more}
    )


@pytest.mark.skipif(os.name != "posix", reason="streams are closed by a POSIX shell")
@pytest.mark.parametrize(
    "closing", ["", ">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-", "> /dev/full", "2> /dev/full"]
)
def test_streams_that_are_closed_or_full(closing):
    if "/dev/full" in closing and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    wrong = start("--port x", closing, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr + wrong.stdout
    if closing in ("", ">&-", "2>&-", "<&-", "> /dev/full"):
        assert "--port x is not a whole number" in wrong.stderr + wrong.stdout
    assert start("--help", closing).returncode == 0


@pytest.mark.parametrize(
    ("argv", "versions", "expected"),
    [
        (["--outputs", "{file}"], {}, "--outputs"),
        (["--host", "192.0.2.77"], {}, "192.0.2.77"),
        (["--host", "nosuch.invalid"], {}, "nosuch.invalid"),
        ([], {"transformers": "5.22.0"}, "transformers 5.22.0 is too old"),
        ([], {"gradio": "99.0"}, "gradio 99.0 is too new"),
        ([], {"torch": None}, "torch is missing"),
    ],
)
def test_a_start_that_cannot_be_is_told_before_anything_is_imported(
    tmp_path, a_file, argv, versions, expected
):
    argv = [word.format(file=a_file) for word in argv]
    write_requirements(tmp_path, "transformers>=5.23,<99\ngradio>=6,<99\ntorch>=2\n")
    code = (
        "import sys; from functools import partial; from pathlib import Path; from runpy import run_path\n"
        "from app.startup import checks, versions\n"
        f"changed = {versions!r}; real = versions.installed_version\n"
        "versions.installed_version = lambda name: changed[name] if name in changed else real(name)\n"
        f"checks.check_versions = partial(versions.check_versions, Path({str(tmp_path)!r}))\n"
        f"code = run_path('app.py')['main']({argv!r})\n"
        f"print('HEAVY', {HEAVY}); sys.exit(code)"
    )
    environ = os.environ | {"HAPLO_UNTESTED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environ, check=False
    )
    assert done.returncode == 2 and done.stdout == "HEAVY []\n"
    assert done.stderr.startswith("error: ") and expected in done.stderr and one_sentence(done.stderr)


@pytest.mark.parametrize("flag", ["-I", "-P"])
def test_the_program_finds_itself_wherever_it_is_started(tmp_path, flag):
    command = [sys.executable, flag, str(ROOT / "app.py"), "--port", "abc"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (2, "error: --port abc is not a whole number\n")


def test_core_comes_before_torch():
    """``core`` sets what torch reads when it is imported."""
    code = "import sys, app.launch; assert 'core' in sys.modules and 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
