"""Stages: what learns, what rests, that losses fall, that a resumed or shared-out run is the same run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.state import AcceleratorState
from accelerate.utils.dataclasses import get_module_class_from_name

from core import HaploOmniConfig, HaploOmniForConditionalGeneration
from core.errors import ConfigError
from core.training.initialization.prescaling import measure_amplitudes, prescale, wanted_amplitudes
from core.training.loop.config import TrainingConfig
from core.training.loop.processes import BatchShard, build_accelerator
from core.training.loop.trainer import CONFIG_FILE, Trainer, fit
from core.training.stages.parts import Norms, Part, freeze, part_of
from core.training.stages.presets import (
    NAMES,
    chosen,
    nine_b,
    preset,
    tiny,
    with_sources,
    without_distillation,
)
from core.training.stages.stage import Loss, Source, Stage
from core.training.stages.task import StageTask
from tests import ROOT
from tests.core.training import miniature


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return miniature.data(tmp_path_factory.mktemp("clips"))


def task_of(stage: Stage, clips, norms: Norms = Norms.ADAPTIVE) -> StageTask:
    return StageTask(miniature.model(), stage, clips, miniature.teachers(), norms=norms)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_every_parameter_belongs_to_one_part():
    model = miniature.model()
    found = {part_of(name, (1, 2)) for name, _ in model.named_parameters()}
    assert found == set(Part)
    with pytest.raises(ConfigError, match="no part"):
        part_of("extra.weight", (1, 2))


def test_the_way_is_the_papers():
    for stages in (tiny(), nine_b()):
        assert tuple(stage.name for stage in stages) == NAMES
        assert all(Part.BASE not in stage.trainable for stage in stages[:-1]) and set(
            stages[-1].trainable
        ) == set(Part)
    paper = {stage.name: (stage.config.lr, sum(stage.rows.values())) for stage in nine_b()}
    assert paper["1-warmup-pre"] == (1e-4, 256) and paper["1-warmup-post"] == (2e-4, 32)
    assert paper["2-align-pre-connector"] == (1e-5, 128) and paper["2-align-post-connector"] == (1e-4, 128)
    assert paper["3-unified"] == (2e-5, 32)
    assert nine_b()[2].config.steps == 2000 and nine_b()[3].config.steps == 10_000


def test_stages_are_chosen_and_fitted_to_the_data():
    assert [stage.name for stage in chosen(tiny(), ["2", "3-unified"])] == list(NAMES[2:])
    with pytest.raises(ConfigError, match="no stage '4'"):
        chosen(tiny(), ["4"])
    with pytest.raises(ConfigError, match="tiny, 9b"):
        preset("70b")
    only = with_sources(chosen(tiny(), ["3"]), {Source.PICTURE})
    assert set(only[0].rows) == {Source.PICTURE}
    with pytest.raises(ConfigError, match="needs rows to generate"):
        with_sources(tiny(), {Source.PICTURE})
    with pytest.raises(ConfigError, match="does not count: diffusion"):
        replace(tiny()[-1], losses={Loss.NEXT_TOKEN: 1.0}).check()


def test_only_the_small_preset_goes_on_being_taught(clips):
    """A prior teaches where its part learns; without the teachers the way is the paper's."""
    assert all(Loss.DISTILLATION not in stage.losses for stage in nine_b() if stage.warmup is None)
    taught = {stage.name: (stage.is_distilled(Part.PRE), stage.is_distilled(Part.POST)) for stage in tiny()}
    assert {name for name, (pre, _) in taught.items() if pre} == {"1-warmup-pre", "3-unified"}
    assert {name for name, (_, post) in taught.items() if post} == {NAMES[1], *NAMES[4:]}
    for number, silent in ((5, {"distillation/picture", "distillation/clip"}), (6, set())):
        stage = miniature.stages()[number]
        task = task_of(stage, clips)
        assert (task.vision is None) == bool(silent) and task.video is not None and task.language is not None
        wanted = {f"distillation/{source.value}" for source in stage.rows} - silent
        assert {name for name in task.loss_weights if name.startswith("distillation")} == wanted
        assert set(task.num_items(task.sample_batch(BatchShard(0)))) == set(task.loss_weights)
    with pytest.raises(ConfigError, match="none are given"):
        StageTask(miniature.model(), miniature.stages()[-1], clips)
    way = without_distillation(tiny())
    assert set(way[-1].losses) == {Loss.NEXT_TOKEN, Loss.DIFFUSION} and way[:4] == tiny()[:4]
    assert not any(stage.is_distilled(part) for stage in way[2:] for part in Part)


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_a_stage_moves_its_parts_and_no_other_byte(number, clips, tmp_path):
    stage = miniature.stages()[number]
    task = task_of(stage, clips)
    before = {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}
    fit(tmp_path, task, stage.config, "cpu")
    layers = (1, 2)
    moved = set()
    for name, parameter in task.model.named_parameters():
        if torch.equal(parameter, before[name]):
            continue
        moved.add(part_of(name, layers))
    assert moved == set(stage.trainable)
    for taught, untouched in (
        (task.vision, miniature.teachers().vision),
        (task.video, miniature.teachers().video),
    ):
        if taught is not None:
            assert all(
                torch.equal(a, b) for a, b in zip(taught.parameters(), untouched.parameters(), strict=True)
            )
    reported = metrics(tmp_path)[-1]
    assert set(task.loss_weights) < set(reported) and all(value >= 0 for value in reported.values())


