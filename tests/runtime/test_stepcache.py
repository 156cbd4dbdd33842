"""The rules of step caches on numbers that can be checked by hand, and the state that a stage keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from chronoedit.model.dit import ChronoEditDiT
from chronoedit.model.settings import ModelSettings
from chronoedit.request import STEP_CACHE_THRESHOLDS
from chronoedit.runtime.stepcache import (
    STEP_CACHES,
    UNGUIDED,
    Calibration,
    FirstBlock,
    Mag,
    Moment,
    Rule,
    Stage,
    calibrated,
    step_cache,
)

CURVE = ((1.0, 1.0), (0.5, 1.1), (0.25, 1.21))
SETTINGS = ModelSettings(name="measured", mag_ratios=CURVE)


class Blocks:
    """Two blocks that multiply tokens, and a record of which ran on how many rows."""

    def __init__(self, first: float = 2.0, second: float = 3.0) -> None:
        self.factors = [first, second]
        self.ran: list[tuple[int, int]] = []

    def __call__(self, x: Tensor, start: int = 0, stop: int | None = None, *, rows: Tensor | None = None) -> Tensor:
        for index in range(2)[start:stop]:
            assert rows is None or len(rows) == len(x)
            self.ran.append((index, len(x)))
            x = x * self.factors[index]
        return x


def tokens(*values: float) -> Tensor:
    """A row a value, of two tokens of width three."""
    return torch.tensor(values)[:, None, None].expand(-1, 2, 3).clone()


def moment(step: int, total: int = 20, sigma: float = 0.5) -> Moment:
    return Moment(step, total, sigma)


def passed(stage: Stage, at: Moment, x: Tensor, blocks: Blocks, name: str = "positive") -> tuple[Tensor, list[bool]]:
    branch = stage.branch(name)
    assert branch is not None
    return branch.at(at)(x, blocks), branch.computed.tolist()


def test_every_rule_has_a_threshold_and_no_threshold_lacks_a_rule() -> None:
    assert set(STEP_CACHES) == set(STEP_CACHE_THRESHOLDS)
    for name, threshold in STEP_CACHE_THRESHOLDS.items():
        assert step_cache(name, SETTINGS) == step_cache(f"{name}:{threshold}", SETTINGS)
    assert step_cache("mag:0.02", SETTINGS) == Mag(threshold=0.02, magnitudes=CURVE)
    assert step_cache("first-block:0.3", ModelSettings(name="any")) == FirstBlock(threshold=0.3)


def test_mag_is_refused_where_the_model_has_no_magnitudes() -> None:
    with pytest.raises(ValueError, match="'unmeasured' has none: measure them"):
        step_cache("mag", ModelSettings(name="unmeasured"))


@pytest.mark.parametrize("pairs", [[1.0, 2.0], [[1.0]], [[0.5, math.nan]], [[0.5, -1.0]], 3])
def test_magnitudes_are_pairs(pairs: Any) -> None:
    with pytest.raises(ValueError, match="mag_ratios has"):
        ModelSettings(name="x", mag_ratios=pairs)
    assert ModelSettings(name="x", mag_ratios=[[1, 2]]).mag_ratios == ((1.0, 2.0),)  # type: ignore[arg-type]


def test_first_block_reuses_what_the_others_added_then() -> None:
    stage, blocks = Stage(FirstBlock(threshold=0.11)), Blocks()
    out, computed = passed(stage, moment(0), tokens(1.0, 1.0), blocks)
    assert torch.equal(out, tokens(6.0, 6.0)) and computed == [True, True]
    # The first block adds x: 10 % more in row 0 is reused (2 · 1.1 + the 4 of then), 20 % more in row 1 is not.
    out, computed = passed(stage, moment(1), tokens(1.1, 1.2), blocks)
    assert torch.allclose(out, tokens(6.2, 7.2)) and computed == [False, True]
    # Each row is compared with its own last whole pass: 1.0 of row 0, and 1.2 of row 1.
    out, computed = passed(stage, moment(2), tokens(1.15, 1.3), blocks)
    assert torch.allclose(out, tokens(6.9, 2.6 + 4.8)) and computed == [True, False]
    assert blocks.ran == [(0, 2), (1, 2), (0, 2), (1, 1), (0, 2), (1, 1)]


def test_a_pass_that_reuses_all_runs_the_first_block_only() -> None:
    stage, blocks = Stage(FirstBlock(threshold=0.5)), Blocks()
    passed(stage, moment(0), tokens(1.0), blocks)
    blocks.ran.clear()
    _, computed = passed(stage, moment(1), tokens(1.0), blocks)
    assert computed == [False] and blocks.ran == [(0, 1)]


@pytest.mark.parametrize("rule", [FirstBlock(threshold=0.0), Mag(threshold=0.0, magnitudes=((1.0, 1.0), (0.1, 1.0)))])
def test_threshold_0_reuses_nothing_even_of_equal_steps(rule: Rule) -> None:
    stage, blocks = Stage(rule), Blocks()
    assert all(passed(stage, moment(step), tokens(1.0), blocks)[1] == [True] for step in range(20))


@pytest.mark.parametrize("rule", [FirstBlock(threshold=1.0), Mag(threshold=1.0, magnitudes=CURVE)])
def test_the_last_step_and_the_first_of_a_stage_are_computed(rule: Rule) -> None:
    for start in (0, 10):
        stage, blocks = Stage(rule), Blocks()
        computed = [passed(stage, moment(step), tokens(1.0), blocks)[1][0] for step in range(start, 20)]
        assert computed[0] and computed[-1] and sum(computed) < len(computed)


def test_branches_and_stages_have_their_own_past() -> None:
    rule, blocks = FirstBlock(threshold=1.0), Blocks()
    stage = Stage(rule)
    passed(stage, moment(0), tokens(1.0), blocks, "positive")
    assert passed(stage, moment(0), tokens(1.0), blocks, "negative")[1] == [True]
    assert passed(stage, moment(1), tokens(1.0), blocks, "negative")[1] == [False]
    assert passed(Stage(rule), moment(1), tokens(1.0), blocks, "positive")[1] == [True]
    assert passed(stage, moment(2), tokens(1.0), blocks, UNGUIDED)[1] == [True]
    assert list(stage.branches) == [UNGUIDED]
    assert Stage(None).branch("positive") is None


def test_broken_tokens_are_computed_not_reused() -> None:
    stage, blocks = Stage(FirstBlock(threshold=1.0)), Blocks()
    passed(stage, moment(0), tokens(1.0, 0.0), blocks)
    assert passed(stage, moment(1), tokens(math.nan, 0.0), blocks)[1] == [True, True]


def test_mag_adds_up_errors_between_whole_passes() -> None:
    """At a tenth a step in magnitude the errors are 0.1, 0.21: the second is above 0.25 when added up."""
    stage, blocks = Stage(Mag(threshold=0.25, magnitudes=CURVE, retention=0.0)), Blocks()
    found = [passed(stage, moment(1, sigma=sigma), tokens(1.0), blocks)[1][0] for sigma in (1.0, 0.5, 0.25)]
    assert found == [True, False, True]
    wider = Stage(Mag(threshold=0.32, magnitudes=CURVE, retention=0.0))
    found = [passed(wider, moment(1, sigma=sigma), tokens(1.0), blocks)[1][0] for sigma in (1.0, 0.5, 0.25)]
    assert found == [True, False, False]


def test_mag_reuses_a_few_steps_in_a_row_and_none_early() -> None:
    stage, blocks = Stage(Mag(threshold=1.0, magnitudes=CURVE)), Blocks()
    computed = [passed(stage, moment(step), tokens(1.0), blocks)[1][0] for step in range(12)]
    assert computed == [True] * 4 + [False, False, False, True, False, False, False, True]


def test_mag_computes_outside_what_was_measured() -> None:
    stage, blocks = Stage(Mag(threshold=1.0, magnitudes=CURVE, retention=0.0)), Blocks()
    found = [passed(stage, moment(1, sigma=sigma), tokens(1.0), blocks)[1][0] for sigma in (0.3, 0.2, 0.3, 0.3)]
    assert found == [True, True, True, False]


def test_calibration_finds_the_growth_from_step_to_step() -> None:
    """Two edits, two passes a step of one and two rows; the magnitude grows by a tenth, then by a fifth."""
    found = Calibration()
    for _ in range(2):
        for sigma, size in ((1.0, 1.0), (0.5, 1.1), (0.25, 1.32)):
            found.record(sigma, tokens(5 * size))
            found.record(sigma, tokens(7 * size, 9 * size))
    sigmas, magnitudes = zip(*found.magnitudes(), strict=True)
    assert sigmas == (1.0, 0.5, 0.25)
    assert magnitudes == pytest.approx((1.0, 1.1, 1.32))


class Alternate:
    """Reuses every second row, the others at the next step."""

    def facts(self, added: Tensor, moment: Moment) -> tuple[Tensor, ...]:
        return (torch.zeros(added.shape[0]),)

    def judge(self, facts: Any, added: Tensor, moment: Moment, total: Any) -> tuple[Tensor, Any]:
        return (torch.arange(added.shape[0]) + moment.step) % 2 == 0, facts


@pytest.mark.parametrize("ahead", [False, True])
def test_rows_of_a_transformer_are_as_in_a_pass_of_their_own(ahead: bool) -> None:
    """With prompts of several lengths, projected ahead or by the blocks."""
    torch.manual_seed(0)
    model = ChronoEditDiT(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=16,
        freq_dim=32,
        ffn_dim=32,
        num_layers=3,
    ).requires_grad_(False)
    latents, text, lengths = torch.randn(3, 16, 2, 4, 4), torch.randn(3, 5, 16), torch.tensor([2, 5, 4])
    text[torch.arange(5) >= lengths[:, None]] = 0
    stage = Stage(Alternate())
    branch = stage.branch("positive")
    assert branch is not None

    def velocity(step: int, rows: list[int], through: Any = None) -> Tensor:
        timesteps = torch.full((len(rows),), 900.0 - 50 * step)
        states, kept = (None, None) if ahead else (text[rows], lengths[rows])
        kv = model.prompt_kv(text[rows], text_lengths=lengths[rows]) if ahead else None
        x = latents[rows] * (1 + 0.1 * step)
        return model(x, timesteps, states, prompt_kv=kv, text_lengths=kept, through=through, return_dict=False)[0]

    for step in range(4):
        found = velocity(step, [0, 1, 2], branch.at(moment(step, total=4)))
        for row, computed in enumerate(branch.computed.tolist()):
            alone = velocity(step, [row])[0]
            assert torch.allclose(found[row], alone, atol=1e-5) == computed, (step, row)


class Doubling(nn.Module):
    """Blocks like those of a transformer, whose tokens are its hidden states."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), nn.Linear(3, 3, bias=False)])
        self.blocks[1].weight = nn.Parameter(3 * torch.eye(3))  # adds twice its input

    def forward(self, x: Tensor, timestep: Tensor) -> tuple[Tensor]:
        for block in self.blocks:
            x = block(x)
        return (x,)


def test_calibration_watches_a_transformer_and_lets_go() -> None:
    model = Doubling().requires_grad_(False)
    with calibrated(model) as found:  # type: ignore[arg-type]
        for timestep, value in ((900.0, 1.0), (600.0, 1.5)):
            model(tokens(value), torch.tensor([timestep]))
    assert found.magnitudes() == [(0.9, pytest.approx(1.0)), (0.6, pytest.approx(1.5))]
    assert not any(module._forward_hooks for module in model.modules())
