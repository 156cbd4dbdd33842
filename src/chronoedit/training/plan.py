"""What a training will take, before it starts: bytes by where they lie, and FLOPs a step.

All of it is arithmetic on the sizes of the model and the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from chronoedit.runtime.plan_facts import Shape

FP32, BF16 = 4, 2
SLOTS = {"adamw": 2, "muon": 1, "sgd": 0}
"""Tensors of a weight's size that an optimiser keeps; the blocks' matrices count, which muon has."""

GRADIENTS, LOADED = "gradients", "weights while they are loaded"

EFFICIENCY = 0.6
"""A training's share of the speed of one large matrix product: norms, attention and small products are slower."""

# Bytes that a block keeps for its backward pass, by what is trained and in which type is computed: for each video
# token and channel of the width, video token and channel of the feed-forward, prompt token and channel, and (added)
# video token and channel where there is an image branch. Counted from the code; a test counts again.
KEPT = {
    ("lora", "fp32"): (60, 8, 12, 8),
    ("lora", "bf16"): (64, 6, 16, 2),
    ("full", "fp32"): (88, 8, 16, 8),
    ("full", "bf16"): (68, 4, 12, 4),
}
KEPT_BY_ENDS = {"lora": 1, "full": 16}  # before and after the blocks, a video token and channel
KEPT_BY_FACTORS = 32  # a video token and rank: eight layers a block, fp32

# On a CPU, how much of what comes and goes in a step is lost between blocks, by kind and checkpointing: measured with
# glibc 2.36, whose aligned blocks leave holes. MALLOC_MMAP_THRESHOLD_=65536 takes it away, with up to half the speed.
HEAP_LOSS = {("lora", False): 2.3, ("lora", True): 4.0, ("full", False): 0.9, ("full", True): 2.6}


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What a training is made of; each number is one process's.

    `trained` parameters in fp32, with `slots` of the optimiser and `averages`, each as large. The frozen base of a
    LoRA lies in `base_bytes` a weight (4 fp32, 2 bf16, 1 int8 or fp8). `compute` is what the blocks compute in: the
    type of a LoRA's base, or what all weights are cast to. `tokens` and `prompt_tokens` (text, and image where there
    is a branch) are those of one example of the largest bucket. `swapped_blocks` stay in main memory until they are
    used. Weights are cut over `shards` processes, tokens shared by `context` ones. `host_is_device` on a CPU.
    """

    shape: Shape
    kind: Literal["lora", "full"]
    trained: int
    tokens: int
    prompt_tokens: int
    batch_size: int = 1
    accumulation: int = 1
    compute: Literal["fp32", "bf16"] = "fp32"
    base_bytes: float = FP32
    rank: int = 0
    slots: int = 2
    averages: int = 0
    checkpointing: bool = False
    checkpoint_offload: bool = False
    swapped_blocks: int = 0
    shards: int = 1
    context: int = 1
    host_is_device: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a plan."""

    what: str
    where: Literal["device", "host"]
    bytes: int


@dataclass(frozen=True)
class TrainingPlan:
    """The rows of the moment that takes most, and the work of a step."""

    facts: TrainingFacts
    rows: tuple[Row, ...]
    flops_a_step: float

    @property
    def device_bytes(self) -> int:
        """The most that lies on the device at once."""
        return sum(row.bytes for row in self.rows if row.where == "device")

    @property
    def host_bytes(self) -> int:
        """What lies in main memory besides."""
        return sum(row.bytes for row in self.rows if row.where == "host")

    def seconds(self, steps: int, flops_per_s: float) -> float:
        """About how long so many steps take, given the speed of a matrix product (see `machine.measure_throughput`)."""
        return steps * self.flops_a_step / (flops_per_s * EFFICIENCY)

    def lines(self) -> list[str]:
        """The plan as text, a row a line, and the totals."""
        rows = [f"{row.bytes / 1e9:9.2f} GB  {row.where:<6}  {row.what}" for row in self.rows]
        totals = [f"{self.device_bytes / 1e9:9.2f} GB  device  in all"]
        if self.host_bytes:
            totals.append(f"{self.host_bytes / 1e9:9.2f} GB  host    in all")
        return [*rows, *totals]


