"""``python -m core.training`` in miniature: from nothing to a checkpoint that loads, and on from where it stopped."""

from __future__ import annotations

import json

from core import HaploOmni
from core.training.__main__ import main


def test_from_nothing_to_a_checkpoint(tmp_path):
    sizes = ["--autoencoder-steps", "1", "--clips", "2", "--stills", "2", "--rows", "0.1"]
    assert main(["--out", str(tmp_path), "--steps", "1", *sizes]) == 0
    assert main(["--out", str(tmp_path), "--steps", "2", *sizes]) == 0
    lines = [json.loads(line) for line in (tmp_path / "model" / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["step"] == 0 and {"picture", "clip", "still", "video", "seconds"} <= set(lines[0])
    omni = HaploOmni.load(tmp_path / "checkpoint", device="cpu")
    assert isinstance("".join(omni.chat([{"role": "user", "content": "Hello"}], max_new_tokens=4)), str)
    *_, clip = omni.text_to_video("a red circle", num_inference_steps=1, height=32, width=32, seed=0)
    assert clip.frames.shape == (9, 32, 32, 3)
    assert main(["--out", str(tmp_path), "--device", "cuda:77"]) == 2
