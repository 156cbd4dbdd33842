"""Full fine-tuning: two processes, in each way of sharing the work, end with the weights of one; stopped runs go on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from chronoedit.cache import TensorCache
from chronoedit.data.encoded import Encoder
from chronoedit.data.export import Export, export_world
from chronoedit.data.formats import open_records
from chronoedit.data.loader import Geometry
from chronoedit.errors import CheckpointError, OutputError
from chronoedit.model.checkpoint import open_checkpoint
from chronoedit.runtime.processes import Processes, arrange
from chronoedit.training.average import PowerAverage, power_of
from chronoedit.training.finetune import Sources, Watch
from chronoedit.training.full import FullRecipe, FullTrainer, train_full
from chronoedit.training.recipes import Optimisation
from chronoedit.training.sharded import finished

from ..processes import run_by_two, save, whole

CPU = torch.device("cpu")
STEPS = 50
WAYS = {"plain": ("plain", 1), "fsdp": ("fsdp", 1), "context": ("plain", 2), "fsdp and context": ("fsdp", 2)}


def recipe(steps: int, **changes: Any) -> FullRecipe:
    optimisation = Optimisation(
        learning_rate=1e-3, warmup_steps=5, batch_size=2, checkpoint_every_s=0.0, validate_every_s=0.0
    )
    settings = {"optimisation": optimisation, "num_epochs": 1000, "max_steps": steps, "text_dropout": 0.1}
    return FullRecipe(**{**settings, **changes})


def opened(checkpoint: Path, data: Path) -> Sources:
    components = open_checkpoint(checkpoint, device="cpu")
    encoder = Encoder(components=components, cache=TensorCache(data / "cache"), geometry=Geometry(height=48, width=32))
    examples = encoder.encode(open_records(data).records)
    return Sources(components, encoder, examples[:5], validation=examples[5:])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, random_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("world")
    export_world(Export(count=6, first_seed=40, clip_share=0.34, size_px=48), folder)
    opened(random_checkpoint, folder)  # encoded once
    return folder


@pytest.fixture
def sources(data: Path, random_checkpoint: Path) -> Sources:
    return opened(random_checkpoint, data)


def trained(sources: Sources, processes: Processes, strategy: str) -> dict[str, Any]:
    accumulated = 2 // processes.data_count
    chosen = recipe(STEPS, gradient_accumulation_steps=accumulated, strategy=strategy)
    trainer = FullTrainer(chosen, sources, processes, CPU)
    losses, validation = [], []
    for step in range(STEPS):
        losses.append(trainer.step(step, step / STEPS)["loss"])
        if step in (9, STEPS - 1):  # of the averaged weights, after which training goes on
            validation += trainer.validate().values()
    weights = {name: whole(p.detach()).clone() for name, p in trainer.transformer.named_parameters()}
    assert trainer.average is not None
    averaged = {f"ema.{name}": whole(tensor).clone() for name, tensor in trainer.average.average.items()}
    return {"losses": losses, "validation": validation, "weights": {**weights, **averaged}}


def trained_by_two(checkpoint: Path, data: Path, path: Path) -> None:
    found = {}
    for way, (strategy, context) in WAYS.items():
        found[way] = trained(opened(checkpoint, data), arrange("cpu", context), strategy)
    save(found, path)


def test_two_processes_end_with_the_weights_of_one(
    sources: Sources, data: Path, random_checkpoint: Path, tmp_path: Path
) -> None:
    run_by_two(trained_by_two, random_checkpoint, data, tmp_path / "found.pt")
    alone = trained(sources, Processes(), "plain")
    first, last = (sum(alone["losses"][part]) / 5 for part in (slice(5), slice(-5, None)))
    assert last < first / 2
    for way, found in torch.load(tmp_path / "found.pt").items():
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-4), way
        assert found["validation"] == pytest.approx(alone["validation"], abs=1e-4) and found["validation"], way
        assert set(found["weights"]) == set(alone["weights"])
        worst = max(float((found["weights"][n] - w).abs().max()) for n, w in alone["weights"].items())
        print(f"{way}: largest difference of a weight {worst:.1e}; loss {first:.3f} to {last:.3f}")  # shown with -s
        for name, weight in alone["weights"].items():
            torch.testing.assert_close(found["weights"][name], weight, rtol=0, atol=1e-4, msg=f"{way}: {name}")


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint."""
    path = finished(folder)[-1]
    metadata = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    tensors = {n: torch.empty(i.size, dtype=i.properties.dtype) for n, i in metadata.items() if n != "progress"}
    dcp.load(tensors, storage_reader=dcp.FileSystemReader(path), no_dist=True)
    return tensors


