"""What the README and the examples show works as shown."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from tests import ROOT

README = (ROOT / "README.md").read_text()


def test_the_python_block_runs(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for name in ("examples", "core"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and (tmp_path / "outputs" / "circle.mp4").stat().st_size > 1000


@pytest.mark.parametrize("script", ["chat.py", "text_to_video.py"])
def test_example_scripts_run(script, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "core.training",
        "core.training.ablation",
        "core.evaluation",
        "core.weights.priors",
        "quantization",
        "quantization.export",
        "quantization.random_checkpoint",
        "tests.bench",
        "tests.bench.gpu",
        "tests.bench.quality",
    ],
)
def test_commands_have_help(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "usage" in done.stdout


def test_named_paths_and_targets_exist():
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / path).exists(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_head_is_a_space():
    head = README.split("---")[1]
    for line in ("sdk: gradio", "sdk_version: 6.31.0", 'python_version: "3.12"', "app_file: app.py"):
        assert line in head


def commands(module: str) -> list[list[str]]:
    """Arguments of every command of ``module`` that the documents show."""
    found = []
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = document.read_text().replace("\\\n", " ")
        for line in re.findall(rf"-m {re.escape(module)}(?= |$)([^\n`#]*)", text, re.MULTILINE):
            found.append([word for word in shlex.split(line) if word != "..."])
    return found


def test_shown_training_commands_are_understood():
    from core.training.__main__ import build_parser, build_run
    from core.training.stages.presets import preset

    shown = commands("core.training")
    assert len(shown) >= 5
    for words in shown:
        options = build_parser().parse_args(words)
        assert preset(options.preset)
        if not (options.checkpoint or options.vision or options.data):
            assert build_run(options).steps
    from core.training.ablation.__main__ import build_parser as ablation

    assert [ablation().parse_args(words) for words in commands("core.training.ablation")]


def test_shown_memory_commands_are_understood():
    from app.settings import read_settings
    from quantization.__main__ import build_parser as plan
    from quantization.export import build_parser as export

    assert [plan().parse_args(words) for words in commands("quantization")]
    assert [export().parse_args(words) for words in commands("quantization.export")]
    text = (ROOT / "docs" / "memory.md").read_text()
    shown = re.findall(r"^python app\.py([^\n#]*)", text, re.MULTILINE)
    assert len(shown) >= 3
    assert all(read_settings(shlex.split(line), {}).checkpoint for line in shown)