def test_a_warmup_learns_what_it_is_for(clips, tmp_path):
    """Words pass less changed, image tokens come nearer to the teacher's, the post part denoises better."""
    for number in (0, 1):
        stage = miniature.stages(30)[number]
        fit(tmp_path / stage.name, task_of(stage, clips), replace(stage.config, lr=3e-3, ema=0.0), "cpu")
        first, *_, last = metrics(tmp_path / stage.name)
        for name in task_of(stage, clips).loss_weights:
            if name.startswith(("identity", "diffusion")):
                assert last[name] < first[name], name
        assert sum(last[n] for n in first if "/" in n) < sum(first[n] for n in first if "/" in n)


def test_plain_norms_stay_neutral(clips, tmp_path):
    stage = miniature.stages()[-1]
    task = task_of(stage, clips, Norms.PLAIN)
    assert not any(
        p.requires_grad for n, p in task.model.named_parameters() if "SSG_" in n or "layernorm.indicator" in n
    )
    assert freeze(task.model, (Part.PRE,)) > freeze(task.model, (Part.PRE,), Norms.PLAIN) > 0


class KilledTask(StageTask):
    """A stage that is killed when the batch of step ``stop_at`` is asked for."""

    stop_at: int | None = None

    def sample_batch(self, share: BatchShard) -> dict[str, Any]:
        if share.step == self.stop_at:
            raise KeyboardInterrupt
        return super().sample_batch(share)


