"""What counting allows an edit, by stage."""

from __future__ import annotations

from dataclasses import replace

import curves
from chronoedit.runtime.plan_facts import read_facts


def test_a_framewise_encoder_has_less_to_compute_and_nothing_else_has() -> None:
    point, facts = curves.points(curves.Options())[0], read_facts("tiny")
    for each in (point, replace(point, reasoning_steps=2)):
        whole, alone = (curves.bound(each, facts, 1e11, "cpu", framewise=framewise) for framewise in (False, True))
        assert {name for name in whole if whole[name] != alone[name]} == {"encode", "total"}
        assert alone["encode"] < whole["encode"] / 2
        assert alone["total"] == sum(alone[name] for name in ("encode", "denoise", "decode"))
