"""What is legal where, what fits, and what would."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from core.config import HaploOmniConfig
from core.errors import QuantizationError
from quantization.__main__ import main
from quantization.hardware import detect, hypothetical_gpu, parse_size
from quantization.memory import Decoder, Model, Workload
from quantization.modes import (
    Decode,
    Device,
    ExecutionMode,
    Guidance,
    Hardware,
    MemoryPreference,
    Offload,
    Precision,
    Tile,
    Weights,
    legal_modes,
    violations,
)
from quantization.planner import Infeasible, Plan, Planner, fits

GIB = 2**30
NINE_B = Model(HaploOmniConfig())
PLENTY = 256 * GIB
CUDA = hypothetical_gpu(24 * GIB, host=PLENTY)
CPU = Hardware(Device.CPU, "CPU", 64 * GIB, 64 * GIB, 64 * GIB)
MPS = Hardware(Device.MPS, "Apple GPU", 32 * GIB, 32 * GIB, 32 * GIB)


def card(gib, host=PLENTY, **more):
    return replace(hypothetical_gpu(round(gib * GIB), host=host), **more)


def planner(hardware, preference=MemoryPreference.AUTO, **fixed):
    return Planner(NINE_B, Decoder(), hardware, preference, **fixed)


@pytest.mark.parametrize(
    ("mode", "hardware", "word"),
    [
        (ExecutionMode(weights=Weights.INT8), MPS, "int8 kernels"),
        (ExecutionMode(weights=Weights.NF4), replace(CUDA, bitsandbytes=False), "bitsandbytes"),
        (ExecutionMode(), replace(CUDA, bf16=False), "use float16"),
        (ExecutionMode(precision=Precision.FP16), CPU, "float16"),
        (ExecutionMode(offload=Offload.SEQUENTIAL), CPU, "no device to offload"),
        (ExecutionMode(offload=Offload.MODEL), MPS, "shares main memory"),
        (ExecutionMode(decode=Decode.CPU), CPU, "on the CPU already"),
        (ExecutionMode(weights=Weights.INT8, offload=Offload.SEQUENTIAL), CUDA, "keep their bytes"),
        (ExecutionMode(decode=Decode.TILED, tile=Tile(160, 240)), CUDA, "multiples of 48"),
        (ExecutionMode(mlp_chunk_size=-1), CUDA, "or 0 for all"),
    ],
)
def test_what_cannot_be_is_refused_in_words(mode, hardware, word):
    assert any(word in reason for reason in violations(mode, hardware))
    assert mode not in legal_modes(hardware)
    assert not violations(ExecutionMode(precision=Precision.FP32), hardware)


@pytest.mark.parametrize("preference", MemoryPreference)
def test_a_cpu_emulates_bfloat16_only_where_nothing_else_fits(preference):
    slow = replace(CPU, bf16=False)
    clip = Workload.of_size(9, 256, 256, 1000)
    best = planner(slow, preference).plan(clip)
    assert best.mode.precision is Precision.FP32
    assert planner(CPU, MemoryPreference.LOW).plan(clip).mode.precision is Precision.BF16
    asked = planner(slow, precision=Precision.BF16).plan(clip)
    assert asked.mode.precision is Precision.BF16, "who insists gets it"
    least = min(one.needed_bytes for one in planner(slow).plans(clip) if one.mode.precision is Precision.BF16)
    fp32 = min(one.needed_bytes for one in planner(slow).plans(clip) if one.mode.precision is Precision.FP32)
    assert least < fp32
    room = (least + fp32) // 2
    left = planner(replace(slow, free_bytes=room, host_free_bytes=room)).plan(clip)
    assert left.mode.precision is Precision.BF16


def test_there_are_legal_modes_everywhere():
    for hardware in (CUDA, CPU, MPS, replace(CUDA, bf16=False)):
        modes = legal_modes(hardware)
        assert modes
        assert len(set(modes)) == len(modes)
        assert not any(violations(mode, hardware) for mode in modes)


@pytest.mark.parametrize("gib", [4, 6, 8, 10, 12, 16, 20, 24, 40, 48, 80, 141])
@pytest.mark.parametrize("host", [8 * GIB, 13 * GIB, PLENTY])
@pytest.mark.parametrize("preference", [p for p in MemoryPreference if p is not MemoryPreference.CPU])
def test_whatever_is_offered_is_legal_and_fits(gib, host, preference):
    hardware = card(gib, host)
    answer = planner(hardware, preference).plan_or_less(Workload.of_size())
    if isinstance(answer, Infeasible):
        assert answer.change is None
        assert "use" in answer.advice
    else:
        assert not violations(answer.mode, hardware)
        assert fits(answer, hardware)
        assert answer.why


def test_a_plan_says_which_memory_something_better_lacks():
    device = planner(card(6)).plan(Workload.of_size())
    host = planner(card(6, host=8 * GIB)).plan(Workload.of_size())
    assert "better" in device.why and device.why.endswith("GiB.")
    assert host.why.endswith("GiB of main memory.")


def test_cards_people_have():
    def weights(gib, **more):
        answer = planner(card(gib, **more)).plan(Workload.of_size())
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
    assert weights(6).offload is Offload.SEQUENTIAL


def test_preferences():
    quality = planner(card(12), MemoryPreference.QUALITY).plan(Workload.of_size())
    balanced = planner(card(80), MemoryPreference.BALANCED).plan(Workload.of_size())
    low = planner(card(80), MemoryPreference.LOW).plan(Workload.of_size())
    assert quality.mode.weights is Weights.FULL
    assert quality.mode.offload is Offload.SEQUENTIAL
    assert balanced.mode.weights.four_bit
    assert balanced.mode.offload is Offload.NONE
    assert low.needed_bytes < balanced.needed_bytes / 2
    assert low.mode.guidance is Guidance.ONE_AT_A_TIME


def test_insisting():
    plan = planner(card(80), weights=Weights.INT8, offload=Offload.EMBEDDINGS).plan(Workload.of_size())
    assert plan.mode.weights is Weights.INT8
    assert plan.mode.offload is Offload.EMBEDDINGS
    refusal = planner(card(80), weights=Weights.INT8, offload=Offload.SEQUENTIAL).plan(Workload.of_size())
    assert "keep their bytes" in str(refusal)
    refusal = planner(card(12), weights=Weights.FULL, offload=Offload.NONE).plan(Workload.of_size())
    assert isinstance(refusal, Infeasible)
    assert "--memory auto" in str(refusal)


def test_a_refusal_names_the_cheapest_change_and_it_fits():
    hardware = card(8.6, host=4 * GIB)
    want = Workload.of_size(chat_tokens=9000)
    refusal = planner(hardware).plan(Workload.of_size(num_frames=49, height=720, width=1280))
    assert isinstance(refusal, Infeasible)
    assert refusal.change is not None
    assert refusal.change.clip.num_frames < 49
    assert (refusal.change.clip.height, refusal.change.clip.width) == (720, 1280)
    assert "would fit" in str(refusal)
    answer = planner(hardware).plan(refusal.change)
    assert isinstance(answer, Plan)
    assert fits(answer, hardware)
    more = planner(hardware).plan(want)
    assert isinstance(more, Plan) or more.change is None or more.change.chat_tokens < 9000


def test_nothing_fits_a_tiny_card():
    refusal = planner(card(1), offload=Offload.NONE).plan(Workload.of_size())
    assert refusal.change is None
    assert "--memory cpu" in str(refusal)


@pytest.mark.parametrize("offload", list(Offload))
def test_smaller_plans_end(offload):
    own = planner(card(80), offload=offload)
    plan = own.plan(Workload.of_size())
    seen = []
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
    assert main(["plan", "--gpu", "12GB", "--host", "64GB", "--size", "49x480x720"]) == 0
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


@pytest.mark.parametrize("word", ["parts", "blocks", "model", "sequential"])
def test_both_words_of_offload(word, capsys):
    assert main(["plan", "--gpu", "24GB", "--host", "64GB", "--offload", word, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mode"]["offload"] == Offload(word).value


@pytest.mark.parametrize(
    "wrong", ["--size 480x720", "--size 49x481x720", "--size 10x480x720", "--gpu big", "--chat 0"]
)
def test_wrong_options(wrong, capsys):
    assert main(["plan", *wrong.split()]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_decoding_has_the_room_that_it_was_seen_to_need():
    """24 GB of a card ran out in tiles of 240 x 360 beside full weights, 8 GB did not in 144 x 240."""
    full = planner(card(24)).plan(Workload.of_size())
    assert full.mode.weights is Weights.FULL
    assert full.mode.tile.height < 240
    beside = sum(full.costs.weights.values())
    assert full.costs.decode == beside + full.costs.decoding
    assert full.needed_bytes - full.costs.decode > 0.61 * full.costs.decoding
    turns = planner(card(24), offload=Offload.MODEL).plan(Workload.of_size())
    assert turns.needed_bytes - turns.costs.decode > 0.61 * turns.costs.decoding, (
        "also where the model has left"
    )
    chosen = {gib: planner(card(gib)).plan(Workload.of_size()).mode for gib in (8, 12, 16)}
    assert all(mode.weights.four_bit and mode.decode is Decode.TILED for mode in chosen.values())
    assert chosen[12].offload is chosen[16].offload is Offload.NONE
    assert chosen[8].tile.height <= chosen[12].tile.height <= chosen[16].tile.height


def test_int8_is_for_those_who_ask_for_quality():
    """It doubles a denoising step, so auto takes nf4; quality takes it where full weights cannot stream."""
    assert planner(card(16)).plan(Workload.of_size()).mode.weights is Weights.NF4
    assert planner(card(16), MemoryPreference.QUALITY).plan(Workload.of_size()).mode.weights is Weights.FULL
    assert (
        planner(card(16, host=8 * GIB), MemoryPreference.QUALITY).plan(Workload.of_size()).mode.weights
        is Weights.INT8
    )


def test_the_autoencoder_counts_as_weights():
    """Measured on a card: 5.95 GiB of nf4 weights and 0.43 of the autoencoder, 9.50 of int8, 17.6 full."""
    for weights, gib in ((Weights.NF4, 6.40), (Weights.INT8, 9.95), (Weights.FULL, 18.05)):
        plan = planner(card(80), weights=weights, offload=Offload.NONE).plan(Workload.of_size())
        assert sum(plan.costs.weights.values()) == pytest.approx(gib * GIB, rel=0.01)
    on_cpu = planner(CPU, precision=Precision.BF16).plan(Workload.of_size())
    assert on_cpu.costs.weights["autoencoder"] == 4 * Decoder().num_elements, (
        "float32 there, whatever the model's"
    )
