"""People's own rows in training: as batches, as encoded clips, through the whole way."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch

from core.processor import HaploOmniProcessor
from core.training.__main__ import main
from core.training.data.jsonl_dataset import ConversationDataset, answer_labels, fit_frames
from core.training.data.rows import read_rows
from core.training.data.tokenization import IGNORE
from core.training.loop.processes import BatchShard
from core.training.loop.trainer import CONFIG_FILE
from core.training.runs.run import RunContext
from core.training.runs.stage_steps import last_finished, stage_steps
from core.training.stages.losses import next_token_loss
from core.training.stages.presets import NAMES, chosen, scaled, tiny
from tests import ROOT
from tests.core.training import miniature
from tests.core.training.data.test_rows import ask, with_media, write

BUNDLED = ROOT / "examples" / "checkpoints" / "haploomni-tiny"
ROWS = ROOT / "examples" / "own_data" / "rows.jsonl"
MEDIA = ROOT / "examples" / "media"


@pytest.fixture(scope="module")
def processor():
    return HaploOmniProcessor.from_pretrained(BUNDLED)


def test_only_the_assistants_words_are_labels(processor):
    rows = read_rows([ROWS], processor, 2048)
    dataset = ConversationDataset(rows.conversations, processor, grouped=True)
    row = dataset.row(rows.conversations[1]["messages"])
    learned = processor.tokenizer.decode([label for label in row.labels if label != IGNORE])
    assert learned == "It is yellow.<|im_end|>The background is black.<|im_end|>"
    assert answer_labels([1, 2, 3, 9, 4], [1, 2], 9) == [IGNORE, IGNORE, 3, 9, IGNORE]


@torch.no_grad()
def test_a_row_has_the_loss_of_the_models_own_entry(bundled, processor):
    """Grouped or not, pictures or clips: the batch is what processor and model make of the conversation."""
    rows = read_rows([ROWS], processor, 2048)
    for own in (rows.conversations[:1], rows.clip_conversations):
        batch = ConversationDataset(own, processor, grouped=True).sample_batch("key", 1, BatchShard(0))
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
    given = [
        "--checkpoint",
        str(BUNDLED),
        "--data",
        str(ROWS),
        "--size",
        "9x64x64",
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    more = ["--stages", "3", "--scale", "0.001", "--batch-scale", "0.2", "--samples", "1", "--threads", "1"]
    miniature.launch(2, "core.training", *given, *more)
    record = json.loads((tmp_path / "3-unified" / "stage.json").read_text())
    rows = scaled(tiny(), rows=0.2)[-1].rows
    assert record["stage"] == "3-unified" and record["rows"] == {
        source.value: count for source, count in rows.items()
    }
    assert record["processes"] == 2
    from core import HaploOmni

    tuned = HaploOmni.load(tmp_path / "checkpoint", device="cpu")
    *_, clip = tuned.text_to_video("a red circle", num_inference_steps=1, height=32, width=32, seed=0)
    assert clip.frames.shape == (9, 32, 32, 3) and tuned.profile.name == "HaploOmni tiny, trained further"


def test_talking_is_learned_without_an_autoencoder(tmp_path):
    start = tmp_path / "start"
    shutil.copytree(BUNDLED, start, ignore=shutil.ignore_patterns("vae"))
    file = write(with_media(tmp_path), ask("heart.png"))
    given = [
        "--checkpoint",
        str(start),
        "--data",
        str(file),
        "--out",
        str(tmp_path / "run"),
        "--device",
        "cpu",
    ]
    short = ["--scale", "0.001", "--batch-scale", "0.1", "--samples", "1"]
    assert main([*given, "--stages", "2-align-pre-connector", *short]) == 0
    assert not (tmp_path / "run" / "checkpoint" / "vae").exists()
    assert (tmp_path / "run" / "checkpoint" / "haploomni.json").exists()


def test_a_later_stage_goes_on_from_the_finished_ones(tmp_path):
    for name in ("1-warmup-post", "2-align-post"):
        (tmp_path / name / "model").mkdir(parents=True)
    stages = chosen(tiny(), ["2-align-together", "3"])
    started = []
    for step in stage_steps(RunContext(tmp_path), stages, miniature.parts(tmp_path), tmp_path / "assembled"):
        started.append((step.name, step.start))
        step.weights.mkdir(parents=True)
    assert last_finished(tmp_path) == tmp_path / "3-unified" / "model"
    before = [tmp_path / name / "model" for name in ("2-align-post", "2-align-together")]
    assert started == list(zip(("2-align-together", "3-unified"), before, strict=True))


def test_the_papers_way_over_own_priors(tmp_path, capsys):
    """All seven steps of the 9B preset, accumulation and recomputation included, over miniature priors."""
    priors = miniature.teachers()
    folders = {name: tmp_path / name for name in ("vision", "language", "video")}
    for name, folder in folders.items():
        getattr(priors, name).save_pretrained(folder)
    miniature.tokenizer().save_pretrained(folders["language"])
    given = [part for name, folder in folders.items() for part in (f"--{name}", str(folder))]
    given += [
        "--vae",
        str(BUNDLED / "vae"),
        "--data",
        str(ROWS),
        "--size",
        "9x64x64",
        "--preset",
        "9b",
        "--samples",
        "0",
    ]
    out = tmp_path / "run"
    given += ["--scale", "0.00001", "--batch-scale", "0.01", "--device", "cpu", "--out", str(out)]
    assert main(given) == 0
    assert [name for name in NAMES if (out / name / "model" / "config.json").exists()] == list(NAMES)
    table = json.loads((out / "assembled" / "amplitudes.json").read_text())
    assert {"words", "image", "video", "noise"} <= set(table["before"]["pre in"]) and table["fitted"][
        "known"
    ] > 0.9
    config = json.loads((out / "3-unified" / CONFIG_FILE).read_text())
    assert config["accumulate"] == 8 and config["checkpointing"] and config["optimizer"] == "adamw"
    made = {
        file: file.stat().st_mtime_ns
        for file in out.rglob("*")
        if file.is_file() and "checkpoint" not in file.parts
    }
    assert main(given) == 0
    assert {file: file.stat().st_mtime_ns for file in made} == made, "nothing is made twice"
    miniature.teachers(seed=1).vision.save_pretrained(folders["vision"])
    assert main(given) == 2 and "assembled was made with vision = " in capsys.readouterr().err


@pytest.mark.parametrize("out", ["file", "file/run"])
def test_a_run_has_no_place(out, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    file = write(with_media(tmp_path), {"prompt": "a heart", "image": "heart.png"})
    given = ["--checkpoint", str(BUNDLED), "--data", str(file), "--stages", "3", "--out", str(tmp_path / out)]
    assert main([*given, "--device", "cpu"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(tmp_path / "file") in said and said.endswith("choose another with --out.")


@pytest.mark.parametrize(
    "given",
    [
        "--scale nan",
        "--scale=-1",
        "--scale 0",
        "--batch-scale inf",
        "--batch-scale x",
        "--longest 0",
        f"--seed {10**30}",
        "--samples=-1",
    ],
)
def test_numbers_that_cannot_be(given, capsys):
    with pytest.raises(SystemExit) as caught:
        main(given.split())
    assert caught.value.code == 2 and re.split("[ =]", given)[0] in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--checkpoint", str(BUNDLED)], "need your own rows"),
        (["--data", str(ROWS), "--vision", "x"], "all of --vision"),
        (["--checkpoint", str(BUNDLED), "--data", str(ROWS), "--size", "big"], "frames x height x width"),
        (["--checkpoint", str(BUNDLED), "--data", str(ROWS), "--size", "10x64x64"], "frames are 1, 9, 17"),
        (
            ["--checkpoint", str(BUNDLED), "--data", str(ROWS), "--size", "9x64x64"],
            "leave it out with --stages 2 3",
        ),
        (["--checkpoint", str(BUNDLED), "--data", "none.jsonl"], "no data file"),
        (["autoencoder", "--checkpoint", str(BUNDLED), "--data", str(ROWS)], "no part 'autoencoder'"),
        (["--preset", "70b"], "no preset"),
        (["--stages", "9"], "no stage '9'"),
    ],
)
def test_what_cannot_be_done_is_said(given, said, tmp_path, capsys):
    assert main([*given, "--out", str(tmp_path), "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err
