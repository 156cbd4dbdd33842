"""The commands `edit` and `chain`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from chronoedit import media
from chronoedit.apps.launch import is_first
from chronoedit.apps.memory import fitted
from chronoedit.apps.options import (
    FileFlags,
    MemoryFlags,
    ModelFlags,
    PromptFlags,
    PublishedFlags,
    ReasoningFlags,
    SamplingFlags,
    build_request,
    option,
)
from chronoedit.apps.progress import StageBars
from chronoedit.apps.record import Record, edit_metadata
from chronoedit.apps.session import bad_arguments, hush_libraries, is_extra_process, opened
from chronoedit.apps.several import NothingToDo, sharing
from chronoedit.apps.vlm_flags import EnhancerFlags
from chronoedit.request import EditRequest, EditResult

if TYPE_CHECKING:
    from chronoedit.editing.chain import ChainStep
    from chronoedit.runtime.edit_processes import EditProcesses

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Targets:
    """Where an edit is written: a picture for each variant and, when asked for, the video of the first."""

    pictures: tuple[Path, ...]
    video: Path | None


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Edit a picture with a prompt.

    chronoedit edit -i photo.png -p "add sunglasses to the cat" -o out.png --enable-temporal-reasoning
    """

    files: FileFlags = FileFlags()
    prompts: PromptFlags = PromptFlags()
    sampling: SamplingFlags = SamplingFlags()
    reasoning: ReasoningFlags = ReasoningFlags()
    model: ModelFlags = ModelFlags()
    memory: MemoryFlags = MemoryFlags()
    enhancer: EnhancerFlags = EnhancerFlags()
    published: PublishedFlags = PublishedFlags()

    def run(self) -> None:
        """Check everything that can be checked without the model, edit, write. Raises as `Editor.edit` and `media`."""
        with bad_arguments():
            if self.files.like is None:
                request, record, model = self._request(), None, self.model
            else:
                self._refuse_changes()
                record = Record.read(self.files.like)
                request, model = record.request(self.files.input), record.model(self.model)
            targets = plan_targets(self.files, request.num_variants if record is None else 1)
            if record is not None and record.variant and targets.video is not None:
                raise ValueError(
                    f"{record.path} is variant {record.variant}, and a video is made of the first; use -o FILE.png"
                )
            request = replace(request, return_trajectory=request.reasoning and targets.video is not None)
            self._check(request, targets, model)
        if is_first():
            for note in (*self.published.explain(), *self.prompts.explain(self.model)):
                print(f"note: {note}", file=sys.stderr)
        model = fitted(model, self.memory.memory, request)
        with suppress(NothingToDo), sharing(model, request) as (model_here, processes):
            result = self._edit(request, record, model_here, processes)
            if processes is None or processes.is_first:
                self._write(result, targets, model, 0 if record is None else record.variant)
                if record is not None:
                    record.compare(targets.pictures[0])

    def _edit(
        self, request: EditRequest, record: Record | None, model: ModelFlags, processes: EditProcesses | None
    ) -> EditResult:
        """The edit itself; of several processes the first asks for the longer prompt, and shows the progress."""
        if processes is None:
            request = self._enhanced(request)
        else:
            request = processes.share(self._enhanced(request) if processes.is_first else None) or request
        logger.info("the request, None is the model's own: %s", request.to_json())
        with opened(model, processes) as editor, StageBars() as bars:
            if record is not None:
                record.check_model(editor)
            shown = processes is None or processes.is_first
            return editor.edit(replace(request, progress=bars.update if shown else None))

    def _request(self) -> EditRequest:
        if self.files.input is None:
            raise ValueError("no picture was given; name it with --input FILE (-i)")
        wish = self.prompts
        return build_request(
            self.files.input, wish.text(), wish.negative_prompt, self.sampling, self.reasoning, wish.variants
        )

    def _enhanced(self, request: EditRequest) -> EditRequest:
        """The request with a longer prompt, where one is asked for; whoever made it is gone before the model comes."""
        if not self.enhancer.use_prompt_enhancer:
            return request
        from chronoedit.editing.enhance import enhanced

        flags = self.enhancer.model()
        print(f"note: {flags.vlm_model} is asked for a longer prompt, {flags.place()}", file=sys.stderr)
        hush_libraries()
        request = enhanced(flags.open(), request, require=self.enhancer.require_enhancer)
        if request.original_prompt is not None:
            print(f"prompt: {request.prompt}", file=sys.stderr)
        return request

    def _refuse_changes(self) -> None:
        for group in (self.prompts, self.sampling, self.reasoning, self.enhancer):
            if group != type(group)():
                raise ValueError(
                    "--like repeats an edit as it was; leave out all flags about prompt, sampling and reasoning "
                    "(chronoedit info FILE prints what they were)"
                )

    def _check(self, request: EditRequest, targets: Targets, model: ModelFlags) -> None:
        model.check()
        self.enhancer.check(self.prompts)
        media.load_image(request.image)
        kept = {"the input": Path(str(request.image)), "the file given with --like": self.files.like}
        for path in (*targets.pictures, *([targets.video] if targets.video else [])):
            for name, source in kept.items():
                if source is not None and path.exists() and path.samefile(source):
                    raise ValueError(
                        f"{path} is {name} and would be overwritten; choose another --output or --output-image"
                    )
            media.check_writable(path)

    def _write(self, result: EditResult, targets: Targets, model: ModelFlags, first: int) -> None:
        files: dict[Path, bytes] = {}
        if targets.video is not None:
            files[targets.video] = media.encode_video(video_of(result), targets.video)
        for variant, path in enumerate(targets.pictures, start=first):
            metadata = edit_metadata(result, model, variant)
            files[path] = media.encode_image(result.images[variant], path, metadata)
        media.write_files(files)
        tell(files, result)


