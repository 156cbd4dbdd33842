"""The denoising of one batch: the guided velocity, the drop of the reasoning frames, the branch that shows them.

Shapes: b batch, z latent channels, c 4 + z condition channels, t latent frames, h w latent height and width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from chronoedit.editing.encode import Encodings, Texts
from chronoedit.editing.finite import check_finite
from chronoedit.editing.reason import Course, drop_reasoning_frames, keep_rows
from chronoedit.model.attention import PromptKV
from chronoedit.model.dit import ChronoEditDiT
from chronoedit.request import Passes
from chronoedit.runtime.context_parallel import TokenSplit
from chronoedit.runtime.edit_processes import EditProcesses
from chronoedit.runtime.plan_facts import MAX_TOKENS_BATCHED
from chronoedit.runtime.stepcache import UNGUIDED, Moment, Rule, Stage
from chronoedit.sampling.guidance import guide, is_guided
from chronoedit.sampling.loop import denoise
from chronoedit.sampling.solvers import Solver, SolverState

Report = Callable[[str, int, int], None]
"""`report(stage, done, total)`; may raise to stop the edit."""


class Tally:
    """Counts the passes of each edit."""

    def __init__(self) -> None:
        self._computed: Counter[int] = Counter()
        self._total: Counter[int] = Counter()

    def add(self, owners: Sequence[int], computed: Tensor) -> None:
        """One pass a row: the edit that it belongs to, and whether it was computed whole."""
        self._total.update(owners)
        self._computed.update(owner for owner, whole in zip(owners, computed.tolist(), strict=True) if whole)

    def of(self, edit: int) -> Passes:
        """What was counted of one edit."""
        return Passes(self._computed[edit], self._total[edit])


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that a denoising run needs but the latents: `condition_latents` b c t h w, the prompts, the schedule.

    `timesteps` [N] are what the transformer is told, `sigmas` [N + 1] what the solver steps over, `scales` [N] the
    guidance; `negative` is None when no step is guided. `owners` [b] are the edits of the rows, for which passes are
    counted in `tally`. `rule` is that of the step cache. `processes` are those that share this run, `split` says which
    tokens are this one's.
    """

    transformer: ChronoEditDiT
    condition_latents: Tensor
    positive: PromptKV
    negative: PromptKV | None
    sigmas: Tensor
    timesteps: Tensor
    scales: Sequence[float]
    solver: Solver
    course: Course
    owners: Sequence[int]
    rule: Rule | None = None
    split: TokenSplit | None = None
    processes: EditProcesses | None = None
    tally: Tally = field(default_factory=Tally)

    def velocity(self, stage: Stage, latents: Tensor, sigma: float, step: int) -> Tensor:
        """dx/dσ, guided where the step's scale is above 1: b z t h w, the latents' dtype; `stage` is the only state."""
        model_input = torch.cat([latents, self.condition_latents], dim=1).to(self.transformer.dtype)  # b z+c t h w
        forward = partial(self._forward, stage, Moment(step, self.course.num_steps, sigma))
        scale = self.scales[step]
        if self.negative is None or not is_guided(scale):
            return self._counted(*forward(UNGUIDED, model_input, self.positive)).to(latents.dtype)
        if self.processes is not None and self.processes.layout.branches == 2:
            mine = self.negative if self.processes.branch else self.positive
            cond, uncond = self._exchanged(*forward("guided", model_input, mine))
        elif self._tokens(latents) <= MAX_TOKENS_BATCHED:
            both = forward("guided", torch.cat([model_input, model_input]), self._both)
            cond, uncond = self._counted(*both).chunk(2)
        else:
            cond = self._counted(*forward("positive", model_input, self.positive))
            uncond = self._counted(*forward("negative", model_input, self.negative))
        return guide(cond, uncond, scale).to(latents.dtype)

    def denoise(self, noise: Tensor, report: Report) -> tuple[Tensor, SolverState]:
        """Final latents b z t h w, of two frames where the others are dropped; and the last state of all frames.

        That state is where `trajectory` goes on from: the one at the drop, or the final one when nothing is dropped.
        Raises NotFinite, naming the step, when the latents are no longer finite.
        """
        drop_at = self.course.drop_at
        whole = self._steps(self.solver.start(noise), report, "denoise", stop=drop_at)
        if drop_at is None:
            return whole.latents, whole
        state, condition_latents = drop_reasoning_frames(whole, self.condition_latents)
        return replace(self, condition_latents=condition_latents)._steps(state, report, "denoise").latents, whole

    def trajectory(self, state: SolverState, rows: Sequence[int], report: Report) -> Tensor:
        """Final latents b z t h w of all frames for these rows, from the state that `denoise` gave, on its schedule."""
        return self.of_rows(rows)._steps(keep_rows(state, rows), report, "trajectory").latents

    def of_rows(self, rows: Sequence[int]) -> Run:
        """The run of only these rows of the batch."""
        positive, negative = select_prompts(self.positive, self.negative, rows)
        condition_latents = self.condition_latents[list(rows)]  # b c t h w
        owners = [self.owners[row] for row in rows]
        return replace(self, condition_latents=condition_latents, positive=positive, negative=negative, owners=owners)

    @cached_property
    def _both(self) -> PromptKV:
        assert self.negative is not None
        return PromptKV.cat([self.positive, self.negative])

    def _steps(self, state: SolverState, report: Report, stage: str, *, stop: int | None = None) -> SolverState:
        """From the step that the state is at to `stop`, or to the end; progress counts the stage's own steps."""
        start, total = state.step, self.course.num_steps
        done_before = start if stage == "trajectory" else 0

        def on_step(step: int, state: SolverState) -> None:
            where = f"after step {step + 1} of {total} ({stage}, guidance {self.scales[step]:g}"
            check_finite(state.latents, "the latents", where)
            report(stage, step + 1 - done_before, total - done_before)

        if start == done_before:
            report(stage, 0, total - done_before)
        velocity = partial(self.velocity, Stage(self.rule, self.split))
        return denoise(velocity, state, self.sigmas, self.solver, start=start, stop=stop, on_step=on_step)

    def _forward(
        self, stage: Stage, moment: Moment, name: str, model_input: Tensor, prompts: PromptKV
    ) -> tuple[Tensor, Tensor]:
        """Velocity of each row, and whether it was computed whole, b bool on the CPU. `name` is the rows' branch."""
        rows = model_input.shape[0]
        timesteps = self.timesteps[moment.step].to(model_input.device).expand(rows)
        branch = stage.branch(name)
        through = {} if branch is None else {"through": branch.at(moment)}
        velocity = self.transformer(model_input, timesteps, None, prompt_kv=prompts, return_dict=False, **through)[0]
        return velocity, torch.ones(rows, dtype=torch.bool) if branch is None else branch.computed

    def _counted(self, velocity: Tensor, computed: Tensor) -> Tensor:
        """The velocity, of the rows or of both branches of them, whose passes are counted."""
        self.tally.add([*self.owners] * (len(computed) // len(self.owners)), computed)
        return velocity

    def _exchanged(self, velocity: Tensor, computed: Tensor) -> tuple[Tensor, Tensor]:
        """Both branches' velocities, of which this process has one; their passes are counted alike on both."""
        assert self.processes is not None
        flags = (computed, computed)
        if self.rule is not None:
            flags = self.processes.both(computed.to(velocity.device, torch.uint8))
        for of_branch in flags:
            self._counted(velocity, of_branch)
        return self.processes.both(velocity)

    def _tokens(self, latents: Tensor) -> int:
        _, patch_height, patch_width = self.transformer.config.patch_size
        batch, _, frames, height, width = latents.shape
        return batch * frames * (height // patch_height) * (width // patch_width)


def prompt_kv(
    transformer: ChronoEditDiT, encodings: Encodings, *, collapse_padding: bool
) -> tuple[PromptKV, PromptKV | None]:
    """Keys and values of the prompts and of the negative prompts, a row an edit; the image's serve both."""
    dtype = transformer.dtype

    def keys(texts: Texts, image_embeds: Tensor | None) -> PromptKV:
        lengths = texts.lengths if collapse_padding else None
        return transformer.prompt_kv(texts.embeds.to(dtype), image_embeds, text_lengths=lengths)

    image_embeds = None if encodings.image_embeds is None else encodings.image_embeds.to(dtype)
    positive = keys(encodings.positive, image_embeds)
    if encodings.negative is None:
        return positive, None
    # An empty batch of images: the transformer wants image embeds, and their keys are there already.
    none = None if image_embeds is None else image_embeds[:0]
    return positive, replace(keys(encodings.negative, none), image=positive.image)


def select_prompts(
    positive: PromptKV, negative: PromptKV | None, rows: Sequence[int]
) -> tuple[PromptKV, PromptKV | None]:
    """Both prompts of these rows, with one copy of the image's keys and values between them."""
    if list(rows) == list(range(positive.batch_size)):
        return positive, negative
    chosen = positive.select(rows)
    if negative is None:
        return chosen, None
    return chosen, replace(replace(negative, image=None).select(rows), image=chosen.image)
