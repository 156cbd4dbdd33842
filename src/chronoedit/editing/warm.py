"""Compiling before the first step: every kind of pass that a run will make is made once, through the first blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from chronoedit.editing.denoise import Report, Run, Tally
from chronoedit.editing.reason import drop_reasoning_frames
from chronoedit.errors import ChronoEditError
from chronoedit.runtime.compile import BLOCKS_WARMED, first_blocks, warming
from chronoedit.runtime.stepcache import Stage
from chronoedit.sampling.guidance import is_guided

Pass = tuple[Run, Tensor, int]
"""A run, latents of its shape, and one of its steps."""


def warm_up(run: Run, noise: Tensor, shown: Sequence[int], report: Report) -> None:
    """Compile what the run will need, told as the stage "compile"; what is compiled already takes no time.

    `noise` are its first latents, b z t h w; `shown` the rows whose trajectory will be shown.
    Raises ChronoEditError where torch cannot compile the blocks of this model.
    """
    negative = None if run.negative is None else run.negative.first(BLOCKS_WARMED)
    short = replace(
        run,
        transformer=first_blocks(run.transformer),
        positive=run.positive.first(BLOCKS_WARMED),
        negative=negative,
        rule=None,
        tally=Tally(),
    )
    passes = list(_passes(short, noise, shown, rows_split=run.rule is not None and len(noise) > 1))
    for done, (part, latents, step) in enumerate(passes):
        report("compile", done, len(passes))
        try:
            with warming():
                part.velocity(Stage(None), latents, float(part.sigmas[step]), step)
        except TorchDynamoException as error:
            raise ChronoEditError(
                f"torch cannot compile the blocks of this model ({str(error).splitlines()[0]}); edit without compiling"
            ) from error
    report("compile", len(passes), len(passes))


def _passes(run: Run, noise: Tensor, shown: Sequence[int], *, rows_split: bool) -> Iterator[Pass]:
    """One pass of each kind. With `rows_split` a step cache may compute some rows alone."""
    drop_at, state = run.course.drop_at, run.solver.start(noise)
    yield from _kinds(run, state.latents, 0, drop_at)
    if rows_split:
        yield replace(run.of_rows([0]), negative=None), state.latents[:1], 0
    if drop_at is None:
        return
    pruned, condition_latents = drop_reasoning_frames(state, run.condition_latents)
    yield from _kinds(replace(run, condition_latents=condition_latents), pruned.latents, drop_at, None)
    if run.course.trajectory:
        yield from _kinds(run.of_rows(shown), state.latents[list(shown)], drop_at, None)


def _kinds(run: Run, latents: Tensor, start: int, stop: int | None) -> Iterator[Pass]:
    """Of these steps, the first that is guided and the first that is not."""
    guided = [is_guided(scale) for scale in run.scales[start:stop]]
    yield from ((run, latents, start + guided.index(kind)) for kind in (True, False) if kind in guided)
