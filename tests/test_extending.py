"""docs/extending.md says nothing that is not so: its Python is run here, block by block, and does what stands there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from chronoedit.apps.commands import eval as eval_commands
from chronoedit.apps.commands import world as world_commands
from chronoedit.apps.main import main
from chronoedit.evaluation.attempts import ItemPicture
from chronoedit.evaluation.benches import BENCHES
from chronoedit.evaluation.cases import Case
from chronoedit.evaluation.judges import JUDGES, open_judge
from chronoedit.lora.dialects import LORA_DIALECTS, LoraLayer, LoraWeights, dialect_of
from chronoedit.request import STEP_CACHE_THRESHOLDS, EditRequest
from chronoedit.runtime.stepcache import STEP_CACHES, Branch, Moment
from chronoedit.sampling.solvers import SOLVERS
from chronoedit.world import sample_item
from chronoedit.world.plugins import registered
from chronoedit.world.splits import FLAGS, HARD, IN_DISTRIBUTION

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
TABLES = (SOLVERS, LORA_DIALECTS, JUDGES, STEP_CACHES, STEP_CACHE_THRESHOLDS)


def blocks(language: str, heading: str) -> list[str]:
    """The blocks of one section."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def _tables_as_before() -> Iterator[None]:
    before = [dict(table) for table in TABLES]
    yield
    for table, entries in zip(TABLES, before, strict=True):
        table.clear()  # type: ignore[attr-defined]
        table.update(entries)  # type: ignore[attr-defined]


@pytest.fixture
def flowers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The worked example where the page says it is: in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("flowers.py").write_text(blocks("python", "A scene in one file")[0], encoding="utf-8")
    return Path("flowers.py")


def run(heading: str, index: int = 0) -> None:
    block = blocks("python", heading)[index]
    exec(compile(block, f"extending.md, {heading}", "exec", dont_inherit=True), {"__name__": "extending"})


def test_every_block_of_the_page_is_run() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    counts = {heading: len(blocks("python", heading)) for heading in headings}
    assert counts == {"A scene in one file": 2, **dict.fromkeys(headings[1:], 1)}
    assert sum(counts.values()) == PAGE.count("```python")


def test_the_scene_is_drawn_and_scored_as_the_page_says(flowers: Path) -> None:
    run("A scene in one file", 1)


def test_the_flower_grows(flowers: Path) -> None:
    with registered([flowers]):
        item = sample_item(3, family="flowers")
        body, grown = item.start.body(item.subject or 0), item.end.body(item.subject or 0)
        assert body is not None and grown is not None and body.kind == "flower"
        heights = [span[3] - span[1] for span in (body.span, grown.span)]
        assert heights[1] > 1.5 * heights[0] and body.span[3] == grown.span[3]
        assert [*item.start.others(body.id)] == [*item.end.others(body.id)]
        again = sample_item(3, family="flowers")
        assert np.array_equal(item.frames(), again.frames()) and item.prompt == again.prompt


def test_the_scene_has_long_instructions_and_splits(flowers: Path) -> None:
    with registered([flowers]):
        for split in (IN_DISTRIBUTION, "held-out combination", "held-out phrasing"):
            item = sample_item(100_003, family="flowers", split=split)
            assert item.split == split and 80 <= len(item.long_prompt.split()) <= 100
        with pytest.raises(ValueError, match="choose another split"):
            sample_item(100_003, family="flowers", split=FLAGS[HARD])


def test_the_commands_parse() -> None:
    known = {**world_commands.COMMANDS, **eval_commands.COMMANDS}
    lines = [shlex.split(line) for block in blocks("bash", "A scene in one file") for line in block.splitlines()]
    assert {" ".join(words[1:3]) for words in lines} == {"world new", "world sample", "world export", "eval world"}
    for words in lines:
        tyro.cli(known[" ".join(words[1:3])], args=words[3:], config=(tyro.conf.OmitArgPrefixes,))


@pytest.mark.parametrize(("name", "order"), [("linear", 2), ("euler", 1)])
def test_the_sampler_is_of_second_order(name: str, order: int) -> None:
    """dx/dσ = −x from σ = 1 to 0 grows x by e."""
    run("A sampler")
    solver, errors = SOLVERS[name], []
    for steps in (20, 40):
        sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
        state = solver.start(torch.ones(1, 1, 1, 1, 1, dtype=torch.float64))
        for sigma, sigma_next in zip(sigmas, sigmas[1:], strict=False):
            state = solver.step(state, -state.latents, sigma, sigma_next)
        errors.append(abs(state.latents.item() - np.e))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def test_the_sampler_edits(tmp_path: Path) -> None:
    from chronoedit import load

    run("A sampler")
    images = []
    for solver in ("linear", "euler"):
        request = EditRequest(
            image=sample_item(5).input, prompt="remove the ball", seed=1, num_inference_steps=3, solver=solver
        )
        images.append(np.asarray(load("tiny", device="cpu").edit(request).image).astype(int))
    assert images[0].shape == images[1].shape and 0 < np.abs(images[0] - images[1]).mean() < 40


def test_the_dialect_reads_what_it_writes() -> None:
    run("A LoRA dialect")
    layer = LoraLayer(down=torch.randn(2, 6), up=torch.randn(4, 2), alpha=1.0)
    tensors = LORA_DIALECTS["net"].from_ours(LoraWeights(layers={"blocks.3.attn1.to_q": layer}))
    assert {name for name in tensors if "lora_down" in name} == {"net.blocks.3.self_attn.q.lora_down.weight"}
    found = dialect_of(tensors)
    assert found.name == "net"
    back = found.to_ours(tensors, {}).layers["blocks.3.attn1.to_q"]
    assert torch.equal(back.down, layer.down) and torch.equal(back.up, layer.up) and back.alpha == layer.alpha


def test_the_judge_scores() -> None:
    run("A judge")
    item, bench = sample_item(5), BENCHES["imgedit"]
    case, judge = Case(key="5", prompt=item.prompt, image=ItemPicture(item)), open_judge("bold", bench)
    same, inverted = (judge.score(case, Image.fromarray(picture)).scores for picture in (item.input, 255 - item.input))
    assert set(same) == set(bench.criteria) and set(same.values()) == {bench.scale[0]}
    assert all(bench.scale[0] < value <= bench.scale[1] for value in inverted.values())


def test_the_step_cache_reuses_every_other_pass() -> None:
    run("A step cache")
    request = EditRequest(image=sample_item(5).input, prompt="a", step_cache="every-other", num_inference_steps=20)
    assert request.step_cache == "every-other"
    branch, passes = Branch(STEP_CACHES["every-other"](0.0, None), None), []  # type: ignore[arg-type]
    for step in range(7):
        x = torch.randn(2, 3, 4)
        branch.at(Moment(step, 7, 1 - step / 7))(x, lambda x, *blocks, rows=None: x + 1)
        passes.append(branch.computed.tolist())
    assert passes == [[step % 2 == 0] * 2 for step in range(7)]


def test_what_the_page_promises_of_new_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new = blocks("bash", "A scene in one file")[0].splitlines()[0]
    assert main(shlex.split(new)[1:]) == 0 and main(shlex.split(new)[1:]) == 1
    with registered([Path("garden_lamp.py")]) as (file,):
        assert file.families == ("garden_lamp",)
