"""``python -m core.training`` in miniature: from nothing to a checkpoint that loads, and nothing done twice."""

from __future__ import annotations

import json

from core import HaploOmni
from core.training.__main__ import main
from core.training.stages import NAMES


def test_from_nothing_to_a_checkpoint(tmp_path):
    given = ["--out", str(tmp_path), "--device", "cpu", "--steps", "0.0002", "--rows", "0.1", "--samples", "1"]
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
    assert not [file for file in (tmp_path / "checkpoint").rglob("*.json") if str(tmp_path) in file.read_text()], "no paths"
    assert isinstance("".join(omni.chat([{"role": "user", "content": "Hello"}], max_new_tokens=4)), str)
    *_, clip = omni.text_to_video("a red circle", num_inference_steps=1, height=32, width=32, seed=0)
    assert clip.frames.shape == (9, 32, 32, 3)
    assert main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made, "what is finished is not run again"
