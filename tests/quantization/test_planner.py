"""What is legal where, what fits, and what would."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.config import HaploOmniConfig
from quantization.__main__ import main
from quantization.errors import QuantizationError
from quantization.hardware import detect, imagined_gpu, parse_size
from quantization.memory import Decoder, Model, Request
from quantization.modes import (
    Decode,
    Device,
    Guidance,
    Hardware,
    Mode,
    Offload,
    Precision,
    Tile,
    Weights,
    legal_modes,
    objections,
)
from quantization.planner import Plan, Planner, Preference, Refusal, fits

GIB = 2**30
NINE_B = Model(HaploOmniConfig())
PLENTY = 256 * GIB
CUDA = imagined_gpu(24 * GIB, host=PLENTY)
CPU = Hardware(Device.CPU, "CPU", 64 * GIB, 64 * GIB, 64 * GIB)
MPS = Hardware(Device.MPS, "Apple GPU", 32 * GIB, 32 * GIB, 32 * GIB)


def card(gib, host=PLENTY, **more):
    return replace(imagined_gpu(round(gib * GIB), host=host), **more)


def planner(hardware, preference=Preference.AUTO, **fixed):
    return Planner(NINE_B, Decoder(), hardware, preference, **fixed)


@pytest.mark.parametrize(
    ("mode", "hardware", "word"),
    [
        (Mode(weights=Weights.INT8), MPS, "int8 kernels"),
        (Mode(weights=Weights.NF4), replace(CUDA, bitsandbytes=False), "bitsandbytes"),
        (Mode(), replace(CUDA, bf16=False), "fp16"),
        (Mode(precision=Precision.FP16), CPU, "float16"),
        (Mode(offload=Offload.BLOCKS), CPU, "no device to offload"),
        (Mode(offload=Offload.PARTS), MPS, "shares main memory"),
        (Mode(decode=Decode.CPU), CPU, "on the CPU already"),
        (Mode(weights=Weights.INT8, offload=Offload.BLOCKS), CUDA, "keep their bytes"),
        (Mode(decode=Decode.TILED, tile=Tile(160, 240)), CUDA, "multiples of 48"),
        (Mode(mlp_piece=-1), CUDA, "or 0 for all"),
    ],
)
def test_what_cannot_be_is_refused_in_words(mode, hardware, word):
    assert any(word in reason for reason in objections(mode, hardware))
    assert mode not in legal_modes(hardware)
    assert not objections(Mode(precision=Precision.FP32), hardware)


def test_there_are_legal_modes_everywhere():
    for hardware in (CUDA, CPU, MPS, replace(CUDA, bf16=False)):
        modes = legal_modes(hardware)
        assert modes
        assert len(set(modes)) == len(modes)
        assert not any(objections(mode, hardware) for mode in modes)


@pytest.mark.parametrize("gib", [4, 6, 8, 10, 12, 16, 20, 24, 40, 48, 80, 141])
@pytest.mark.parametrize("host", [8 * GIB, 13 * GIB, PLENTY])
@pytest.mark.parametrize("preference", [p for p in Preference if p is not Preference.CPU])
def test_whatever_is_offered_is_legal_and_fits(gib, host, preference):
    hardware = card(gib, host)
    answer = planner(hardware, preference).plan_or_less(Request())
    if isinstance(answer, Refusal):
        assert answer.change is None
        assert "use" in answer.advice
    else:
        assert not objections(answer.mode, hardware)
        assert fits(answer, hardware)
        assert answer.why


def test_a_plan_says_which_memory_something_better_lacks():
    device, host = planner(card(6)).plan(Request()), planner(card(6, host=8 * GIB)).plan(Request())
    assert "better" in device.why and device.why.endswith("GiB.")
    assert host.why.endswith("GiB of main memory.")


def test_cards_people_have():
    def weights(gib, **more):
        answer = planner(card(gib, **more)).plan(Request())
        assert isinstance(answer, Plan)
        return answer.mode

    assert weights(80) == weights(48)
    assert weights(80).weights is Weights.FULL
    assert weights(80).decode is Decode.WHOLE
    assert weights(24).weights is Weights.FULL
    assert weights(24).decode is Decode.TILED
    assert weights(16).weights.four_bit
    assert weights(16).offload is Offload.NONE
    assert weights(12).weights.four_bit
    assert weights(9).weights.four_bit
    assert weights(16, bf16=False).precision is Precision.FP16
    assert weights(6).offload is Offload.BLOCKS


def test_preferences():
    quality = planner(card(12), Preference.QUALITY).plan(Request())
    balanced = planner(card(80), Preference.BALANCED).plan(Request())
    low = planner(card(80), Preference.LOW).plan(Request())
    assert quality.mode.weights is Weights.FULL
    assert quality.mode.offload is Offload.BLOCKS
    assert balanced.mode.weights.four_bit
    assert balanced.mode.offload is Offload.NONE
    assert low.needed_bytes < balanced.needed_bytes / 2
    assert low.mode.guidance is Guidance.ONE_AT_A_TIME


def test_insisting():
    plan = planner(card(80), weights=Weights.INT8, offload=Offload.EMBEDDINGS).plan(Request())
    assert plan.mode.weights is Weights.INT8
    assert plan.mode.offload is Offload.EMBEDDINGS
    refusal = planner(card(80), weights=Weights.INT8, offload=Offload.BLOCKS).plan(Request())
    assert "keep their bytes" in str(refusal)
    refusal = planner(card(12), weights=Weights.FULL, offload=Offload.NONE).plan(Request())
    assert isinstance(refusal, Refusal)
    assert "--memory auto" in str(refusal)


def test_a_refusal_names_the_cheapest_change_and_it_fits():
    hardware = card(8.6, host=4 * GIB)
    want = Request(chat_tokens=9000)
    refusal = planner(hardware).plan(Request(frames=49, height=720, width=1280))
    assert isinstance(refusal, Refusal)
    assert refusal.change is not None
    assert refusal.change.frames < 49
    assert (refusal.change.height, refusal.change.width) == (720, 1280)
    assert "would fit" in str(refusal)
    answer = planner(hardware).plan(refusal.change)
    assert isinstance(answer, Plan)
    assert fits(answer, hardware)
    more = planner(hardware).plan(want)
    assert isinstance(more, Plan) or more.change is None or more.change.chat_tokens < 9000


def test_nothing_fits_a_tiny_card():
    refusal = planner(card(1), offload=Offload.NONE).plan(Request())
    assert refusal.change is None
    assert "--memory cpu" in str(refusal)


@pytest.mark.parametrize("offload", list(Offload))
def test_smaller_plans_end(offload):
    own = planner(card(80), offload=offload)
    plan, seen = own.plan(Request()), []
    while plan is not None:
        seen.append(plan)
        plan = own.smaller(plan, "decode", {"decode", "tile"})
    assert [one.costs.decode for one in seen] == sorted((one.costs.decode for one in seen), reverse=True)
    assert seen[0].mode.decode is not Decode.CPU
    assert seen[-1].mode.decode is Decode.CPU
    assert len({one.mode.weights for one in seen}) == 1


def test_sizes_in_words():
    assert parse_size("12GB") == 12 * GIB
    assert parse_size("1.5 gib") == 1.5 * GIB
    assert parse_size("800M") == 800 * 2**20
    for wrong in ("", "GB", "-3GB", "0", "twelve"):
        with pytest.raises(QuantizationError, match="amount of memory"):
            parse_size(wrong)


def test_this_machine():
    import torch

    found = detect(torch.device("cpu"))
    assert found.device is Device.CPU
    assert 0 < found.free_bytes <= found.total_bytes


def test_the_command(capsys):
    assert main(["plan", "--gpu", "12GB", "--host", "64GB", "--frames", "49", "--size", "480x720"]) == 0
    text = capsys.readouterr().out
    assert "nf4" in text
    assert text.count("\n| ") == 8
    assert main(["plan", "--gpu", "12GB", "--host", "64GB", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["fits"] is True
    assert data["mode"]["weights"].startswith("nf4")
    assert data["bytes"]["needed"] <= 12 * GIB
    assert main(["plan", "--gpu", "1GB", "--host", "8GB", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["fits"] is False


@pytest.mark.parametrize("wrong", ["--size 480", "--size 481x720", "--frames 10", "--gpu big", "--chat 0"])
def test_wrong_options(wrong, capsys):
    assert main(["plan", *wrong.split()]) == 2
    assert capsys.readouterr().err.startswith("error: ")
