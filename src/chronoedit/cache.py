"""Content-addressed stores: in memory, where a repeated edit finds its embeds and runs no encoder; and on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from safetensors import SafetensorError, safe_open

from chronoedit.errors import OutputError
from chronoedit.media import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_MAX_BYTES = 512 * 2**20


def content_key(kind: str, *parts: str | int | float | bool | None) -> str:
    """SHA-256 of what a value was made from: `content_key("text_embeds", model_hash, prompt)`.

    `parts` are compared as JSON, so that 1 and "1" differ and no separator in a prompt can fake another key.
    """
    return hashlib.sha256(json.dumps([kind, *parts], ensure_ascii=False).encode("utf-8", "surrogatepass")).hexdigest()


def size_bytes(value: object) -> int:
    """Bytes that the tensors or arrays in `value` (a tensor, or a tuple, list or dict of them) take."""
    if isinstance(value, (tuple, list)):
        return sum(size_bytes(item) for item in value)
    if isinstance(value, dict):
        return sum(size_bytes(item) for item in value.values())
    return int(getattr(value, "nbytes", 0))


class MemoryCache:
    """The values used last, up to `max_bytes` in all; the one used longest ago leaves first.

    Values are handed out as they were stored, not copied: whoever takes one must not write into it. Safe to use from
    several threads; two threads that miss the same key at once both make the value, and the first one stays.
    `hits` and `misses` count the look-ups. A value larger than `max_bytes` is returned and not kept.

    Raises ValueError for a negative `max_bytes`; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 0:
            raise ValueError(f"max_bytes is {max_bytes}; give 0 (keep nothing) or more")
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self.used_bytes = 0
        self._values: OrderedDict[str, tuple[object, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get_or_make(self, key: str, make: Callable[[], T]) -> T:
        """The value stored under `key`, or `make()`, which is then stored."""
        with self._lock:
            if key in self._values:
                self.hits += 1
                self._values.move_to_end(key)
                return self._values[key][0]  # type: ignore[return-value]
            self.misses += 1
        value = make()
        with self._lock:
            self._keep(key, value)
        return value

    def clear(self) -> None:
        """Forget every value."""
        with self._lock:
            self._values.clear()
            self.used_bytes = 0

    def _keep(self, key: str, value: object) -> None:
        size = size_bytes(value)
        if key in self._values or size > self.max_bytes:
            return
        self._values[key] = (value, size)
        self.used_bytes += size
        while self.used_bytes > self.max_bytes:
            _, (_, freed) = self._values.popitem(last=False)
            self.used_bytes -= freed


class TensorCache:
    """Tensors by content key in safetensors shards of a folder, for what takes long to make: encoded training sets.

    `put` keeps a tensor in memory until the shard has `shard_bytes`; `flush` writes what is kept, each shard whole or
    not at all, so a job that is killed loses at most one shard. Several processes may share a folder: each finds what
    the others had written when it opened it. Each tensor's SHA-256 stands in its shard's metadata and is compared when
    it is read. A shard that is damaged is moved aside, to NAME.damaged, which is logged, and what is whole in it is
    kept; the rest is missing then, and made anew by whoever asks with `holds`. Raises OutputError for a shard that
    cannot be written, or is of something else.
    """

    def __init__(self, folder: str | Path, shard_bytes: int = 256 * 2**20) -> None:
        self.folder = Path(folder)
        self.shard_bytes = shard_bytes
        self._shards: dict[str, Path] = {}
        self._sums: dict[str, str] = {}
        self._kept: dict[str, Tensor] = {}
        self._kept_bytes = 0
        self._find_shards()

    def __contains__(self, key: str) -> bool:
        return key in self._kept or key in self._shards

    def __len__(self) -> int:
        return len(self._kept) + len(self._shards)

    def holds(self, key: str) -> bool:
        """Whether the key's tensor is there and whole: it is read for that. One that is not is forgotten."""
        if key in self._kept or key not in self._shards:
            return key in self._kept
        try:
            self._read(key)
        except _DAMAGE as error:
            self._rescue(self._shards[key], str(error))
            return key in self._kept
        return True

    def get(self, key: str) -> Tensor:
        """The tensor of a key, on the CPU. Raises KeyError when there is none, OutputError when it is damaged."""
        if key in self._kept:
            return self._kept[key]
        if not self._shards[key].exists():  # another process has moved it aside, and kept what was whole
            self._find_shards()
        path = self._shards[key]
        try:
            return self._read(key)
        except _DAMAGE as error:
            raise OutputError(
                f"{path} is damaged ({error}); the same command finds that when it starts, and makes it anew"
            ) from error

    def put(self, key: str, tensor: Tensor) -> None:
        """Store a tensor; one of a known key is left as it is. Raises OutputError."""
        if key in self:
            return
        self._kept[key] = tensor.detach().cpu().contiguous().clone()
        self._kept_bytes += size_bytes(self._kept[key])
        if self._kept_bytes >= self.shard_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is kept in memory. Raises OutputError."""
        if not self._kept:
            return
        sums = {key: _checksum(tensor) for key, tensor in self._kept.items()}
        path = self.folder / f"{content_key('shard', *sorted(sums))[:16]}.safetensors"
        save_tensors(self._kept, path, sums)
        self._sums |= sums
        self._shards |= dict.fromkeys(sums, path)
        self._kept, self._kept_bytes = {}, 0

    def _find_shards(self) -> None:
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name.startswith("."):  # another process is writing it
                continue
            try:
                sums = _sums_of(path)
            except FileNotFoundError:  # another process has moved it aside
                continue
            except _DAMAGE as error:
                self._move_aside(path, str(error), lost="all")
                continue
            self._sums |= sums
            self._shards |= dict.fromkeys(sums, path)

    def _read(self, key: str) -> Tensor:
        with safe_open(self._shards[key], framework="pt") as file:
            tensor: Tensor = file.get_tensor(key)
        if _checksum(tensor) != self._sums[key]:
            raise _Damaged("a tensor has another checksum")
        return tensor

    def _rescue(self, path: Path, reason: str) -> None:
        """Move a damaged shard aside; what is whole in it is kept, to be written again."""
        whole, keys = {}, [key for key, shard in self._shards.items() if shard == path]
        for key in keys:
            try:
                whole[key] = self._read(key).clone()
            except _DAMAGE:
                continue
        self._move_aside(path, reason, lost=f"{len(keys) - len(whole)} of {len(keys)}")
        for key in keys:
            del self._shards[key], self._sums[key]
        for key, tensor in whole.items():
            self.put(key, tensor)

    def _move_aside(self, path: Path, reason: str, lost: str) -> None:
        logger.warning("%s is damaged (%s): it is moved aside, and %s of its tensors are made anew", path, reason, lost)
        with suppress(FileNotFoundError):  # another process did
            path.rename(path.with_name(f"{path.name}.damaged"))


class _Damaged(Exception):
    """A tensor is not what was written."""


_DAMAGE = (_Damaged, SafetensorError, OSError)
"""What reading a shard raises that was cut or changed."""


def _sums_of(path: Path) -> dict[str, str]:
    """The checksums of a shard, by key. Raises OutputError for a file that is none."""
    with safe_open(path, framework="pt") as file:
        sums = file.metadata() or {}
        keys = list(file.keys())
    if set(keys) != set(sums):
        raise OutputError(f"{path} is no shard of this cache; give the cache a folder of its own")
    return sums


def _checksum(tensor: Tensor) -> str:
    import torch

    data = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + data).hexdigest()
