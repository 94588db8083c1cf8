"""What was made of other things is never used, and what is valid is made once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import CheckpointError
from core.scenes.scene import Scene
from core.training.data import jsonl_dataset, latents
from core.training.data.jsonl_dataset import LatentVideoDataset
from core.training.data.latents import ClipShape, LatentClips, autoencoder_digest, clips_seed, encode_clips
from core.training.data.tokenization import CachedTokenizer
from core.training.loop.processes import BatchShard
from core.training.loop.provenance import (
    FILE,
    claim,
    claimed,
    digest,
    folder_digest,
    inputs_of,
    whole_folder,
)
from core.training.priors.autoencoder import build_autoencoder
from tests.core.training import miniature

SHAPE = ClipShape(1, 32, 32, 3)


@pytest.fixture(scope="module")
def sentences() -> CachedTokenizer:
    return CachedTokenizer(miniature.tokenizer())


def autoencoder(seed: int = 0):
    torch.manual_seed(seed)
    return build_autoencoder().eval()


def paint(file: Path, shade: int) -> str:
    """A picture of one gray; all are of one size in bytes, and of one age."""
    Image.fromarray(np.full((32, 32, 3), shade, np.uint8)).save(file.with_suffix(".bmp"))
    os.utime(file.with_suffix(".bmp"), ns=(0, 0))
    return str(file.with_suffix(".bmp"))


class Counted:
    """Stands in for the encoder: a clip's latents are its shade and which autoencoder was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int = 10**6) -> None:
        self.encoded, self.stop_after = 0, stop_after
        monkeypatch.setattr(jsonl_dataset, "encode_row", self.encode)

    def encode(self, row, _vae, _frames, height, width):
        if self.encoded == self.stop_after:
            raise KeyboardInterrupt
        self.encoded += 1
        shade = float(np.asarray(Image.open(row["image"])).mean())
        return torch.full((1, 16, height // 8, width // 8), shade)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=4), min_size=2, max_size=4))
def test_every_row_has_its_own_clip_whatever_was_edited(sentences, tmp_path_factory, versions):
    """Rows mended, removed, moved; files changed under their names. Nothing is encoded twice."""
    folder, vae, known = tmp_path_factory.mktemp("clips"), torch.nn.Linear(1, 1), set()
    vae.config = type("Config", (), {"scaling_factor": 1.0})
    with pytest.MonkeyPatch.context() as monkeypatch:
        counted = Counted(monkeypatch)
        for shades in versions:
            rows = [
                {"prompt": f"{n}", "image": paint(folder / f"{n}", 40 * shade)}
                for n, shade in enumerate(shades)
            ]
            clips = LatentVideoDataset(rows, sentences, vae, folder / "encoded", 1, 32, 32)
            made = [float(torch.load(file).mean()) for file in clips.files]
            assert made == [40.0 * shade for shade in shades]
            known |= set(shades)
            assert counted.encoded == len(known)


def test_other_autoencoders_sizes_and_layouts_have_other_clips(sentences, tmp_path, monkeypatch):
    rows = [{"prompt": "x", "image": paint(tmp_path / "a", 9)}]
    first, second, louder = autoencoder(0), autoencoder(1), autoencoder(0)
    louder.register_to_config(scaling_factor=2.0)
    counted = Counted(monkeypatch)

    def encode(vae, side=32):
        return LatentVideoDataset(rows, sentences, vae, tmp_path / "clips", 1, side, side).files[0]

    files = [encode(first), encode(second), encode(louder), encode(first, 64)]
    assert len(set(files)) == counted.encoded == 4
    assert [
        encode(first),
        encode(second),
        encode(louder),
        encode(first, 64),
    ] == files and counted.encoded == 4
    monkeypatch.setattr("core.training.data.jsonl_dataset.LAYOUT", 0)
    assert encode(first) not in files and counted.encoded == 5


def test_encoding_that_was_cut_off_goes_on(sentences, tmp_path, monkeypatch):
    rows = [{"prompt": "x", "image": paint(tmp_path / f"{n}", n)} for n in range(4)]
    Counted(monkeypatch, stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        LatentVideoDataset(rows, sentences, autoencoder(), tmp_path / "clips", 1, 32, 32)
    counted = Counted(monkeypatch)
    clips = LatentVideoDataset(rows, sentences, autoencoder(), tmp_path / "clips", 1, 32, 32)
    assert counted.encoded == 1 and clips.sample_batch("key", 3, BatchShard(0)).latents.shape == (
        3,
        1,
        16,
        4,
        4,
    )
    for file in clips.files:
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="is missing or damaged; delete it"):
        clips.sample_batch("key", 3, BatchShard(0))


def test_a_real_clip_is_encoded(sentences, tmp_path):
    rows = [
        {"prompt": "x", "image": paint(tmp_path / "a", 9)},
        {"prompt": "y", "image": paint(tmp_path / "b", 200)},
    ]
    drawn = (
        LatentVideoDataset(rows, sentences, autoencoder(), tmp_path / "clips", 1, 32, 32)
        .sample_batch("key", 8, BatchShard(0))
        .latents
    )
    assert (
        drawn.shape == (8, 1, 16, 4, 4)
        and drawn.std() > 0
        and len({float(clip.sum()) for clip in drawn}) == 2
    )


# -- clips of drawn scenes


@pytest.fixture
def encoded(monkeypatch):
    """How many passes of the autoencoder there were."""
    passes = []
    render = latents.render
    monkeypatch.setattr(latents, "render", lambda *given: passes.append(given) or render(*given))
    return passes


def test_scenes_are_encoded_once(sentences, tmp_path, encoded):
    vae = autoencoder()
    encode_clips(vae, tmp_path / "clips", [SHAPE], seed=3)
    assert len(encoded) == 3
    encode_clips(vae, tmp_path / "clips", [SHAPE], seed=5)
    assert len(encoded) == 3, "an old folder keeps its seed"
    drawn = LatentClips(sentences, tmp_path / "clips", [SHAPE], autoencoder_digest(vae))
    assert drawn.seed == 3
    with pytest.raises(CheckpointError, match=r"lacks 1x32x32-0\.pt of 4 encoded clips"):
        LatentClips(sentences, tmp_path / "clips", [replace(SHAPE, clips=4)], autoencoder_digest(vae))
    file = tmp_path / "clips" / "1x32x32-0.pt"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="is missing or damaged"):
        LatentClips(sentences, tmp_path / "clips", [SHAPE], autoencoder_digest(vae))
    encode_clips(vae, tmp_path / "clips", [SHAPE])
    assert len(encoded) == 6, "a damaged file is made again"


def test_scenes_of_another_autoencoder_or_world_are_refused(sentences, tmp_path, monkeypatch):
    folder, vae = tmp_path / "clips", autoencoder()
    encode_clips(vae, folder, [SHAPE])
    other = autoencoder(1)
    for refused in (
        lambda: encode_clips(other, folder, [SHAPE]),
        lambda: LatentClips(sentences, folder, [SHAPE], autoencoder_digest(other)),
    ):
        with pytest.raises(
            CheckpointError,
            match=r"clips was made with autoencoder = .*; take another --out, or delete .*clips",
        ):
            refused()
    with pytest.raises(CheckpointError, match="was made with scenes"):
        LatentClips(sentences, folder, [SHAPE], autoencoder_digest(vae), held_out=True)
    scene = latents.clip_scene

    def redrawn(*given) -> Scene:
        return replace(scene(*given), background="navy")

    monkeypatch.setattr(latents, "clip_scene", redrawn)
    with pytest.raises(CheckpointError, match="was made with scenes"):
        encode_clips(vae, folder, [SHAPE])


def test_clips_of_an_earlier_version_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="holds no encoded clips"):
        clips_seed(tmp_path, "vae")
    (tmp_path / "seed.json").write_text("3")
    (tmp_path / "1x32x32-0.pt").touch()
    for begin in (None, 3):
        with pytest.raises(CheckpointError, match="does not say what it was made of"):
            clips_seed(tmp_path, "vae", begin=begin)


