"""A batch shared by the processes that `torchrun` started: each takes whole batches, and the first shows all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chronoedit.apps.launch import own_device, shared_work, stop_after_step
from chronoedit.apps.options import ModelFlags
from chronoedit.apps.session import opened
from chronoedit.request import EditResult, Progress

if TYPE_CHECKING:
    from chronoedit.editing.batch_job import Batch, BatchJob, EditAll
    from chronoedit.ledger import Ledger

OnItem = Callable[[dict[str, Any]], None]
OnProgress = Callable[["Batch", Progress], None]


@dataclass(frozen=True, kw_only=True)
class SharedBatch:
    """How each of the processes edits: the model, on a device of its own, and what stands in and beside pictures."""

    model: ModelFlags
    describe: Callable[[EditResult], dict[str, Any]]
    video: bool

    def take_part(self, folder: Path) -> None:
        """Do what the first process offers, in another one, until there is no more. Raises as `opened`."""
        from chronoedit.editing.batch_job import BatchJob
        from chronoedit.editing.batch_parts import part_of

        work = shared_work()
        hashes, model = work.about()
        job = BatchJob(folder=folder, items=(), made_with={})
        with stop_after_step("batch") as should_stop, part_of(folder) as ledger:
            shared = replace(self, model=model)
            shared._edit(
                work.taken(should_stop), lambda batches, edit: job.run(ledger, batches, edit, work.tell, hashes)
            )
        work.leave()

    def share_out(
        self,
        job: BatchJob,
        ledger: Ledger,
        batches: Sequence[Batch],
        should_stop: Callable[[], bool],
        on_item: OnItem,
        on_progress: OnProgress,
    ) -> None:
        """Offer the batches, do a share of them, and wait for the others, of whose items `on_item` hears as well.

        Asked to stop, it waits for the batches under way. Raises as `opened` and `BatchJob.run`.
        """
        from chronoedit.editing.batch_job import hashes_of
        from chronoedit.editing.batch_parts import any_at_work, take_in
        from chronoedit.runtime.shared_work import POLL_S

        work = shared_work()

        def hear() -> None:
            for record in work.told():
                on_item(record)

        def progressed(batch: Batch, progress: Progress) -> None:
            hear()
            on_progress(batch, progress)

        work.offer(batches, (hashes_of(ledger), self.model))
        self._edit(
            work.taken(should_stop), lambda mine, edit: job.run(ledger, mine, edit, on_item), on_progress=progressed
        )
        work.leave()
        # One that was killed does not leave, but its part is then free; the launcher asks the others to stop.
        while not work.all_left() and not (should_stop() and not any_at_work(job.folder)):
            hear()
            time.sleep(POLL_S)
        hear()
        take_in(job.folder, ledger)

    def _edit(
        self,
        batches: Iterator[Batch],
        run: Callable[[Iterator[Batch], EditAll], None],
        on_progress: OnProgress = lambda batch, progress: None,
    ) -> None:
        """`run` the batches with a model that is loaded once there is one of them for this process."""
        from chronoedit.editing.batch_editor import BatchEditor, edit_in_turn

        first = next(batches, None)
        if first is None:
            return
        with opened(replace(self.model, device=own_device(self.model.device))) as editor:
            batch_editor = BatchEditor(editor, self.describe, video=self.video)
            run(chain([first], batches), partial(edit_in_turn, batch_editor, on_progress=on_progress))
