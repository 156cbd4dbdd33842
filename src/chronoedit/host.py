"""Main memory: what there is, and what programs can still get of it, within the limit of a container."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def free_host_bytes() -> int:
    """Main memory that programs can still get, within the limit of the container if there is one (off Linux: all)."""
    available = _meminfo("MemAvailable")
    return total_host_bytes() if available is None else min([available, *_left_in_container()])


def total_host_bytes() -> int:
    """Main memory, or the limit of the container where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _number(CGROUP / "memory.max")
    return total if limit is None else min(total, limit)


def _left_in_container() -> list[int]:
    limit, used = _number(CGROUP / "memory.max"), _number(CGROUP / "memory.current")
    if limit is None or used is None:
        return []
    kept = _fields(CGROUP / "memory.stat").get("inactive_file", 0)  # of files, given back when it is needed
    return [max(0, limit - used + kept)]


def _meminfo(name: str) -> int | None:
    kilobytes = _fields(Path("/proc/meminfo")).get(f"{name}:")
    return None if kilobytes is None else 1024 * kilobytes


def _fields(path: Path) -> dict[str, int]:
    """The first number of each line of a file of the kernel, by the line's first word; {} where there is no file."""
    try:
        lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdigit()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
