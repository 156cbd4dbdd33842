"""What a machine has: memory within a container's limit, devices, disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from chronoedit import host
from chronoedit.runtime import machine


def test_this_machine() -> None:
    found = machine.devices()
    assert found[-1].kind == "cpu" and found[-1].torch_name == "cpu" and "cores" in found[-1].name
    assert 1e8 < host.free_host_bytes() <= host.total_host_bytes() < 1e14
    assert machine.free_bytes(torch.device("cpu")) > 1e8
    assert machine.free_disk_bytes(Path("no/such/folder/yet")) > 0


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000000\n")
    (tmp_path / "memory.current").write_text("900000000\n")
    (tmp_path / "memory.stat").write_text("anon 700000000\ninactive_file 150000000\n")
    assert host.total_host_bytes() == 1_000_000_000
    assert host.free_host_bytes() == 250_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert host.free_host_bytes() > 1e8


def test_rocm_devices_are_called_cuda_by_torch() -> None:
    device = machine.Device(kind="rocm", index=1, name="MI300X", total_bytes=1, free_bytes=1)
    assert device.torch_name == "cuda:1"
