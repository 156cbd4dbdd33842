"""`chronoedit doctor`: what is there, what is missing, and the exit code that says so."""

from __future__ import annotations

import importlib.metadata
import json

import pytest
import torch

from chronoedit.apps.commands import doctor
from chronoedit.apps.main import main


def test_this_machine_can_edit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("Python", "torch", "diffusers", "CPU", "memory", "disk here", "attention", "compile", "embedded"):
        assert name in out
    assert "MISSING" not in out
    if not torch.cuda.is_available():
        assert "sdpa, flash, math; auto is sdpa" in out


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in ("ftfy", "gguf"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "diffusers" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert main(["doctor", "--json"]) == 1
    found = {each["what"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert found["ftfy"]["state"] == "missing" and "is not installed" in found["ftfy"]["detail"]
    assert found["diffusers"]["state"] == "missing" and "0.1 is too old" in found["diffusers"]["detail"]
    assert found["gguf"]["state"] == "optional" and 'pip install "chronoedit[gguf]"' in found["gguf"]["detail"]
    assert found["torch"]["state"] == "ok"


def test_every_extra_is_explained() -> None:
    _, extras = doctor._requirements()
    assert set(extras) - {"dev"} == set(doctor.EXTRAS)
