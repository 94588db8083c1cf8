"""``python -m core.training`` in miniature: from nothing to a checkpoint that loads, nothing twice."""

from __future__ import annotations

import json

import pytest

from core import HaploOmni
from core.training.__main__ import main
from core.training.runs.extra_stage import main as extra_stage
from core.training.stages.presets import NAMES


@pytest.mark.timeout(1500)  # every part of the way once: minutes on a machine that is busy or slow
def test_from_nothing_to_a_checkpoint(tmp_path):
    given = [
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
        "--scale",
        "0.0002",
        "--batch-scale",
        "0.1",
        "--samples",
        "1",
    ]
    assert main(given) == 0
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/metrics.jsonl")}
    priors = {"autoencoder", "autoencoder-decoder", "language", "vision", "video-stills", "video"}
    assert {path.parent.name for path in made} == {*priors, "assembled", *NAMES}
    for before, name in zip(("assembled", *NAMES), NAMES, strict=False):
        record = json.loads((tmp_path / name / "stage.json").read_text())
        assert record["started_from"] == before and record["parameters"] > 0
    table = json.loads((tmp_path / "assembled" / "amplitudes.json").read_text())
    assert set(table) == {"before", "wanted", "factors", "fitted", "after"}
    watched = tmp_path / NAMES[-1]
    assert (watched / "samples" / "step-000001" / "clips.png").stat().st_size > 1000
    assert (watched / "samples" / "step-000001" / "answers.md").read_text().count("\n") == 4
    assert list(watched.glob("tensorboard/events*")) or list(watched.glob("**/events*"))
    omni = HaploOmni.load(tmp_path / "checkpoint", device="cpu")
    assert not [
        file for file in (tmp_path / "checkpoint").rglob("*.json") if str(tmp_path) in file.read_text()
    ], "no paths"
    assert isinstance("".join(omni.chat([{"role": "user", "content": "Hello"}], max_new_tokens=4)), str)
    *_, clip = omni.text_to_video("a red circle", num_inference_steps=1, height=32, width=32, seed=0)
    assert clip.frames.shape == (9, 32, 32, 3)
    assert main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what is finished is not run again"
    one_more_stage(tmp_path)


def weights_of(folder):
    """Every shard's bytes."""
    shards = sorted(folder.glob("model*.safetensors"))
    assert shards
    return [shard.read_bytes() for shard in shards]


def one_more_stage(run):
    """An extra stage trains on the run's last weights and becomes its checkpoint."""
    start = run / NAMES[-1] / "model"
    before = weights_of(run / "checkpoint")
    given = [
        "4-pairs",
        "--out",
        str(run),
        "--start",
        str(start),
        "--rows",
        "pair=1",
        "--losses",
        "distillation=2",
        "--steps",
        "1",
        "--device",
        "cpu",
        "--samples",
        "0",
    ]
    assert extra_stage(given) == 2, "it was made shorter than usual"
    given += ["--scale", "0.0002"]
    assert extra_stage(given) == 0
    record = json.loads((run / "4-pairs" / "stage.json").read_text())
    assert record["started_from"] == NAMES[-1] and record["rows"] == {"pair": 1}
    assert record["losses"] == {"next_token": 1.0, "distillation": 2.0}, (
        "nothing to denoise, nothing to learn it from"
    )
    made = weights_of(run / "checkpoint")
    assert made != before and isinstance(HaploOmni.load(run / "checkpoint", device="cpu"), HaploOmni)
    assert extra_stage(given) == 0 and weights_of(run / "checkpoint") == made


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["4-pairs", "--rows", "pairs=2", "--steps", "1"], "--rows has 'pairs=2'"),
        (["4-pairs", "--rows", "pair=0", "--steps", "1"], "--rows has 'pair=0'"),
        (
            ["4-pairs", "--rows", "pair=2", "--steps", "1", "--losses", "identity=1"],
            "--losses has 'identity=1'",
        ),
        (
            ["4-pairs", "--rows", "pair=2", "--steps", "1", "--losses", "diffusion=0"],
            "--losses has 'diffusion=0'",
        ),
        (["3-unified", "--rows", "pair=2", "--steps", "1"], "cannot be called '3-unified'"),
        (["4-pairs", "--rows", "pair=2", "--steps", "0"], "must be above zero"),
        (["4-pairs", "--rows", "pair=2", "--steps", "1"], "There is no"),
    ],
)
def test_an_extra_stage_that_cannot_be(tmp_path, capsys, given, said):
    assert extra_stage([*given, "--out", str(tmp_path), "--start", str(tmp_path / "model")]) == 2
    assert said in capsys.readouterr().err
