"""Step caches: passes of the transformer that reuse what an earlier step's pass computed.

Neighbouring steps change little of what the blocks add to the tokens. A pass runs the first block; a rule then says,
row by row, whether the others run too, or what they added in that row's last whole pass is added again. So an edit's
result does not depend on what shares its batch, and each guidance branch has its own past.
All state is in `Stage`, which belongs to one stage of one run: the transformer keeps nothing.

Shapes: b rows, s tokens of this process, d model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from chronoedit.model.dit import ChronoEditDiT, RunBlocks
from chronoedit.model.settings import ModelSettings
from chronoedit.request import parse_step_cache
from chronoedit.runtime.context_parallel import TokenSplit

Facts = tuple[Tensor, ...]
"""What a rule remembers of each row's last whole pass and since; the rows are the first axis of each tensor."""

Total = Callable[[Tensor], Tensor]
"""The sum of a tensor over the processes that share the tokens."""


class Moment(NamedTuple):
    """Where a run is: the step of `total`, and its noise level."""

    step: int
    total: int
    sigma: float


class Rule(Protocol):
    """Decides which rows of a pass reuse their past. `added`, b s d, is what the first block added to the tokens."""

    def facts(self, added: Tensor, moment: Moment) -> Facts:
        """What is remembered of a whole pass."""

    def judge(self, facts: Facts, added: Tensor, moment: Moment, total: Total) -> tuple[Tensor, Facts]:
        """Whether each row may reuse its past, b bool, and what is remembered of it if it does."""


@dataclass(frozen=True, kw_only=True)
class FirstBlock:
    """Reuse while the first block adds nearly what it added in the last whole pass.

    `threshold` bounds the mean absolute change over the mean absolute value then.
    Source: First Block Cache of ParaAttention (github.com/chengzeyi/ParaAttention), after TeaCache (arXiv 2411.19108).
    """

    threshold: float

    def facts(self, added: Tensor, moment: Moment) -> Facts:
        return (added,)

    def judge(self, facts: Facts, added: Tensor, moment: Moment, total: Total) -> tuple[Tensor, Facts]:
        (before,) = facts
        sums = torch.stack([_sum_of_rows((added - before).abs()), _sum_of_rows(before.abs())])  # 2 b
        change, size = total(sums)
        return change / size < self.threshold, facts  # NaN, of 0 by 0 or of broken latents, is no reason to reuse


@dataclass(frozen=True, kw_only=True)
class Mag:
    """Reuse while the magnitude of what is reused has, as measured once for the model, changed little enough.

    `magnitudes` are (sigma, magnitude) pairs, from `calibrated`. At each reuse in a row the error grows by the
    |1 - ratio| of the magnitudes now and at the last whole pass; it stays below `threshold`. At most `most_in_a_row`
    steps reuse; the first `retention` of the steps do not, nor those outside the sigmas that were measured.
    Source: MagCache (arXiv 2506.09045), whose ratios are by step; by sigma they hold for other schedules too.
    """

    threshold: float
    magnitudes: Sequence[tuple[float, float]]
    most_in_a_row: int = 3
    retention: float = 0.2

    def facts(self, added: Tensor, moment: Moment) -> Facts:
        rows = added.shape[0]
        return torch.full((rows,), moment.sigma), torch.zeros(rows), torch.zeros(rows)

    def judge(self, facts: Facts, added: Tensor, moment: Moment, total: Total) -> tuple[Tensor, Facts]:
        sigmas, errors, in_a_row = facts
        now = self._magnitude(moment.sigma)
        ratios = torch.tensor([now / self._magnitude(sigma) for sigma in sigmas.tolist()])
        errors, in_a_row = errors + (1 - ratios).abs(), in_a_row + 1
        may = (errors < self.threshold) & (in_a_row <= self.most_in_a_row)  # NaN outside what was measured: no
        return may & (moment.step >= self.retention * moment.total), (sigmas, errors, in_a_row)

    def _magnitude(self, sigma: float) -> float:
        """At this noise level, log-linear between those that were measured; NaN outside of them."""
        points = sorted(self.magnitudes)
        for (low, at_low), (high, at_high) in zip(points, points[1:], strict=False):
            if low <= sigma <= high:
                part = (sigma - low) / (high - low)
                return math.exp((1 - part) * math.log(at_low) + part * math.log(at_high))
        return math.nan


def _first_block(threshold: float, settings: ModelSettings) -> Rule:
    return FirstBlock(threshold=threshold)


def _mag(threshold: float, settings: ModelSettings) -> Rule:
    if len(settings.mag_ratios) < 2:
        raise ValueError(
            f"step cache 'mag' needs the magnitudes of the model, and {settings.name!r} has none: measure them with "
            "`python benchmarks/step_caches.py --calibrate` and write them into its chronoedit.json as mag_ratios, or "
            "use 'first-block'"
        )
    return Mag(threshold=threshold, magnitudes=settings.mag_ratios)


STEP_CACHES: Mapping[str, Callable[[float, ModelSettings], Rule]] = {"first-block": _first_block, "mag": _mag}
"""How a rule is made from its threshold and the model's settings; named in `request.STEP_CACHE_THRESHOLDS`."""


def step_cache(text: str, settings: ModelSettings) -> Rule:
    """The rule that a request's `step_cache` names. Raises ValueError, also when the model lacks what it needs."""
    name, threshold = parse_step_cache(text)
    return STEP_CACHES[name](threshold, settings)


