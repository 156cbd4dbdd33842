"""Which component sits on the device when: all of them, one stage after another, or one block after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from chronoedit.model.dit import ChronoEditDiT
from chronoedit.runtime.offload import BlockStream, blocks_in, spots_of, visiting
from chronoedit.runtime.plan import LAYOUTS, check_layout

CPU = torch.device("cpu")


def layout_of(offload: bool | str) -> str:
    """The layout's name that `offload` stands for. Raises ValueError for one that there is not."""
    if isinstance(offload, str):
        return check_layout(offload)
    return "turns" if offload else "together"


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, kw_only=True)
class Placement:
    """`device` does the work; `layout`, a name in `plan.LAYOUTS`, says what lies there when, and where the rest waits.

    Raises ValueError for a layout that there is not.
    """

    device: torch.device
    layout: str = "together"
    _streams: list[BlockStream] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_layout(self.layout)

    @property
    def offload(self) -> bool:
        """Whether components come and go."""
        return self.layout != "together"

    @property
    def first(self) -> torch.device:
        """Where components are loaded to."""
        return CPU if self.offload else self.device

    @property
    def mapped(self) -> bool:
        """Whether weights stay in their files."""
        return LAYOUTS[self.layout].mapped

    @contextmanager
    def stage(self) -> Iterator[Callable[[nn.Module], None]]:
        """Gives `bring(module)`, which puts a module on the device until the block ends (for good without offload).

        A transformer whose blocks are streamed is not there as a whole, but works as if it were.
        """
        visitors: list[nn.Module] = []
        with ExitStack() as stack:

            def bring(module: nn.Module) -> None:
                if not any(module is visitor for visitor in visitors):
                    stack.enter_context(self._visit(module))
                    visitors.append(module)

            yield bring

    def _visit(self, module: nn.Module) -> AbstractContextManager[None]:
        if not LAYOUTS[self.layout].streams:
            return self._moved(module)
        if blocks_in(module) is None:
            return visiting(spots_of(module), self.device)
        return self._stream(module).running()

    def _stream(self, module: nn.Module) -> BlockStream:
        """Kept between stages for the transformer, whose blocks lie in pinned memory."""
        if not isinstance(module, ChronoEditDiT):
            return BlockStream(module, self.device, pinned=False)
        if not any(stream.part is module for stream in self._streams):
            self._streams[:] = [BlockStream(module, self.device, pinned=not self.mapped)]
        return self._streams[0]

    @contextmanager
    def _moved(self, module: nn.Module) -> Iterator[None]:
        try:
            module.to(self.device)
            yield
        finally:
            if self.offload:
                module.to(CPU)