def stopping_at(step: int) -> Watch:
    done: list[int] = []
    return Watch(on_step=lambda at, total: done.append(at), should_stop=lambda: len(done) >= step)


def stopped_and_resumed(checkpoint: Path, data: Path, folder: Path, processes: Processes, strategy: str) -> None:
    chosen = recipe(5, strategy=strategy, samples=1)
    train_full(chosen, opened(checkpoint, data), folder / "whole", processes=processes)
    with pytest.raises(KeyboardInterrupt):
        train_full(chosen, opened(checkpoint, data), folder / "cut", stopping_at(2), processes)
    (cut,) = finished(folder / "cut")
    assert cut.name == "step-2"
    train_full(chosen, opened(checkpoint, data), folder / "cut", processes=processes)


def test_another_number_of_processes_goes_on(data: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    """Two processes with a part of the weights each stop; one goes on with all of them, and both their batches.

    The sums are in another order, so it is not the same to the bit.
    """
    run_by_two(stopped_by_two, random_checkpoint, data, tmp_path)
    train_full(recipe(4, gradient_accumulation_steps=2), opened(random_checkpoint, data), tmp_path / "changed")
    one, two = state_of(tmp_path / "changed"), state_of(tmp_path / "whole")
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-5) for name in two)
    with pytest.raises(OutputError, match="batches_a_step differ"):
        train_full(recipe(4), opened(random_checkpoint, data), tmp_path / "changed")


def stopped_by_two(checkpoint: Path, data: Path, folder: Path) -> None:
    train_full(recipe(4), opened(checkpoint, data), folder / "whole", processes=arrange("cpu"))
    with pytest.raises(KeyboardInterrupt):
        cut = recipe(4, strategy="fsdp")
        train_full(cut, opened(checkpoint, data), folder / "changed", stopping_at(2), arrange("cpu"))


def stopped_and_resumed_by_two(checkpoint: Path, data: Path, folder: Path) -> None:
    stopped_and_resumed(checkpoint, data, folder / "fsdp", arrange("cpu"), "fsdp")
    stopped_and_resumed(checkpoint, data, folder / "context", arrange("cpu", 2), "plain")


@pytest.mark.parametrize("count", [1, 2])
def test_a_stopped_run_goes_on_bit_for_bit(data: Path, random_checkpoint: Path, tmp_path: Path, count: int) -> None:
    if count == 1:
        stopped_and_resumed(random_checkpoint, data, tmp_path / "one", Processes(), "plain")
    else:
        run_by_two(stopped_and_resumed_by_two, random_checkpoint, data, tmp_path)
    for folder in tmp_path.iterdir():
        one, two = state_of(folder / "whole"), state_of(folder / "cut")
        assert {name.split(".")[0] for name in one} == {"model", "ema", "optim"} and set(one) == set(two)
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert [path.name for path in finished(folder / "cut")] == ["step-5"]