class Stage:
    """One stage of a run: the pasts of its guidance branches.

    A stage is made where the latents change their frames or rows, and starts without a past. `split` says where the
    tokens are shared by processes, which then decide alike.
    """

    def __init__(self, rule: Rule | None, split: TokenSplit | None = None) -> None:
        self.rule, self.split = rule, split
        self.branches: dict[str, Branch] = {}

    def branch(self, name: str) -> Branch | None:
        """The branch of this name, from its last pass on; None without a rule.

        A name is one set of rows: when guidance ends, its branches' past ends too.
        """
        if self.rule is None:
            return None
        if name == UNGUIDED:
            self.branches = {name: past for name, past in self.branches.items() if name == UNGUIDED}
        return self.branches.setdefault(name, Branch(self.rule, self.split))


UNGUIDED = "unguided"
"""The one branch of steps without guidance."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Of each row's last whole pass: `rest`, b s d, what the blocks after the first added, and the rule's facts."""

    rest: Tensor
    facts: Facts


class Branch:
    """The rows that go through the transformer together, pass by pass; `computed`, b bool: which went all the way."""

    def __init__(self, rule: Rule, split: TokenSplit | None) -> None:
        self.rule, self.split = rule, split
        self.memory: Memory | None = None
        self.computed = torch.zeros(0, dtype=torch.bool)

    def at(self, moment: Moment) -> Callable[[Tensor, RunBlocks], Tensor]:
        """The argument `through` of the transformer's forward, for this moment's pass."""
        return partial(self._through, moment)

    def _through(self, moment: Moment, x: Tensor, run: RunBlocks) -> Tensor:
        y = run(x, 0, 1)  # b s d; where tokens are shared, this process's own, of all that x has
        added = y - (x if self.split is None else self.split.own(x))
        reused, facts_reused = self._judge(added, moment)
        self.computed = ~reused
        facts = self.rule.facts(added, moment)
        if self.memory is None or not reused.any():
            out = run(y, 1)
            self.memory = Memory(rest=out - y, facts=facts)
            return out
        rest, out = self.memory.rest, y + self.memory.rest
        rows = self.computed.nonzero().flatten().to(y.device)
        if len(rows):
            whole = run(y[rows], 1, rows=rows)
            rest, out = rest.index_copy(0, rows, whole - y[rows]), out.index_copy(0, rows, whole)
        self.memory = Memory(rest=rest, facts=_merged(reused, facts_reused, facts))
        return out

    def _judge(self, added: Tensor, moment: Moment) -> tuple[Tensor, Facts]:
        """Which rows reuse, on the CPU. The last step, whose errors nothing mends, is always computed."""
        if self.memory is None or moment.step == moment.total - 1:
            return torch.zeros(added.shape[0], dtype=torch.bool), ()
        total = _alone if self.split is None else self.split.total
        reused, facts = self.rule.judge(self.memory.facts, added, moment, total)
        return reused.cpu(), facts


def _alone(x: Tensor) -> Tensor:
    return x


def _sum_of_rows(x: Tensor) -> Tensor:
    return x.sum(dim=(1, 2), dtype=torch.float32)


def _merged(reused: Tensor, facts_reused: Facts, facts: Facts) -> Facts:
    """The facts of reused rows and those of the computed ones."""
    if reused.all():
        return facts_reused

    def rows(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(reused.to(a.device).view(-1, *[1] * (a.ndim - 1)), a, b)

    return tuple(rows(a, b) for a, b in zip(facts_reused, facts, strict=True))


class Calibration:
    """Ratios of the magnitude of what the blocks after the first add, from one step's passes to the next's."""

    def __init__(self) -> None:
        self.logs: dict[float, list[float]] = {}
        self._sigma = -math.inf
        self._before: list[Tensor] = []
        self._now: list[Tensor] = []

    def record(self, sigma: float, added: Tensor) -> None:
        """One pass: `added` b s d. Passes of one step come in one order; a rise of sigma is the start of a run."""
        if sigma != self._sigma:
            self._before, self._now = ([] if sigma > self._sigma else self._now), []
            self._sigma = sigma
        norms = added.float().norm(dim=-1)  # b s
        before = self._before[len(self._now)] if len(self._before) > len(self._now) else None
        if before is not None and before.shape == norms.shape:
            ratios = (norms / before).mean(dim=1)
            self.logs.setdefault(sigma, []).extend(ratios.log().tolist())
        elif not self._before:
            self.logs.setdefault(sigma, []).extend([0.0] * norms.shape[0])
        self._now.append(norms)

    def magnitudes(self) -> list[tuple[float, float]]:
        """(sigma, magnitude) from the first step on, where it is 1: the settings' `mag_ratios`."""
        sigmas = sorted(self.logs, reverse=True)
        means = [sum(self.logs[sigma]) / len(self.logs[sigma]) for sigma in sigmas]
        return [(sigma, math.exp(log)) for sigma, log in zip(sigmas, accumulate(means), strict=True)]


@contextmanager
def calibrated(transformer: ChronoEditDiT) -> Iterator[Calibration]:
    """Records every pass of the transformer meanwhile: run edits of one schedule, without reasoning, then read it."""
    found, seen = Calibration(), {}

    def start(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen["first"] = output

    def note(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen["last"] = output

    def end(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found.record(float(args[1][0]) / 1000, seen["last"] - seen["first"])  # timesteps are 1000 · sigma

    blocks = transformer.blocks
    hooks = [
        blocks[0].register_forward_hook(start),
        blocks[-1].register_forward_hook(note),
        transformer.register_forward_hook(end),
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
