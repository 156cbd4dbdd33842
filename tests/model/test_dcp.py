"""Training checkpoints: written by torch.distributed.checkpoint itself, read bit for bit; hostile and damaged ones."""

from __future__ import annotations

import json
import os
import pickle
import random
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING, Metadata, MetadataIndex, TensorStorageMetadata

from chronoedit.errors import CheckpointError, OutputError
from chronoedit.model import keys
from chronoedit.model.convert import Conversion, convert
from chronoedit.model.dcp import DcpSource, SafeReader, open_dcp, read_items
from chronoedit.model.headers import TensorInfo, find_dcp
from chronoedit.model.parts import Target, open_transformer

from ..processes import run_by_two

CPU = torch.device("cpu")
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
PUBLISHED = Conversion(layout="published")
ORIGINAL = Conversion(layout="original")
PATCHES = "patch_embedding.weight"


@pytest.fixture(scope="module")
def weights(random_checkpoint: Path) -> dict[str, Tensor]:
    return load_file(random_checkpoint / WEIGHTS)


def averaged(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.neg() for name, tensor in weights.items()}


def saved(state: Mapping[str, Any], folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single process
        dcp.save(dict(state), checkpoint_id=folder, no_dist=True)
    return folder


def assert_same_bits(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name].contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8)), name


