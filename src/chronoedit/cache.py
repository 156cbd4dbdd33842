"""Content-addressed store in memory: a repeated edit finds its embeds and condition here and runs no encoder."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

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
