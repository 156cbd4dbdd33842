"""LoRA training on a random checkpoint: it learns, its file changes the model, and a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from chronoedit.cache import TensorCache
from chronoedit.data.encoded import Encoder
from chronoedit.data.export import Export, export_world
from chronoedit.data.formats import open_records
from chronoedit.data.loader import Geometry
from chronoedit.errors import OutputError, TrainingError
from chronoedit.lora.adapters import fuse, read_lora
from chronoedit.lora.files import describe
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.runtime.processes import Processes
from chronoedit.training import lora as module
from chronoedit.training.finetune import Sources, Watch, forget, held
from chronoedit.training.lora import Adapter, LoraRecipe, linear_layers, target_modules, train_lora
from chronoedit.training.recipes import Optimisation

ADAPTER = Adapter(rank=4, targets=("q", "v", "attn2.to_out.0", "ffn.0"), trigger_words="blok")


def recipe(steps: int, **changes: Any) -> LoraRecipe:
    optimisation = Optimisation(learning_rate=2e-2, warmup_steps=2, batch_size=2, checkpoint_every_s=0.0)
    return LoraRecipe(
        **{"optimisation": optimisation, "adapter": ADAPTER, "num_epochs": 1000, "max_steps": steps, **changes}
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    export_world(Export(count=4, first_seed=40, clip_share=0.25), folder)
    return folder


@pytest.fixture
def sources(data: Path, random_checkpoint: Path) -> Sources:
    components = open_checkpoint(random_checkpoint, device="cpu")
    encoder = Encoder(components=components, cache=TensorCache(data / "cache"), geometry=Geometry(height=32, width=32))
    return Sources(components, encoder, encoder.encode(open_records(data).records))


def again(sources: Sources) -> Sources:
    """The same, with the transformer as it was loaded."""
    sources.components.release("transformer")
    return sources


def test_it_learns_and_saves_what_changes_the_model(sources: Sources, tmp_path: Path) -> None:
    records: list[dict[str, Any]] = []
    changed = recipe(40, save_steps=20)
    path = train_lora(changed, sources, tmp_path, Watch(log=records.append))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert records and losses
    found = read_lora(path)
    described = describe(found)
    assert (described.dialect, described.ranks, described.trigger_words) == ("diffusers", {4: 12}, "blok")
    assert described.delta_norm > 0
    assert found.metadata["base_model_hash"] == sources.components.model_hash
    assert json.loads(found.metadata["recipe"])["adapter"]["rank"] == 4
    assert (tmp_path / "step-20.safetensors").is_file() and (tmp_path / "step-40.safetensors").is_file()
    fresh = again(sources).components.transformer
    assert fuse(fresh, [(found, 1.0)]) == 12


def test_held_out_loss_by_noise_level_is_the_same_each_time(sources: Sources, tmp_path: Path) -> None:
    held = Sources(sources.components, sources.encoder, sources.examples[:3], validation=sources.examples[3:])
    trainer = module.LoraTrainer(recipe(1), held)
    figures = trainer.validate()
    assert list(figures) == ["val_0.2", "val_0.5", "val_0.8", "val_1.0"] and trainer.validate() == figures
    trainer.step(0, 0.0)
    assert trainer.validate() != figures
    assert module.LoraTrainer(recipe(1), again(sources)).validate() == {}


def test_tensorboard_has_the_curves(sources: Sources, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_lora(recipe(3), sources, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"loss", "grad_norm", "steps_per_s"} <= set(events.Tags()["scalars"])
    assert events.Scalars("loss")[-1].step == 3


def test_what_the_edit_changes_may_weigh_more_in_training_alone(sources: Sources) -> None:
    plain, weighted = (module.LoraTrainer(recipe(1, changed_weight=w), again(sources)).objective for w in (0.0, 3.0))
    transformer, generator = sources.components.transformer, torch.Generator
    examples = list(sources.examples[:2])
    with torch.no_grad():
        losses = [each.loss(transformer, examples, generator().manual_seed(7)) for each in (plain, weighted)]
        held = [
            each.loss(transformer, examples[:1], generator().manual_seed(7), torch.tensor([0.5]))
            for each in (plain, weighted)
        ]
    assert losses[0] != losses[1] and held[0] == held[1]
    with pytest.raises(ValueError, match="changed_weight -1 is negative"):
        recipe(1, changed_weight=-1)


def test_the_loss_falls(sources: Sources, tmp_path: Path) -> None:
    trainer = module.LoraTrainer(recipe(60), sources)
    examples = list(sources.examples[:2])

    def loss() -> float:
        with torch.no_grad():
            return float(trainer.objective.loss(trainer.transformer, examples, torch.Generator().manual_seed(7)))

    before = loss()
    for step in range(60):
        trainer.step(step, step / 60)
    assert loss() < 0.9 * before


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_stopped_run_goes_on_bit_for_bit(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulated: int
) -> None:
    chosen = recipe(6, gradient_accumulation_steps=accumulated)
    whole = load_file(train_lora(chosen, sources, tmp_path / "whole"))
    step = module.LoraTrainer.step

    def dies(self: module.LoraTrainer, at: int, progress: float) -> dict[str, float]:
        if at == 3:
            raise KeyboardInterrupt
        return step(self, at, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module.LoraTrainer, "step", dies)
        train_lora(chosen, again(sources), tmp_path / "cut")
    resumed = load_file(train_lora(chosen, again(sources), tmp_path / "cut"))
    assert set(whole) == set(resumed) and all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_another_recipe_is_refused_and_fresh_starts_over(sources: Sources, tmp_path: Path) -> None:
    train_lora(recipe(1), sources, tmp_path)
    with pytest.raises(OutputError, match=r"another recipe: flow_shift, seed differ; start over there \(--fresh\)"):
        train_lora(recipe(1, seed=3, flow_shift=2.0), again(sources), tmp_path)
    fewer = Sources(sources.components, sources.encoder, [*sources.examples[1:], sources.examples[1]])
    with pytest.raises(OutputError, match="another recipe: set differ"):  # as many rows, others
        train_lora(recipe(1), again(fewer), tmp_path)
    forget(tmp_path)
    train_lora(recipe(1, seed=3), again(sources), tmp_path)


def test_two_runs_in_one_folder_are_refused(sources: Sources, tmp_path: Path) -> None:
    with held(tmp_path, Processes()), pytest.raises(OutputError, match="another process is training in"):
        train_lora(recipe(1), sources, tmp_path)
    train_lora(recipe(1), again(sources), tmp_path)


def test_it_goes_on_from_a_lora(sources: Sources, tmp_path: Path) -> None:
    first = train_lora(recipe(3), sources, tmp_path / "a")
    later = Sources(sources.components, sources.encoder, sources.examples, lora_checkpoint=first)
    started = module.LoraTrainer(recipe(3), again(later))
    made = started.factors.weights(started.alpha)
    assert all(torch.equal(layer.up, read_lora(first).weights.layers[name].up) for name, layer in made.layers.items())
    with pytest.raises(ValueError, match="has rank 4 at .* give its rank"):
        module.LoraTrainer(recipe(3, adapter=Adapter(rank=2, targets=ADAPTER.targets)), again(later))
    with pytest.raises(ValueError, match="has other modules"):
        module.LoraTrainer(recipe(3, adapter=Adapter(rank=4, targets=("q",))), again(later))


@pytest.mark.parametrize("option", ["gradient_checkpointing", "checkpointing_offload"])
def test_saving_memory_changes_nothing(sources: Sources, option: str) -> None:
    losses = []
    for chosen in (recipe(1), recipe(1, **{option: True})):
        trainer = module.LoraTrainer(chosen, again(sources))
        losses.append([trainer.step(step, 0.0)["loss"] for step in range(2)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_base_that_waits_in_main_memory_changes_nothing(sources: Sources, tmp_path: Path) -> None:
    files = [
        load_file(train_lora(recipe(3, **options), again(sources), tmp_path / str(len(options))))
        for options in ({}, {"blocks_to_swap": 1, "gradient_checkpointing": True, "checkpointing_offload": True})
    ]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    with pytest.raises(ValueError, match="9 blocks are to wait in main memory; this transformer has 2"):
        module.LoraTrainer(recipe(1, blocks_to_swap=9), again(sources))


@pytest.mark.parametrize("precision", ["bf16", "fp8", "int8"])
def test_a_base_of_fewer_bits_trains_nearly_alike(sources: Sources, tmp_path: Path, precision: str) -> None:
    whole = module.LoraTrainer(recipe(2), again(sources))
    expected = [whole.step(step, 0.0)["loss"] for step in range(2)]
    trainer = module.LoraTrainer(recipe(2, base_precision=precision, blocks_to_swap=1), again(sources))
    assert [trainer.step(step, 0.0)["loss"] for step in range(2)] == pytest.approx(expected, rel=0.05)
    trainer.save(tmp_path / "lora.safetensors")
    assert fuse(again(sources).components.transformer, [(read_lora(tmp_path / "lora.safetensors"), 1.0)]) == 12


def test_a_loss_that_is_not_finite_names_the_rows(sources: Sources, tmp_path: Path) -> None:
    broken = sources.examples[0]
    sources.encoder.cache._kept[broken.latents] = torch.full_like(sources.encoder.load(broken).latents, torch.nan)
    with pytest.raises(TrainingError, match=rf"the loss is nan at step \d, on .*{broken.row}"):
        train_lora(recipe(8), sources, tmp_path)


def test_targets_in_either_spelling(sources: Sources) -> None:
    transformer = sources.components.transformer
    linears = linear_layers(transformer.config)
    built = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    assert sorted(linears) == sorted(built)
    assert target_modules(linears, ["q"]) == target_modules(linears, ["to_q"])
    assert target_modules(linears, ["ffn.2"]) == target_modules(linears, ["ffn.net.2"])
    assert all("add_k_proj" in name for name in target_modules(linears, ["k_img"]))
    assert not any("add_" in name for name in target_modules(linears, ["k", "v"]))
    with pytest.raises(
        ValueError, match="no linear layer of this model is named 'qkv'; in its blocks there are .*to_q"
    ):
        target_modules(linears, ["qkv"])