def test_the_model_that_it_writes(sources: Sources, data: Path, tmp_path: Path) -> None:
    before = {name: p.detach().clone() for name, p in sources.components.transformer.named_parameters()}
    path = train_full(recipe(3, save_steps=2), sources, tmp_path)
    average = {n.removeprefix("ema."): t for n, t in state_of(tmp_path).items() if n.startswith("ema.")}
    written = dict(open_checkpoint(path, device="cpu").transformer.named_parameters())
    assert set(written) == set(average) == set(before)
    assert all(torch.equal(written[name], average[name]) for name in written)
    assert any(not torch.equal(written[name], before[name]) for name in written)
    assert [each.name for each in finished(tmp_path)] == ["step-2", "step-3"]
    again = opened(Path(sources.components.source), data)
    assert train_full(recipe(5, save_steps=2), again, tmp_path) == path  # trained on, it is written anew
    further = dict(open_checkpoint(path, device="cpu").transformer.named_parameters())
    average = {n.removeprefix("ema."): t for n, t in state_of(tmp_path).items() if n.startswith("ema.")}
    assert all(torch.equal(further[name], average[name]) for name in further)
    assert any(not torch.equal(further[name], written[name]) for name in written)


def test_what_is_written_is_what_was_there_when_it_began(sources: Sources, tmp_path: Path) -> None:
    trainer = FullTrainer(recipe(3), sources, Processes(), CPU)
    trainer.step(0, 0.0)
    before = {name: p.detach().clone() for name, p in trainer.transformer.named_parameters()}
    trainer.state.save(tmp_path)
    with torch.no_grad():
        for p in trainer.transformer.parameters():
            p.add_(1.0)
    trainer.state.finish()
    saved = state_of(tmp_path)
    assert all(torch.equal(saved[f"model.{name}"], tensor) for name, tensor in before.items())


def test_damage_and_other_runs_are_refused(data: Path, random_checkpoint: Path, tmp_path: Path) -> None:
    train_full(recipe(1), opened(random_checkpoint, data), tmp_path)
    with pytest.raises(OutputError, match="another recipe: optimisation.learning_rate differ"):
        other = recipe(2, optimisation=Optimisation(learning_rate=1e-4, warmup_steps=5, batch_size=2))
        train_full(other, opened(random_checkpoint, data), tmp_path)
    unfinished = tmp_path / "checkpoints" / "step-2"
    unfinished.mkdir()
    (unfinished / "__0_0.distcp").write_bytes(b"x")
    assert [path.name for path in finished(tmp_path)] == ["step-1"]
    train_full(recipe(2), opened(random_checkpoint, data), tmp_path)  # what was cut off is written anew
    assert [path.name for path in finished(tmp_path)] == ["step-2"]
    part = next((tmp_path / "checkpoints" / "step-2").glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="does not continue this run"):
        train_full(recipe(3), opened(random_checkpoint, data), tmp_path)


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="strategy 'ddp' is unknown; choose one of plain, fsdp"):
        recipe(1, strategy="ddp")
    with pytest.raises(ValueError, match="width 0.5 is not in"):
        recipe(1, average=0.5)
    with pytest.raises(ValueError, match="clip_share 2 is not between 0 and 1"):
        recipe(1, clip_share=2)


def test_the_average_has_the_width_that_was_asked_for() -> None:
    module = torch.nn.Linear(1, 1, bias=False).double()
    average = PowerAverage(module, 0.1)
    times = torch.arange(1, 2001, dtype=torch.float64)
    for step in range(2000):
        with torch.no_grad():
            module.weight.fill_(float(times[step]))
        average.update(step)
    gamma = power_of(0.1)
    expected = 2000 * (gamma + 1) / (gamma + 2)  # mean of t under weights t^gamma
    assert float(average.average["weight"]) == pytest.approx(expected, rel=2e-3)
    width = math.sqrt(gamma + 1) / ((gamma + 2) * math.sqrt(gamma + 3))
    assert width == pytest.approx(0.1)
    average.swap()
    assert float(module.weight) == pytest.approx(expected, rel=2e-3) and float(average.average["weight"]) == 2000