def of_ours(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What our training saves, and more that other trainings may."""
    return {
        "model": dict(weights),
        "ema": averaged(weights),
        "optim": {name: {"exp_avg": torch.ones_like(tensor)} for name, tensor in weights.items()},
        "progress": torch.zeros(7, dtype=torch.uint8),
        "scheduler": {"lr": [0.1, 0.2], "name": "cosine"},
    }


def wan(weights: Mapping[str, Tensor], *, linear: bool = False) -> dict[str, Tensor]:
    """Original names; the published trainer embeds patches by a linear layer."""
    named = {str(keys.to_original(name)): tensor for name, tensor in weights.items()}
    if linear:
        named[PATCHES] = named[PATCHES].flatten(1)
    return named


def wrapped(name: str) -> str:
    """A name in a compiled model of which each block is checkpointed."""
    parts = name.split(".")
    at = {"blocks": 2, "head": 1}.get(parts[0], 0)
    return "._checkpoint_wrapped_module.".join([".".join(parts[:at]), ".".join(parts[at:])]) if at else name


def of_the_published_trainer(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    state: dict[str, Any] = {f"net.{name}": tensor for name, tensor in wan(weights, linear=True).items()}
    state |= {f"net_ema.{name}": tensor for name, tensor in wan(averaged(weights), linear=True).items()}
    for root in ("net", "net_ema"):
        state[f"{root}.blocks.0.self_attn.attn_op._extra_state"] = torch.zeros(3, dtype=torch.uint8)
        state[f"{root}.blocks.1.cross_attn.attn_op_image._extra_state"] = b"pickled by transformer-engine"
        state[f"{root}.accum_iteration"] = torch.tensor(7)
        state[f"{root}.accum_train_in_hours"] = torch.tensor(0.5)
    return state


def of_wrapped_modules(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    state = {f"net._orig_mod.{wrapped(name)}": tensor for name, tensor in wan(weights).items()}
    return state | {f"net_ema._orig_mod.{wrapped(name)}": tensor for name, tensor in wan(averaged(weights)).items()}


def with_dashes(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """An average kept as buffers, whose names may have no dots."""
    average = {f"net.{name}".replace(".", "-"): tensor for name, tensor in wan(averaged(weights)).items()}
    model = {f"net.{name}": tensor for name, tensor in wan(weights).items()}
    return {"model": {**model, "conditioner.logvar.weight": torch.ones(3)}, "ema": average, "iteration": 3}


def without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    average = {f"net_ema.{name.replace('.', '-')}": tensor for name, tensor in wan(averaged(weights)).items()}
    return {**wan(weights), **average, "optimizer": {"exp_avg": {"head.head.weight": torch.ones(4)}}, "step": 4}


STATES: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Any]]] = {
    function.__name__: function
    for function in (of_ours, of_the_published_trainer, of_wrapped_modules, with_dashes, without_prefix)
}


@pytest.mark.parametrize("trainer", STATES)
def test_weights_and_average_of_each_trainer(trainer: str, weights: dict[str, Tensor], tmp_path: Path) -> None:
    folder = saved(STATES[trainer](weights), tmp_path / "state")
    assert find_dcp(folder) == folder
    for ema, expected in ((False, weights), (True, averaged(weights))):
        source = open_dcp(folder, ema=ema)
        assert {name: info.shape for name, info in source.tensors.items()} == {
            name: tuple(tensor.shape) for name, tensor in expected.items()
        }
        assert_same_bits(dict(source.read(CPU)), expected)


def test_into_both_layouts(random_checkpoint: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    saved(of_the_published_trainer(weights), tmp_path / "iter_000001000" / "model")
    published = convert(tmp_path / "iter_000001000", tmp_path / "o", PUBLISHED, base=random_checkpoint, ema=True)
    assert_same_bits(load_file(published / WEIGHTS), averaged(weights))
    assert json.loads((published / "model_index.json").read_text())["_class_name"] == "ChronoEditPipeline"
    single = convert(tmp_path / "iter_000001000" / "model", tmp_path / "wan.safetensors", ORIGINAL)
    assert_same_bits(load_file(single), wan(weights))
    half = Conversion(layout="published", dtype=torch.bfloat16)
    convert(tmp_path / "iter_000001000", tmp_path / "half", half, base=random_checkpoint)
    assert_same_bits(load_file(tmp_path / "half" / WEIGHTS), {name: t.bfloat16() for name, t in weights.items()})


def test_what_convert_refuses(
    random_checkpoint: Path, random_checkpoint_no_image: Path, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = saved({"model": weights}, tmp_path / "state")
    with pytest.raises(CheckpointError, match="holds a transformer alone; .* give a folder that has them"):
        convert(folder, tmp_path / "o", PUBLISHED)
    with pytest.raises(CheckpointError, match="unexpected .*do not belong together"):
        convert(folder, tmp_path / "o", PUBLISHED, base=random_checkpoint_no_image)
    with pytest.raises(CheckpointError, match="has no averaged weights; there are: weights under 'model.'; leave --em"):
        convert(folder, tmp_path / "o", PUBLISHED, base=random_checkpoint, ema=True)
    with pytest.raises(ValueError, match="is no folder of torch.distributed.checkpoint, which alone may hold an aver"):
        convert(random_checkpoint, tmp_path / "o", PUBLISHED, ema=True)
    with pytest.raises(OutputError, match="state exists and is not empty|is the input itself"):
        convert(folder, folder, PUBLISHED, base=random_checkpoint)
    (folder / "__0_0.distcp").write_bytes((folder / "__0_0.distcp").read_bytes().replace(b"PK", b"QK"))
    with pytest.raises(CheckpointError, match="cannot be read"):
        convert(folder, tmp_path / "o", PUBLISHED, base=random_checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


@pytest.mark.parametrize(
    ("state", "ema", "message"),
    [
        ({"a": torch.ones(2)}, False, "holds no transformer of this kind: no name among its 1 tensors ends in"),
        ({"ema": {"proj_out.weight": torch.ones(2)}}, False, "average under 'ema.'; the average is taken with --ema"),
        ({"net_teacher": {"head.head.weight": torch.ones(2)}}, False, "there are: other under 'net_teacher.'"),
        ({f"{n}.head.head.weight": torch.ones(2) for n in ("net", "model")}, False, "more than one transformer"),
        ({"net.head.head.weight": torch.ones(2, dtype=torch.int8)}, False, "1 weights are of no floating-point type"),
        (
            {f"net.{name}": torch.ones(2) for name in ("head.head.weight", *(f"lora_{n}" for n in range(12)))},
            False,
            r"12 names under 'net.' are no parameters of this transformer.*net.lora_9, and 2 more\)",
        ),
        ({"net": {"proj_out.weight": torch.ones(2), "module.proj_out.weight": torch.ones(2)}}, False, "there twice"),
        ({"proj_out.weight": torch.ones(2), "surprise": torch.ones(2)}, False, r"without a prefix .*\(surprise\)"),
    ],
)
def test_states_without_what_is_asked_for(state: dict[str, Any], ema: bool, message: str, tmp_path: Path) -> None:
    folder = saved(state, tmp_path / "state")
    with pytest.raises(CheckpointError, match=message):
        open_dcp(folder, ema=ema)


# Two processes


def sharded_and_saved(checkpoint: Path, folder: Path) -> None:
    """FSDP2 over the blocks and the rest, saved at once and in the background; and parts that are uneven or columns."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    transformer = open_transformer(checkpoint / "transformer").load(Target(torch.float32, CPU))
    for module in (*transformer.blocks, transformer):
        fully_shard(module, mesh=mesh)
    state: dict[str, Any] = {f"model.{name}": tensor.detach() for name, tensor in transformer.named_parameters()}
    whole = torch.arange(35.0).reshape(5, 7)
    state["odd.rows"] = distribute_tensor(whole, mesh, [Shard(0)])
    state["odd.columns"] = distribute_tensor(whole, mesh, [Shard(1)])
    state["odd.copies"] = distribute_tensor(whole, mesh, [Replicate()])
    dcp.save(state, checkpoint_id=folder / "at_once")
    dcp.async_save(state, checkpoint_id=folder / "background").result()


def test_shards_of_two_processes(random_checkpoint: Path, weights: dict[str, Tensor], tmp_path: Path) -> None:
    run_by_two(sharded_and_saved, random_checkpoint, tmp_path)
    for folder in (tmp_path / "at_once", tmp_path / "background"):
        assert len(list(folder.glob("*.distcp"))) == 2
        assert_same_bits(dict(open_dcp(folder).read(CPU)), weights)
        items = {name: item for name, item in read_items(folder).items() if name.startswith("odd.")}
        assert {name: len(item.chunks) for name, item in items.items()} == {
            "odd.rows": 2, "odd.columns": 2, "odd.copies": 1,
        }  # fmt: skip
        infos = {name: TensorInfo(folder, name, "F32", item.shape, item.size_bytes) for name, item in items.items()}
        whole = torch.arange(35.0).reshape(5, 7)
        for name, tensor in DcpSource(folder, infos, items).read(CPU):
            assert torch.equal(tensor, whole), name
    convert(tmp_path / "at_once", tmp_path / "o", PUBLISHED, base=random_checkpoint)
    assert_same_bits(load_file(tmp_path / "o" / WEIGHTS), weights)
    (tmp_path / "at_once" / "__1_0.distcp").unlink()
    with pytest.raises(CheckpointError, match="at_once lacks __1_0.distcp of 2 data files; copy the whole folder"):
        open_dcp(tmp_path / "at_once")


# Metadata that is hostile, damaged, or of another version

SMALL = {"net.head.head.weight": torch.arange(12.0).reshape(4, 3), "net.head.head.bias": torch.ones(4)}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return saved({**SMALL, "step": 3}, tmp_path / "small")


class Trap:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch sprung",))


DOTTED = b"\x80\x04\x8c%torch.distributed.checkpoint.metadata\x8c\tos.system\x93\x8c\x0ctouch sprung\x85R."
OF_ATTRIBUTES = b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93\x8c\x05torch\x8c\x04Size\x93\x8c\x05count\x86R."


def altered(folder: Path, change: Callable[[Any], Any]) -> Path:
    """The folder with its metadata changed; our own file, so that it may be unpickled."""
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(change(metadata) or metadata))
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Trap()), r"small: its .metadata names posix.system, which no metadata .* so it is refused"),
        (pickle.dumps(Metadata({}, planner_data=Trap())), "names posix.system"),
        (pickle.dumps(Metadata({}, planner_data=Fraction(1, 2))), "names fractions.Fraction"),
        (DOTTED, "names torch.distributed.checkpoint.metadata.os.system"),
        (pickle.dumps(eval), "names builtins.eval"),
        (OF_ATTRIBUTES, "asks for the attribute 'count'"),
        (b"cposix\nsystem\n(S'touch sprung'\ntR.", "names posix.system"),
        (pickle.dumps({"state_dict_metadata": {}}), "is damaged or no metadata of a checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer; run `git lfs pull`"),
        (b"", "is damaged or no metadata of a checkpoint .*; copy it again"),
    ],
)
def test_hostile_metadata_is_refused_unrun(
    content: bytes, message: str, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(small.parent)
    (small / ".metadata").write_bytes(content)
    for read in (open_dcp, lambda folder: SafeReader(folder).read_metadata()):
        with pytest.raises(CheckpointError, match=message):
            read(small)
    assert [path.name for path in small.parent.iterdir()] == ["small"]


def test_hostile_data_is_refused_unrun(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(small.parent)
    torch.save(Trap(), small / "trap")

    def trapped(metadata: Any) -> None:
        info = metadata.storage_data[MetadataIndex("net.head.head.bias", (0,))]
        info.relative_path, info.offset, info.length = "trap", 0, (small / "trap").stat().st_size

    source = open_dcp(altered(small, trapped))
    with pytest.raises(CheckpointError, match="net.head.head.bias cannot be read .*Weights only"):
        dict(source.read(CPU))
    assert [path.name for path in small.parent.iterdir()] == ["small"]


def entry_of(metadata: Any) -> TensorStorageMetadata:
    entry = metadata.state_dict_metadata["net.head.head.weight"]
    assert isinstance(entry, TensorStorageMetadata)
    return entry


def storage_of(metadata: Any) -> Any:
    return metadata.storage_data[MetadataIndex("net.head.head.weight", (0, 0))]


def doubled(metadata: Any) -> None:
    index = MetadataIndex("net.head.head.weight", (2, 0))
    chunk = entry_of(metadata).chunks[0]
    metadata.storage_data[index] = storage_of(metadata)
    entry_of(metadata).chunks.append(type(chunk)(torch.Size((2, 0)), torch.Size((2, 3))))


def resized(size: tuple[int, ...]) -> Callable[[Any], None]:
    def change(metadata: Any) -> None:
        entry_of(metadata).size = torch.Size(size)

    return change


def stored(**changes: Any) -> Callable[[Any], None]:
    return lambda metadata: vars(storage_of(metadata)).update(changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: entry_of(m).chunks.clear(), r"head.weight \[4, 3\] is not whole, its chunks have 0 of 12 values"),
        (resized((5, 3)), "is not whole, its chunks have 12 of 15 values"),
        (resized((3, 4)), r"is not whole, a chunk at \[0, 0\] of \[4, 3\] lies outside"),
        (resized((4, 3, 1)), "a chunk has other axes than its tensor"),
        (resized((4, -3)), "whole numbers of at least 0 are expected"),
        (doubled, "is not whole, its chunks overlap"),
        (lambda m: m.storage_data.clear(), "does not say where the chunk of net.head.head.bias|head.weight at"),
        (stored(relative_path="../__0_0.distcp"), "names the data file '../__0_0.distcp'; a file in the same folder"),
        (stored(relative_path="/etc/passwd"), "names the data file '/etc/passwd'"),
        (stored(relative_path="__3_0.distcp"), "lacks __3_0.distcp of 2 data files"),
        (stored(offset=10**9), r"has \d+ bytes where .metadata promises 10000.*it is truncated"),
        (stored(offset="0"), "whole numbers of at least 0 are expected"),
        (stored(transform_descriptors=["zstd"]), "stored transformed .*zstd.*, which is not read"),
    ],
)
def test_metadata_that_does_not_describe_whole_tensors(change: Callable[[Any], Any], message: str, small: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_dcp(altered(small, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (stored(offset=1), "net.head.head.weight cannot be read"),
        (lambda m: setattr(entry_of(m).properties, "dtype", torch.float64), "promises torch.float64"),
        (
            lambda m: m.storage_data.update({MetadataIndex("net.head.head.weight", (0, 0)): bias_of(m)}),
            "not of one sav",
        ),
    ],
)
def test_data_that_is_not_what_the_metadata_promises(change: Callable[[Any], Any], message: str, small: Path) -> None:
    source = open_dcp(altered(small, change))
    with pytest.raises(CheckpointError, match=message):
        dict(source.read(CPU))


def bias_of(metadata: Any) -> Any:
    return metadata.storage_data[MetadataIndex("net.head.head.bias", (0,))]


def test_truncated_data(small: Path) -> None:
    path = small / "__0_0.distcp"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"__0_0.distcp has \d+ bytes where .metadata promises \d+; it is trunc"):
        open_dcp(small)