@pytest.mark.parametrize(("save_every_s", "saved"), [(0.0, ["state-3"]), (1e9, [])])
def test_a_killed_stage_goes_on_as_if_nothing_had_been(save_every_s, saved, clips, tmp_path):
    stage = miniature.stages(5)[-1]

    def train(folder: Path, stop_at: int | None) -> dict[str, torch.Tensor]:
        task = KilledTask(miniature.model(), stage, clips, miniature.teachers())
        task.stop_at = stop_at
        trainer = Trainer(folder, task, stage.config, build_accelerator(folder, "cpu"), save_every_s)
        trainer.run(report_every=1)
        return {name: parameter.detach().clone() for name, parameter in task.model.named_parameters()}

    whole = train(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", 3)
    assert [path.name for path in (tmp_path / "cut").glob("state-*")] == saved
    with (tmp_path / "cut" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "sec')  # cut short in the middle of a line
    resumed = train(tmp_path / "cut", None)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    keys = [name for name in metrics(tmp_path / "whole")[0] if name != "seconds"]
    assert [[line[k] for k in keys] for line in metrics(tmp_path / "cut")] == [
        [line[k] for k in keys] for line in metrics(tmp_path / "whole")
    ]


@pytest.fixture
def full_precision(monkeypatch):
    """float32 for one test: accelerate remembers its first setting."""
    AcceleratorState._reset_state(True)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    yield
    AcceleratorState._reset_state(True)


def test_accumulated_and_recomputed_batches_are_the_whole_batch(clips, tmp_path, full_precision):
    stage = replace(miniature.stages(2)[-1], rows={Source.PICTURE: 4, Source.VIDEO: 4})
    made = {}
    for parts, checkpointing in ((1, False), (2, False), (1, True)):
        config = replace(stage.config, accumulate=parts, checkpointing=checkpointing, ema=0.0)
        folder = tmp_path / f"{parts}-{checkpointing}"
        task = StageTask(miniature.model(), replace(stage, config=config), clips, miniature.teachers())
        Trainer(folder, task, config, build_accelerator(folder, "cpu")).run(report_every=1)
        made[parts, checkpointing] = metrics(folder)
    for other in ((2, False), (1, True)):
        for line, expected in zip(made[other], made[1, False], strict=True):
            assert {k: pytest.approx(v, abs=2e-4) for k, v in expected.items() if k != "seconds"} == {
                k: v for k, v in line.items() if k != "seconds"
            }


def test_two_processes_have_the_losses_of_one(tmp_path):
    """``accelerate launch`` with two CPU processes: the same losses, step by step, as one."""
    made = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        miniature.launch(processes, "tests.core.training.stages.two_processes", str(folder))
        made[processes] = metrics(folder / "run")
        assert json.loads((folder / "run" / CONFIG_FILE).read_text())["processes"] == processes
    for one, two in zip(made[1], made[2], strict=True):
        assert {k: pytest.approx(v, rel=1e-3, abs=1e-3) for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in two.items() if k != "seconds"
        }


def test_a_sharded_model_has_the_losses_of_a_whole_one(tmp_path, clips):
    """Parameters shared out block by block, as the FSDP configuration does it."""
    miniature.launch(2, "tests.core.training.stages.sharded", str(tmp_path))
    made = json.loads((tmp_path / "sharded.json").read_text())
    assert made["held"] < 0.55, "each process holds half"
    task = StageTask(miniature.model(), without_distillation(miniature.stages())[-1], clips)
    with torch.no_grad():
        expected = {name: float(value) for name, value in task(task.sample_batch(BatchShard(0))).items()}
    assert made["losses"][0] == {name: pytest.approx(value, rel=1e-3) for name, value in expected.items()}
    assert sum(made["losses"][1].values()) < sum(made["losses"][0].values())


@pytest.mark.parametrize("name", ["two_cpus", "fsdp", "deepspeed"])
def test_accelerate_reads_the_configurations(name):
    config = load_config_from_file(str(ROOT / "examples" / "accelerate" / f"{name}.yaml"))
    assert config.mixed_precision == "bf16" and config.num_processes in (2, 8)
    if name == "fsdp":
        with torch.device("meta"):
            model = HaploOmniForConditionalGeneration(HaploOmniConfig())
        found = get_module_class_from_name(model, config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"])
        assert sum(isinstance(module, found) for module in model.modules()) == 82
        FullyShardedDataParallelPlugin(
            fsdp_version=config.fsdp_config["fsdp_version"],
            auto_wrap_policy=config.fsdp_config["fsdp_auto_wrap_policy"],
            transformer_cls_names_to_wrap=[config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"]],
            state_dict_type=config.fsdp_config["fsdp_state_dict_type"],
        )
    if name == "deepspeed":
        assert config.deepspeed_config["zero_stage"] == 3


def test_prescaling_makes_the_connectors_as_loud_as_wanted(clips):
    model, priors = miniature.model(), miniature.teachers()
    batches = [rows.sample_batch("key", 2, BatchShard(0)) for rows in clips.training.values()]
    device = torch.device("cpu")
    scheduler = task_of(miniature.stages()[-1], clips).scheduler
    table = measure_amplitudes(model, scheduler, batches, device)
    assert set(table["pre in"]) == {"words", "image", "video", "timestep", "noise"}
    assert set(table) == {"pre in", "pre out", "post in", "post out"}
    wanted = wanted_amplitudes(priors.language, priors.video, batches, device)
    assert set(wanted_amplitudes(priors.language, priors.video, batches[:1], device)) == {"pre"}
    factors = prescale(model, table, wanted)
    assert set(factors) == {"pre", "post"}
    after = measure_amplitudes(model, scheduler, batches, device)
    for name in ("pre", "post"):
        loud = torch.tensor(list(after[f"{name} out"].values())).log().mean().exp()
        assert float(loud) == pytest.approx(wanted[name], rel=0.25)


def test_held_out_figures(clips):
    task = task_of(miniature.stages()[-1], clips).eval()
    figures = task.measure(rows=3)
    assert figures["val/next_token/picture"] > 1.0 and 0.0 <= figures["val/answer_accuracy/clip"] <= 1.0
    assert figures["val/diffusion/video"] > 0.1 and figures == task.measure(rows=3)


def test_the_learning_rate_warms_up_and_decays():
    from core.training.loop.config import learning_rate

    rates = [learning_rate(step, TrainingConfig(100, 2.0, warmup=10)) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == 2.0 and rates[-1] < 0.06