def make_plan(facts: TrainingFacts) -> TrainingPlan:
    """What a training of these facts takes at most at once, and computes in a step."""
    moments = (_forward(facts), _backward_begins(facts), _backward_ends(facts))
    fullest = max(moments, key=lambda rows: sum(row.bytes for row in rows if row.where == "device"))
    rows = [*_held(facts), *fullest]
    if facts.host_is_device:
        coming_and_going = sum(row.bytes for row in fullest if row.what != GRADIENTS)
        loss = round(HEAP_LOSS[facts.kind, facts.checkpointing] * coming_and_going)
        rows = [replace(row, where="device") for row in rows if row.what != LOADED]
        rows.append(Row("lost between blocks of memory", "device", loss))
        loading = [Row(LOADED, "device", _loaded(facts))]
        if facts.kind == "lora":  # what is made smaller lies there twice
            loading.append(Row("weights of the base", "device", round(facts.base_bytes * facts.shape.parameters)))
        rows = max(rows, loading, key=lambda each: sum(row.bytes for row in each))
    return TrainingPlan(facts, tuple(row for row in rows if row.bytes), _flops(facts))


def _held(facts: TrainingFacts) -> list[Row]:
    """What lies there from the first step to the last."""
    shape, trained = facts.shape, FP32 * facts.trained // facts.shards
    rows = []
    if facts.kind == "lora":
        here, waiting = shape.layers - facts.swapped_blocks, facts.swapped_blocks
        ends = shape.end_parameters * max(facts.base_bytes, BF16)
        rows.append(
            Row("weights of the base", "device", round(here * shape.block_parameters * facts.base_bytes + ends))
        )
        if waiting:  # one matrix is fetched at a time
            largest = round(shape.width * shape.ffn_dim * facts.base_bytes)
            rows.append(Row("a weight that was fetched", "device", largest))
            rows.append(Row("blocks that wait", "host", waiting * _pinned_block(facts)))
    elif facts.shards > 1:
        # two blocks are whole at a time, the one that is used and the next, and the ends always
        size = BF16 if facts.compute == "bf16" else FP32
        whole = (2 * shape.block_parameters + shape.end_parameters) * size
        rows.append(Row("weights gathered from the other processes", "device", whole))
    rows.append(Row("weights in training", "device", trained))
    rows.append(Row("state of the optimiser", "device", facts.slots * trained))
    rows.append(Row("averaged weights", "device", facts.averages * trained))
    if facts.accumulation > 1:
        rows.append(Row(GRADIENTS, "device", trained))
    if facts.checkpoint_offload:
        rows.append(Row("inputs of the blocks", "host", _inputs(facts)))
    later = sum(row.bytes for row in rows if row.where == "host")  # which comes once loading is done
    return [*rows, Row(LOADED, "host", max(0, _loaded(facts) - later))]


def _loaded(facts: TrainingFacts) -> int:
    """Bytes of weights that are read into main memory first: all of them, where they do not go as they are."""
    if facts.kind == "full":
        return FP32 * facts.shape.parameters
    size = FP32 if facts.compute == "fp32" else BF16
    return size * facts.shape.parameters if facts.base_bytes < size or facts.swapped_blocks else 0


def _pinned_block(facts: TrainingFacts) -> int:
    """Bytes of a block's matrices in pinned memory, which torch hands out in powers of two."""
    shape = facts.shape
    sizes = [shape.width**2] * (10 if shape.image_branch else 8) + [shape.width * shape.ffn_dim] * 2
    return sum(1 << (round(size * facts.base_bytes) - 1).bit_length() for size in sizes)


def _forward(facts: TrainingFacts) -> list[Row]:
    """The end of the forward pass, when all weights have been cast and all activations are kept."""
    return [Row("weights cast to bf16", "device", _cast(facts, facts.shape.parameters)), *_kept(facts)]


