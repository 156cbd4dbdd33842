from __future__ import annotations

import pytest
import torch
from torch import nn

from chronoedit.editing.placement import Placement
from chronoedit.runtime.plan import LAYOUTS, next_layout


class Traveller(nn.Module):
    """Records where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def to(self, device: object) -> Traveller:  # type: ignore[override]
        self.sent.append(str(device))
        return self


@pytest.mark.parametrize(("layout", "expected"), [("together", ["meta"]), ("turns", ["meta", "cpu"])])
def test_a_module_visits_the_device_once_a_stage(layout: str, expected: list[str]) -> None:
    traveller, other = Traveller(), Traveller()
    with Placement(device=torch.device("meta"), layout=layout).stage() as bring:
        bring(traveller)
        bring(traveller)
    assert traveller.sent == expected and other.sent == []


def test_a_visitor_goes_home_after_an_error() -> None:
    traveller = Traveller()
    with pytest.raises(KeyError), Placement(device=torch.device("meta"), layout="turns").stage() as bring:
        bring(traveller)
        raise KeyError
    assert traveller.sent == ["meta", "cpu"]


def test_a_visitor_that_did_not_arrive_goes_home_too() -> None:
    class TooLarge(Traveller):
        def to(self, device: object) -> Traveller:  # type: ignore[override]
            super().to(device)
            if str(device) == "meta":
                raise torch.OutOfMemoryError("half of it is there")
            return self

    traveller = TooLarge()
    with (
        pytest.raises(torch.OutOfMemoryError),
        Placement(device=torch.device("meta"), layout="turns").stage() as bring,
    ):
        bring(traveller)
    assert traveller.sent == ["meta", "cpu"]


@pytest.mark.parametrize("layout", ["stream", "disk"])
def test_what_has_no_blocks_is_copied_whole_and_stays_where_it_is(layout: str) -> None:
    part = nn.Linear(2, 2)
    home = part.weight
    with Placement(device=torch.device("meta"), layout=layout).stage() as bring:
        bring(part)
        assert part.weight.device.type == "meta"
    assert part.weight is home


def test_layouts_by_name() -> None:
    placements = {name: Placement(device=torch.device("meta"), layout=name) for name in LAYOUTS}
    assert [name for name, each in placements.items() if each.offload] == ["turns", "stream", "disk"]
    assert [name for name, each in placements.items() if each.mapped] == ["disk"]
    assert {name: str(each.first) for name, each in placements.items()} == {
        "together": "meta", "turns": "cpu", "stream": "cpu", "disk": "cpu",
    }  # fmt: skip
    assert [next_layout(name) for name in LAYOUTS] == ["turns", "stream", "disk", None]
    for wrong in (lambda: Placement(device=torch.device("cpu"), layout="nowhere"), lambda: next_layout("nowhere")):
        with pytest.raises(ValueError, match="layout 'nowhere' is unknown; choose from together, turns, stream, disk"):
            wrong()
