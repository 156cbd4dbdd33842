"""Whether a planned training fits the memory there is; if not, what would make it fit, by planning anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from chronoedit.errors import TrainingError
from chronoedit.training.plan import TrainingFacts, TrainingPlan, make_plan

SWAP_STEPS = 10  # in as many steps blocks are taken away from the device, until none is left
SHOWN = 4  # ways out that a refusal offers at most; of those that are several remedies together, two


@dataclass(frozen=True)
class Remedy:
    """A change that lets a training fit: `candidates` yields it from mild to strong, in words and as facts."""

    name: str
    candidates: Callable[[TrainingFacts], Iterator[tuple[str, TrainingFacts]]]


def _checkpointing(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    if not facts.checkpointing:
        yield "gradient checkpointing (--use-gradient-checkpointing)", replace(facts, checkpointing=True)


def _offload(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    if not facts.checkpoint_offload and not facts.host_is_device:
        words = "checkpoints in main memory (--use-gradient-checkpointing-offload)"
        yield words, replace(facts, checkpointing=True, checkpoint_offload=True)


def _quantise(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    if facts.kind == "lora" and facts.base_bytes > 1:
        yield "a base in 8 bits (--base-precision fp8 or int8)", replace(facts, base_bytes=1)


def _swap(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    if facts.kind == "lora" and not facts.host_is_device:
        step = -(-facts.shape.layers // SWAP_STEPS)
        for blocks in range(facts.swapped_blocks + step, facts.shape.layers + 1, step):
            yield f"blocks that wait in main memory (--blocks-to-swap {blocks})", replace(facts, swapped_blocks=blocks)


def _batch(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    size, forwards = facts.batch_size, facts.accumulation
    while size > 1:
        size, forwards = size // 2, forwards * 2
        words = f"--batch-size {size} (with --gradient-accumulation-steps {forwards})"
        yield words, replace(facts, batch_size=size, accumulation=forwards)


def _pixels(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    for share in (0.75, 0.5, 0.25):
        words = f"pictures of {share:g} of the height and width (--height, --width)"
        yield words, replace(facts, tokens=max(1, round(facts.tokens * share**2)))


def _shards(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    if facts.kind == "full":
        for count in (2, 4, 8, 16, 32, 64):
            if count > facts.shards:
                words = f"{count} processes that share the weights (torchrun --nproc_per_node, --strategy fsdp)"
                yield words, replace(facts, shards=count)


def _context(facts: TrainingFacts) -> Iterator[tuple[str, TrainingFacts]]:
    if facts.kind == "full":
        for count in (2, 4, 8):
            if count > facts.context and facts.shape.heads % count == 0:
                yield (
                    f"{count} processes that share the tokens (--context-parallel {count})",
                    replace(facts, context=count, shards=max(count, facts.shards)),
                )


REMEDIES = (
    Remedy("checkpointing", _checkpointing),
    Remedy("offload", _offload),
    Remedy("quantise", _quantise),
    Remedy("swap", _swap),
    Remedy("batch", _batch),
    Remedy("pixels", _pixels),
    Remedy("shards", _shards),
    Remedy("context", _context),
)
"""In the order in which they cost least."""


def check(
    plan: TrainingPlan, device_free_bytes: int, host_free_bytes: int, remedies: Sequence[Remedy] = REMEDIES
) -> None:
    """Raise TrainingError when the plan does not fit: what it needs, what there is, and what would make it fit.

    Each remedy is planned anew. Named are those that do alone, in their order; where none does, those of which the
    fewest do together.
    """

    def fits(facts: TrainingFacts) -> bool:
        planned = make_plan(facts)
        return planned.device_bytes <= device_free_bytes and planned.host_bytes <= host_free_bytes

    if fits(plan.facts):
        return
    largest = sorted((row for row in plan.rows if row.where == "device"), key=lambda row: -row.bytes)[:3]
    message = (
        f"this training needs about {_needs(plan)} and {_gb(device_free_bytes)} are free (main memory: "
        f"{_gb(host_free_bytes)}); most are {', '.join(f'{row.what} {_gb(row.bytes)}' for row in largest)}. "
    )
    for count in range(1, len(remedies) + 1):
        chosen = [found for some in combinations(remedies, count) if (found := _first(plan.facts, some, fits))]
        if chosen:
            offers = [
                f"{' and '.join(words)}: {_needs(make_plan(facts))}"
                for words, facts in chosen[: SHOWN if count == 1 else 2]
            ]
            raise TrainingError(f"{message}It would fit with {'; or with '.join(offers)}")
    raise TrainingError(f"{message}Nothing that could be changed here makes it fit; use a larger device")


def _first(
    facts: TrainingFacts, remedies: Sequence[Remedy], fits: Callable[[TrainingFacts], bool]
) -> tuple[list[str], TrainingFacts] | None:
    """The mildest way to take all of these remedies that fits: its words and facts."""
    return next((each for each in _taken(facts, remedies) if fits(each[1])), None)


def _taken(facts: TrainingFacts, remedies: Sequence[Remedy]) -> Iterator[tuple[list[str], TrainingFacts]]:
    """Every way to take all of these remedies, one on top of the other."""
    if not remedies:
        yield [], facts
        return
    for words, changed in remedies[0].candidates(facts):
        for more, final in _taken(changed, remedies[1:]):
            yield [words, *more], final


def _needs(plan: TrainingPlan) -> str:
    host = f" and {_gb(plan.host_bytes)} of main memory" if plan.host_bytes else ""
    return f"{_gb(plan.device_bytes)}{host}"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