def _backward_begins(facts: TrainingFacts) -> list[Row]:
    rows = [*_kept(facts), *_one_block(facts)]
    if not facts.checkpointing:  # then what was cast is kept for the backward pass too
        rows.append(Row("weights cast to bf16", "device", _cast(facts, facts.shape.parameters)))
    return rows


def _backward_ends(facts: TrainingFacts) -> list[Row]:
    gradients = FP32 * facts.trained // facts.shards if facts.accumulation == 1 else 0
    return [Row(GRADIENTS, "device", gradients), *_one_block(facts)]


def _kept(facts: TrainingFacts) -> list[Row]:
    """Activations that wait for the backward pass."""
    ends = KEPT_BY_ENDS[facts.kind] * _tokens(facts) * facts.shape.width
    if not facts.checkpointing:
        return [Row("activations", "device", facts.shape.layers * _block_bytes(facts) + ends)]
    inputs = 0 if facts.checkpoint_offload else _inputs(facts)
    return [Row("inputs of the blocks", "device", inputs), Row("activations of the ends", "device", ends)]


def _inputs(facts: TrainingFacts) -> int:
    size = FP32 if facts.compute == "fp32" else BF16
    return facts.shape.layers * _tokens(facts) * facts.shape.width * size


def _one_block(facts: TrainingFacts) -> list[Row]:
    """A block on its way back: its activations once more where they were not kept, and what it works in."""
    size = FP32 if facts.compute == "fp32" else BF16
    working = _tokens(facts) * (3 * size * facts.shape.ffn_dim + 6 * FP32 * facts.shape.width)
    again = _block_bytes(facts) if facts.checkpointing else 0
    cast = _cast(facts, facts.shape.block_parameters) if facts.checkpointing else 0
    sharded = FP32 * facts.shape.block_parameters if facts.shards > 1 else 0
    return [
        Row("activations of a block, computed again", "device", again),
        Row("a block's weights, cast or gathered", "device", cast + sharded),
        Row("room to work in", "device", working),
    ]


def _block_bytes(facts: TrainingFacts) -> int:
    """Bytes that a block keeps for its backward pass."""
    width_bytes, ffn_bytes, prompt_bytes, image_bytes = KEPT[facts.kind, facts.compute]
    shape = facts.shape
    per_token = (width_bytes + image_bytes * shape.image_branch) * shape.width + ffn_bytes * shape.ffn_dim
    per_token += KEPT_BY_FACTORS * facts.rank
    prompts = facts.batch_size * facts.prompt_tokens * prompt_bytes * shape.width
    return _tokens(facts) * per_token + prompts


def _tokens(facts: TrainingFacts) -> int:
    """Video tokens that this process works on at once."""
    return -(-facts.batch_size * facts.tokens // facts.context)


def _cast(facts: TrainingFacts, parameters: int) -> int:
    """Bytes of fp32 weights that autocast keeps in bf16; sharded ones are gathered in it."""
    return BF16 * parameters if facts.kind == "full" and facts.compute == "bf16" and facts.shards == 1 else 0


def _flops(facts: TrainingFacts) -> float:
    """Floating point operations of one process in a step, two a product and sum.

    Per block: queries, keys, values and outputs of self-attention, queries and outputs of cross-attention, the
    feed-forward; attention itself. Backward, each product of a frozen weight is done once, of a trained one twice, and
    attention two and a half times; checkpointing adds one forward.
    """
    shape, again = facts.shape, int(facts.checkpointing)
    tokens, prompts = facts.tokens, facts.prompt_tokens
    products = tokens * (12 * shape.width**2 + 4 * shape.width * shape.ffn_dim) + prompts * 4 * shape.width**2
    attention = 4 * tokens * (tokens + prompts) * shape.width
    linear_passes = (2 if facts.kind == "lora" else 3) + again
    block = products * linear_passes + attention * (3.5 + again)
    factors = 2 * facts.trained * tokens * (3 + again) if facts.kind == "lora" else 0
    examples = facts.batch_size * facts.accumulation / facts.context
    return examples * (shape.layers * block + factors)