def plan_targets(files: FileFlags, variants: int) -> Targets:
    """The files that an edit will write. Raises ValueError for suffixes, or when one name would serve twice."""
    suffix = media.check_suffix(files.output, media.IMAGE_SUFFIXES + media.VIDEO_SUFFIXES)
    video = files.output if suffix in media.VIDEO_SUFFIXES else None
    if files.output_image is None:
        first = files.output if video is None else files.output.with_suffix(".png")
    elif video is None:
        raise ValueError(
            f"--output {files.output} and --output-image {files.output_image} both name the picture; give one"
        )
    else:
        first = files.output_image
        media.check_suffix(first, media.IMAGE_SUFFIXES)
    others = (first.with_name(f"{first.stem}-{k}{first.suffix}") for k in range(1, variants))
    return Targets((first, *others), video)


def video_of(result: EditResult) -> np.ndarray:
    """The whole trajectory, or without reasoning the video from input to edit; uint8 T H W 3."""
    return result.video if result.trajectory is None else result.trajectory


def tell(paths: Iterable[Path], result: EditResult) -> None:
    """Each file on stdout, a line each; seed and time on stderr."""
    for path in paths:
        print(path)
    height, width = np.asarray(result.image).shape[:2]
    print(f"{width}x{height} px, seed {result.request.seed}, {result.timings_s['total']:.1f} s", file=sys.stderr)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Several edits, each starting from the last result; run again, it goes on where it stopped.

    chronoedit chain -i photo.png -o DIR -p "open the jar" "then add seasoning"
    """

    input: Annotated[Path, option("the picture to start from", shown="FILE", short="i")]
    output: Annotated[Path, option("folder for step-01.png, step-02.png, ...", shown="DIR", short="o")]
    prompt: Annotated[tuple[str, ...], option("the changes, one a step", shown="TEXT...", short="p")]
    negative_prompt: Annotated[str, option("what to avoid, in every step", shown="TEXT")] = ""
    sampling: SamplingFlags = SamplingFlags()
    reasoning: ReasoningFlags = ReasoningFlags()
    model: ModelFlags = ModelFlags()
    memory: MemoryFlags = MemoryFlags()
    published: PublishedFlags = PublishedFlags()

    def run(self) -> None:
        """Check all steps, then edit and save them one by one. Raises as `run_chain`."""
        if is_extra_process():
            return
        with bad_arguments():
            requests = [
                build_request(self.input, prompt, self.negative_prompt, self.sampling, self.reasoning)
                for prompt in self.prompt
            ]
            self._check()
        for note in self.published.explain():
            print(f"note: {note}", file=sys.stderr)
        model = fitted(self.model, self.memory.memory, requests[0])
        with opened(model) as editor, StageBars() as bars:
            from chronoedit.editing.chain import run_chain

            run_chain(
                editor,
                [replace(request, progress=bars.update) for request in requests],
                self.output,
                describe=lambda result: edit_metadata(result, self.model),
                on_step=self._tell,
            )

    def _check(self) -> None:
        if not self.prompt:
            raise ValueError("no prompts were given; say what to change, step by step, after --prompt (-p)")
        self.model.check()
        media.load_image(self.input)
        if self.input.resolve().parent == self.output.resolve():
            raise ValueError(f"{self.input} lies in the folder of the results; choose another --output")
        media.check_writable(self.output / "step-01.png")

    def _tell(self, step: ChainStep) -> None:
        if step.result is not None:
            tell([step.path], step.result)
        else:
            print(step.path)
            print("done before", file=sys.stderr)


COMMANDS = {"edit": Edit, "chain": Chain}