def test_clips_keep_the_seed_they_were_drawn_with(tmp_path):
    """Prompts are drawn from it: with the run's own, other seeds would speak of other clips."""
    assert clips_seed(tmp_path, "vae", begin=3) == 3
    assert clips_seed(tmp_path, "vae") == 3 and clips_seed(tmp_path, "vae", begin=5) == 3


# -- what is written beside a result


def test_a_claim_names_what_differs(tmp_path):
    inputs = {"seed": 0, "config": {"steps": 3, "betas": (0.9, 0.98)}}
    claim(tmp_path, inputs, found=False)
    claim(tmp_path, inputs, found=True)
    assert claimed(tmp_path) == digest(inputs_of(tmp_path))
    for changed in ({**inputs, "seed": 1}, {"config": inputs["config"]}):
        with pytest.raises(
            CheckpointError, match=r"was made with seed = 0, and now it is (1|null); take another --out"
        ):
            claim(tmp_path, changed, found=True)
    with pytest.raises(CheckpointError, match="was made with more = null, and now it is 1"):
        claim(tmp_path, {**inputs, "more": 1}, found=True)
    with pytest.raises(CheckpointError, match="does not say what it was made of"):
        claim(tmp_path / "other", inputs, found=True)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"seed"', "\x00"])
def test_a_record_that_is_cut_short_has_its_sentence(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CheckpointError, match=r"inputs.json is damaged; take another --out, or delete"):
        claim(tmp_path, {"seed": 0}, found=True)


def test_a_folders_name_is_its_contents(tmp_path):
    for name in ("a", "b"):
        miniature.teachers().vision.save_pretrained(tmp_path / name)
    assert folder_digest(tmp_path / "a") == folder_digest(tmp_path / "b")
    weights = tmp_path / "b" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert folder_digest(tmp_path / "a") != folder_digest(tmp_path / "b")


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "made") as part:
        (part / "config.json").touch()
        raise KeyboardInterrupt
    assert not (tmp_path / "made").exists()
    with whole_folder(tmp_path / "made") as part:
        assert not list(part.iterdir()), "nothing is left of what was cut off"
        (part / "new").touch()
    with whole_folder(tmp_path / "made") as part:
        (part / "newer").touch()
    assert [file.name for file in (tmp_path / "made").iterdir()] == ["newer"]


# -- a run
