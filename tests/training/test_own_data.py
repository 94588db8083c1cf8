"""People's own rows: good ones train, bad ones are named and skipped, or stop a strict run."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from core.errors import DataError
from core.processor import HaploOmniProcessor
from core.training.__main__ import main
from core.training.batches import IGNORE
from core.training.course import Course
from core.training.losses import next_token_loss
from core.training.own_data import OwnTalks, answer_labels, fit_frames, read_rows
from core.training.stages import NAMES, chosen, scaled, tiny
from core.training.trainer import Share
from tests.training import miniature

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = ROOT / "examples" / "checkpoints" / "haploomni-tiny"
ROWS = ROOT / "examples" / "own_data" / "rows.jsonl"
MEDIA = ROOT / "examples" / "media"


@pytest.fixture(scope="module")
def processor():
    return HaploOmniProcessor.from_pretrained(BUNDLED)


def write(folder: Path, *rows: object) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return file


def ask(path: str, answer: str = "A heart.") -> dict:
    parts = [{"type": "image", "path": path}, {"type": "text", "text": "What is it?"}]
    return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]}


def watch(**settings: object) -> dict:
    parts = [{"type": "video", "path": "circle_left.mp4", **settings}, {"type": "text", "text": "What moves?"}]
    return {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "A circle."}]}


BAD = {
    "{not json": "not JSON",
    '{"text": "x"}': "'messages' .to understand. or 'prompt'",
    '{"prompt": "x"}': "needs a 'video' or an 'image'",
    '{"prompt": " ", "image": "heart.png"}': "'prompt' must be a text",
    '{"prompt": "x", "image": "none.png"}': "no file none.png",
    '{"messages": []}': "must be a list",
    '{"messages": [{"role": "user", "content": "hi"}]}': "the last message must be the assistant's",
    '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}': "needs a 'path'",
    '{"messages": [{"role": "cook", "content": "x"}]}': "needs a role",
    json.dumps(ask("circle_left.mp4")): "circle_left.mp4",
    json.dumps(ask("heart.png", "very " * 200)): "more than 200",
    json.dumps(ask("heart.png", " ")): "no words to learn",
    json.dumps(watch(num_frames="all")): "'num_frames' is 'all'",
    json.dumps(watch(num_frames=0)): "0 frames cannot be sampled",
    json.dumps(watch(start_s="now")): "'start_s' is 'now'",
    json.dumps(watch(start_s=0.5, end_s=True)): "'end_s' is True",
    json.dumps(watch(start_s=500)): "holds no frame",
}


def with_media(folder: Path) -> Path:
    for name in ("heart.png", "circle_left.mp4"):
        (folder / name).write_bytes((MEDIA / name).read_bytes())
    return folder


@pytest.mark.parametrize("row", BAD)
def test_a_bad_row_is_named_and_skipped(row, processor, tmp_path, caplog):
    file = write(with_media(tmp_path), ask("heart.png"), "", row)
    with caplog.at_level(logging.WARNING):
        rows = read_rows([file], processor, longest=200)
    assert rows.bad == 1 and len(rows.talks) == 1
    assert "line 3" in caplog.text and "1 bad rows skipped, 1 good rows kept" in caplog.text
    with pytest.raises(DataError, match=f"line 3: .*{BAD[row]}"):
        read_rows([file], processor, longest=200, strict=True)


def test_no_usable_row_is_an_error(processor, tmp_path):
    with pytest.raises(DataError, match="No usable row"):
        read_rows([write(tmp_path, "{")], processor, 200)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="No usable row"):
        read_rows([tmp_path / "empty.jsonl"], processor, 200)
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "caf\u00e9"}\n'.encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        read_rows([tmp_path / "latin.jsonl"], processor, 200)
    with pytest.raises(DataError, match="no data file"):
        read_rows([tmp_path / "none.jsonl"], processor, 200)


def test_the_example_rows_are_good(processor):
    rows = read_rows([ROWS], processor, 2048, strict=True)
    assert (len(rows.talks), len(rows.clip_talks), len(rows.stills), len(rows.videos), rows.bad) == (2, 1, 1, 2, 0)


def test_only_the_assistants_words_are_labels(processor):
    rows = read_rows([ROWS], processor, 2048)
    talks = OwnTalks(rows.talks, processor, grouped=True)
    row = talks.row(rows.talks[1]["messages"])
    learned = processor.tokenizer.decode([label for label in row.labels if label != IGNORE])
    assert learned == "It is yellow.<|im_end|>The background is black.<|im_end|>"
    assert answer_labels([1, 2, 3, 9, 4], [1, 2], 9) == [IGNORE, IGNORE, 3, 9, IGNORE]


@torch.no_grad()
def test_a_row_has_the_loss_of_the_models_own_entry(bundled, processor):
    """Grouped or not, pictures or clips: the batch is what processor and model make of the conversation."""
    rows = read_rows([ROWS], processor, 2048)
    for own in (rows.talks[:1], rows.clip_talks):
        batch = OwnTalks(own, processor, grouped=True).draw("key", 1, Share(0))
        model = bundled.model
        given = {"pixel_values_videos": batch.tiles[0][None]}
        if batch.sizes[0] is not None:
            given = {"pixel_values": batch.tiles[0][None], "image_sizes": torch.tensor([batch.sizes[0]])}
        expected = model(input_ids=batch.ids, labels=batch.labels, **given).loss
        loss = next_token_loss(model, batch, torch.device("cpu")) / batch.count
        assert float(loss) == pytest.approx(float(expected), abs=1e-3)


def test_clips_are_fitted():
    frames = np.zeros((2, 60, 120, 3), np.uint8)
    frames[:, :, 30:90] = 200
    fitted = fit_frames(frames, 32, 32)
    assert fitted.shape == (2, 32, 32, 3) and fitted.min() >= 190, "the middle is kept"
    assert fit_frames(frames, 128, 64).shape == (2, 128, 64, 3)


def test_two_processes_tune_the_bundled_model_on_own_rows(tmp_path):
    given = ["--checkpoint", str(BUNDLED), "--data", str(ROWS), "--size", "9x64x64", "--out", str(tmp_path), "--device", "cpu"]
    more = ["--stages", "3", "--steps", "0.001", "--rows", "0.2", "--samples", "1", "--threads", "1"]
    miniature.launch(2, "core.training", *given, *more)
    record = json.loads((tmp_path / "3-unified" / "stage.json").read_text())
    rows = scaled(tiny(), rows=0.2)[-1].rows
    assert record["stage"] == "3-unified" and record["rows"] == {source.value: count for source, count in rows.items()}
    assert record["processes"] == 2
    from core import HaploOmni

    tuned = HaploOmni.load(tmp_path / "checkpoint", device="cpu")
    *_, clip = tuned.text_to_video("a red circle", num_inference_steps=1, height=32, width=32, seed=0)
    assert clip.frames.shape == (9, 32, 32, 3) and tuned.profile["name"] == "HaploOmni tiny"


def test_talking_is_learned_without_an_autoencoder(tmp_path):
    start = tmp_path / "start"
    shutil.copytree(BUNDLED, start, ignore=shutil.ignore_patterns("vae"))
    file = write(with_media(tmp_path), ask("heart.png"))
    given = ["--checkpoint", str(start), "--data", str(file), "--out", str(tmp_path / "run"), "--device", "cpu"]
    short = ["--steps", "0.001", "--rows", "0.1", "--samples", "1"]
    assert main([*given, "--stages", "2-align-pre-connector", *short]) == 0
    assert not (tmp_path / "run" / "checkpoint" / "vae").exists()
    assert (tmp_path / "run" / "checkpoint" / "haploomni.json").exists()


def test_a_later_stage_goes_on_from_the_finished_ones(tmp_path, monkeypatch):
    course = Course(tmp_path, chosen(tiny(), ["2-align-together", "3"]))
    started = []

    def run_stage(stage, started_from):
        started.append((stage.name, started_from))
        (tmp_path / stage.name / "model").mkdir(parents=True)

    monkeypatch.setattr(course, "run_stage", run_stage)
    for name in ("1-warmup-post", "2-align-post"):
        (tmp_path / name / "model").mkdir(parents=True)
    assert course.run_stages() == tmp_path / "3-unified" / "model"
    before = [tmp_path / name / "model" for name in ("2-align-post", "2-align-together")]
    assert started == list(zip(("2-align-together", "3-unified"), before, strict=True))


def test_the_papers_way_over_own_priors(tmp_path):
    """All seven steps of the 9B preset, accumulation and recomputation included, over miniature priors on disk."""
    priors = miniature.teachers()
    folders = {name: tmp_path / name for name in ("vision", "language", "video")}
    for name, folder in folders.items():
        getattr(priors, name).save_pretrained(folder)
    miniature.tokenizer().save_pretrained(folders["language"])
    given = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
    given += ["--vae", str(BUNDLED / "vae"), "--data", str(ROWS), "--size", "9x64x64", "--preset", "9b", "--samples", "0"]
    out = tmp_path / "run"
    assert main([*given, "--steps", "0.00001", "--rows", "0.01", "--device", "cpu", "--out", str(out)]) == 0
    assert [name for name in NAMES if (out / name / "model" / "config.json").exists()] == list(NAMES)
    table = json.loads((out / "assembled" / "amplitudes.json").read_text())
    assert {"words", "image", "video", "noise"} <= set(table["before"]["pre in"]) and table["fitted"]["known"] > 0.9
    plan = json.loads((out / "3-unified" / "plan.json").read_text())
    assert plan["accumulate"] == 8 and plan["checkpointing"] and plan["optimizer"] == "adamw"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--checkpoint", str(BUNDLED)], "need your own rows"),
        (["--data", str(ROWS), "--vision", "x"], "all of --vision"),
        (["--checkpoint", str(BUNDLED), "--data", str(ROWS), "--size", "big"], "frames x height x width"),
        (["--checkpoint", str(BUNDLED), "--data", str(ROWS), "--size", "10x64x64"], "frames are 1, 9, 17"),
        (["--checkpoint", str(BUNDLED), "--data", str(ROWS), "--size", "9x64x64"], "leave it out with --stages 2 3"),
        (["--checkpoint", str(BUNDLED), "--data", "none.jsonl"], "no data file"),
        (["autoencoder", "--checkpoint", str(BUNDLED), "--data", str(ROWS)], "no part 'autoencoder'"),
        (["--preset", "70b"], "no preset"),
        (["--stages", "9"], "no stage '9'"),
    ],
)
def test_what_cannot_be_done_is_said(given, said, tmp_path, capsys):
    assert main([*given, "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err