def test_a_save_that_was_cut_off(small: Path) -> None:
    (small / ".metadata").rename(small / ".metadata.tmp")
    with pytest.raises(CheckpointError, match="has .distcp files and no .metadata, which is written last"):
        find_dcp(small)
    assert find_dcp(small.parent) is None


class Python311Member:
    """A member of an enumeration as some versions of Python write it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (getattr, (_MEM_FORMAT_ENCODING, "TORCH_CONTIGUOUS_FORMAT"))


def of_another_version(metadata: Any) -> None:
    metadata.compression = {"level": 3}
    metadata.version = None
    entry_of(metadata).fingerprint = b"123"
    storage_of(metadata).crc = 7
    del metadata.storage_meta


def test_metadata_of_other_versions(small: Path) -> None:
    source = open_dcp(altered(small, of_another_version))
    named = {"proj_out.weight": SMALL["net.head.head.weight"], "proj_out.bias": SMALL["net.head.head.bias"]}
    assert_same_bits(dict(source.read(CPU)), named)

    def older(metadata: Any) -> None:
        entry_of(metadata).properties = torch.distributed._shard.sharded_tensor.metadata.TensorProperties()
        storage = {MetadataIndex("net.head.head.weight"): storage_of(metadata)}
        metadata.storage_data = {**storage, MetadataIndex("net.head.head.bias"): bias_of(metadata)}
        metadata.planner_data = {"enumeration": Python311Member()}

    assert_same_bits(dict(open_dcp(altered(small, older)).read(CPU)), named)


def test_damaged_metadata_is_never_more_than_an_error(small: Path, property_seeds: range) -> None:
    path = small / ".metadata"
    whole = path.read_bytes()
    for seed in property_seeds:
        rng = random.Random(seed)
        content = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(bytes(content[: rng.choice([len(content), rng.randrange(len(content))])]))
        with suppress(CheckpointError):
            dict(open_dcp(small).read(CPU))


def test_training_goes_on_through_the_safe_reader(small: Path) -> None:
    tensors = {name: torch.zeros_like(tensor) for name, tensor in SMALL.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(tensors, storage_reader=SafeReader(small), no_dist=True)
    assert_same_bits(tensors, SMALL)
