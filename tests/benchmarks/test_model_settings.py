"""Settings are compared on the same items, which are those of no training and no score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

import chronoedit
import model_settings
from chronoedit.request import EditRequest, EditResult
from chronoedit.world import FIRST_EVALUATION_SEED, sample_item


class OnlyGuided:
    """Knows the truth, and tells it where guidance is 2."""

    def edit(self, request: EditRequest) -> EditResult:
        assert request.seed is not None and model_settings.FIRST_SEED <= request.seed < FIRST_EVALUATION_SEED
        item = sample_item(request.seed)
        after = item.target if request.guidance_scale == 2.0 else np.zeros_like(item.target)
        picture = Image.fromarray(after)
        return EditResult(
            image=picture,
            images=[picture],
            video=np.stack([item.input, after]),
            trajectory=None,
            latents=None,
            request=request,
            timings_s={"total": 0.0},
            hashes={"model": "guided", "loras": []},
        )


def test_table_has_a_line_for_each_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    known: Any = OnlyGuided()
    monkeypatch.setattr(chronoedit, "load", lambda model: known)
    model_settings.main(model_settings.Options(items=3, guidance=(1.0, 2.0), flow_shifts=(3.0, 5.0)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert lines == ["| 1 | 3 | 0 of 3 |", "| 1 | 5 | 0 of 3 |", "| 2 | 3 | 3 of 3 |", "| 2 | 5 | 3 of 3 |"]
