"""What a checkpoint says of itself: every fault is told, and nothing is called released that is not."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest
import torch

from core import HaploOmni
from core.config import HaploOmniConfig
from core.errors import CheckpointError
from core.profile import (
    PREVIEW_FILE,
    PROFILE_FILE,
    clip_tokens,
    default_profile,
    is_released_size,
    read_preview_file,
    read_profile_file,
    released_profile,
)
from core.weights import bundled_checkpoint, read_profile

BUNDLED = bundled_checkpoint()


def written(folder, values, name=PROFILE_FILE):
    file = folder / name
    file.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return file


def changed(**changes):
    """The bundled profile with ``section__key`` or ``key`` set."""
    values = json.loads((BUNDLED / PROFILE_FILE).read_text(encoding="utf-8"))
    for place, value in changes.items():
        section, _, key = place.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    return values


def leaves(values, place=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{place}{key}__")
        else:
            yield f"{place}{key}"


PLACES = list(leaves(changed()))


def test_the_older_word_for_the_domain_is_read(tmp_path):
    older = changed()
    older["knows"] = older.pop("domain")
    assert read_profile_file(written(tmp_path, older)) == read_profile(BUNDLED)
    with pytest.raises(CheckpointError, match="unknown key knows"):
        read_profile_file(written(tmp_path, changed(knows="both words")))


def test_it_is_what_it_says(tmp_path):
    for profile in (read_profile(BUNDLED), released_profile()):
        profile.save(tmp_path)
        assert read_profile_file(tmp_path / PROFILE_FILE) == profile and not profile.faults()
    assert asdict(read_profile(BUNDLED)) == changed()


def test_a_profile_with_the_first_name_of_its_domain_is_read(tmp_path):
    values = changed()
    values["knows"] = values.pop("domain")
    assert read_profile_file(written(tmp_path, values)) == read_profile(BUNDLED)


@pytest.mark.parametrize("place", PLACES)
def test_a_missing_key(place, tmp_path):
    values = changed()
    section, _, key = place.partition("__")
    del (values[section] if key else values)[key or section]
    with pytest.raises(CheckpointError, match=f"lacks the key {place.replace('__', '.')}"):
        read_profile_file(written(tmp_path, values))


@pytest.mark.parametrize(
    "wrong", [[], {}, True, float("nan"), float("inf"), 10**400, None, "\ud800"], ids=repr
)
@pytest.mark.parametrize("place", PLACES)
def test_a_value_of_a_wrong_type(place, wrong, tmp_path):
    if place == "generation_prompt__system" and wrong is None:
        assert read_profile_file(written(tmp_path, changed())).generation_prompt.system is None
        return
    with pytest.raises(CheckpointError, match=place.replace("__", r"\.")) as caught:
        read_profile_file(written(tmp_path, changed(**{place: wrong})))
    assert PROFILE_FILE in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generation__height": 100}, "multiple of 16"),
        ({"generation__width": 512}, "from 32 to 256"),
        ({"generation__height": 16}, "from 32"),
        ({"generation__num_frames": 10}, "9, 17"),
        ({"generation__num_frames": 57}, "from 1 to 49"),
        ({"generation__num_inference_steps": 0}, "from 1"),
        ({"generation__guidance_scale": 0.5}, "from 1 to 30"),
        ({"generation__guidance_scale": "6"}, "must be a number"),
        ({"generation__height": 128.0}, "whole number"),
        ({"generation_limits__max_side": 250}, "multiple of 16"),
        ({"generation_limits__max_side": 10**6}, "to 4096"),
        ({"generation_limits__max_frames": 50}, "9, 17"),
        ({"generation_limits__max_frames": -7}, "from 1"),
        ({"generation_prompt__user": "a clip"}, "{prompt}"),
        ({"chat__temperature": -1}, "from 0 to 5"),
        ({"chat__num_frames": 0}, "from 1"),
        ({"chat__max_new_tokens": 10**6}, "to 8192"),
        ({"name": " "}, "one line"),
        ({"name": "two\nlines"}, "one line"),
        ({"chat": 5}, "must be an object"),
        ({"generation__hight": 128}, "did you mean generation.height"),
        ({"unknown": 1}, "unknown key unknown"),
    ],
)
def test_values_that_cannot_be(changes, said, tmp_path):
    with pytest.raises(CheckpointError, match=said) as caught:
        read_profile_file(written(tmp_path, changed(**changes)))
    assert str(caught.value).startswith(str(tmp_path / PROFILE_FILE))


ROWS = [[0.0, 1.0, 2.0]] * 16


@pytest.mark.parametrize(
    "values",
    [
        {"factors": ROWS},
        {"factors": ROWS[:15], "bias": [0, 0, 0]},
        {"factors": [[0.0, 1.0]] * 16, "bias": [0, 0, 0]},
        {"factors": [[float("nan"), 0.0, 0.0], *ROWS[1:]], "bias": [0, 0, 0]},
        {"factors": "many", "bias": [0, 0, 0]},
        {"factors": ROWS, "bias": [0, 0]},
        {"factors": ROWS, "bias": [0, 0, float("inf")]},
        {"factors": ROWS, "bias": None},
        {"factors": ROWS, "bias": [0, 0, 0], "r2": "good"},
        {"factors": ROWS, "bias": [0, 0, 0], "shift": 1},
        "{",
        "[]",
    ],
)
def test_preview_factors_that_are_none(values, tmp_path):
    with pytest.raises(CheckpointError, match=r"preview\.json"):
        read_preview_file(written(tmp_path, values, PREVIEW_FILE))
    good = read_preview_file(written(tmp_path, {"factors": ROWS, "bias": [0, 0, 0.5]}, PREVIEW_FILE))
    assert len(good.factors) == 16 and good.bias == (0, 0, 0.5)


def test_a_saved_model_is_not_the_released_one(bundled, tmp_path):
    bundled.model.save_pretrained(tmp_path)
    bundled.processor.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no autoencoder.*--vae"):
        HaploOmni.load(tmp_path, device="cpu")
    again = HaploOmni.load(tmp_path, device="cpu", vae=BUNDLED)
    assert again.profile.name == "A HaploOmni of 8 million parameters"
    own, released = again.profile, released_profile()
    assert own.generation_limits != released.generation_limits and own.generation_prompt.system is None
    context = again.model.config.max_position_embeddings
    assert clip_tokens(own.generation.num_frames, own.generation.height) < context
    assert clip_tokens(1, own.generation_limits.max_side) < context
    shown = list(
        again.text_to_video("a red circle", num_inference_steps=1, height=32, width=32, num_frames=1)
    )
    assert shown[-1].recipe["model"] == own.name


def test_everything_saved_together_is_the_same_again(bundled, tmp_path):
    folder = tmp_path / "whole"
    bundled.save_pretrained(folder)
    again = HaploOmni.load(folder, device="cpu")
    assert again.profile == bundled.profile
    assert torch.equal(again.latent_rgb.factors, bundled.latent_rgb.factors)
    pairs = zip(again.vae.state_dict().values(), bundled.vae.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(CheckpointError, match="not empty"):
        bundled.save_pretrained(folder)


def test_who_is_called_released():
    tiny = HaploOmniConfig.from_pretrained(BUNDLED)
    assert is_released_size(HaploOmniConfig()) and not is_released_size(tiny)
    assert default_profile(HaploOmniConfig(), 9_400_000_000) == released_profile()
    deeper = HaploOmniConfig(base_config={"num_hidden_layers": 29})
    assert default_profile(deeper, 9_600_000_000).name == "A HaploOmni of 9.6 billion parameters"


@pytest.mark.parametrize("context", [1, 64, 300, 512, 1024, 4096, 32768])
def test_a_profile_of_no_ones_own_is_always_possible(context):
    tiny = HaploOmniConfig.from_pretrained(BUNDLED)
    tiny.max_position_embeddings = context
    profile = default_profile(tiny, 5)
    assert profile.faults() == []
    assert replace(profile, name="x").faults() == []
