from __future__ import annotations

import pytest
import torch
from torch import nn

from chronoedit.editing.placement import Placement


class Traveller(nn.Module):
    """Records where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def to(self, device: object) -> Traveller:  # type: ignore[override]
        self.sent.append(str(device))
        return self


@pytest.mark.parametrize(("offload", "expected"), [(False, ["meta"]), (True, ["meta", "cpu"])])
def test_a_module_visits_the_device_once_a_stage(offload: bool, expected: list[str]) -> None:
    traveller, other = Traveller(), Traveller()
    with Placement(device=torch.device("meta"), offload=offload).stage() as bring:
        bring(traveller)
        bring(traveller)
    assert traveller.sent == expected and other.sent == []


def test_a_visitor_goes_home_after_an_error() -> None:
    traveller = Traveller()
    with pytest.raises(KeyError), Placement(device=torch.device("meta"), offload=True).stage() as bring:
        bring(traveller)
        raise KeyError
    assert traveller.sent == ["meta", "cpu"]
