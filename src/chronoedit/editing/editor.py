"""The editor: a loaded model that turns requests into results, one at a time or in batches.

Shapes: b rows (one a variant of each edit), z latent channels, t latent frames, h w latent height and width.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor, nn

from chronoedit.cache import MemoryCache
from chronoedit.editing.batch import group_edits, initial_noise, row_edits
from chronoedit.editing.coding import Coding
from chronoedit.editing.decode import Decoded, decode_batch
from chronoedit.editing.denoise import Report, Run, Tally, prompt_kv, select_prompts
from chronoedit.editing.encode import Encodings, InputEncoder
from chronoedit.editing.finite import told_with
from chronoedit.editing.out_of_memory import lower_layout, memory_named
from chronoedit.editing.placement import Placement, default_device, layout_of
from chronoedit.editing.prepare import PreparedEdit, draw_seed, fit, prepare, to_frames, to_pixels, token_side
from chronoedit.editing.progress import Reporter, Stopwatch
from chronoedit.editing.warm import warm_up
from chronoedit.errors import LoraError, OutOfMemory
from chronoedit.lora import adapters
from chronoedit.media import load_image
from chronoedit.model import autoencoder, condition
from chronoedit.model.checkpoint import Components
from chronoedit.model.tensors import convert
from chronoedit.request import EditRequest, EditResult, bucket_size
from chronoedit.runtime.attention_backends import AUTO, use_backend
from chronoedit.runtime.compile import compile_blocks
from chronoedit.runtime.context_parallel import TokenSplit, share_tokens
from chronoedit.runtime.edit_processes import EditProcesses
from chronoedit.runtime.plan import LAYOUTS
from chronoedit.runtime.quantize import quantize
from chronoedit.runtime.stepcache import step_cache
from chronoedit.sampling.guidance import guided_until, is_guided, scales
from chronoedit.sampling.schedules import flow_sigmas, timesteps
from chronoedit.sampling.solvers import solver_named

logger = logging.getLogger(__name__)


class Editor:
    """Edits with one model; can be used any number of times, by one thread at a time.

    `device` does the work; with `offload` the components visit it stage by stage, or as the layout of that name says,
    which `use_layout` changes. With a `precision` the transformer's
    weights are stored in it from the first edit on; LoRAs are fused before that, or not at all. `collapse_padding`
    keeps one of the identical padded text keys (mathematically the same; off for bit-for-bit comparison with the
    published code). `coding` says how the autoencoder is used. `cache` holds what encoders made, and may be shared by
    editors. `processes` are those that share each edit: all of them call the same methods with the same requests, and
    get the same results.
    """

    def __init__(
        self,
        components: Components,
        *,
        device: torch.device | str | None = None,
        offload: bool | str = False,
        precision: str | None = None,
        attention: str = AUTO,
        compile: bool = False,
        collapse_padding: bool = True,
        coding: Coding | None = None,
        cache: MemoryCache | None = None,
        processes: EditProcesses | None = None,
    ) -> None:
        self.components = components
        self.cache = MemoryCache() if cache is None else cache
        self.collapse_padding = collapse_padding
        place = default_device() if device is None else torch.device(device)
        self.placement = Placement(device=place, layout=layout_of(offload))
        self.precision = precision
        self.attention = attention
        self.compile = compile
        self.processes = processes
        self.coding = replace(coding or Coding(), processes=processes)
        self._loras: list[tuple[str, float]] = []
        self._is_quantised = False
        self._split: TokenSplit | None = None
        self._retarget()

    @property
    def hashes(self) -> dict[str, str | list[str]]:
        """SHA-256 of the "model" and of the "loras" fused now, and their "lora_scales" as text."""
        return {
            "model": self.components.model_hash,
            "loras": [sha256 for sha256, _ in self._loras],
            "lora_scales": [repr(scale) for _, scale in self._loras],
        }

    def edit(self, request: EditRequest, *, noise: Tensor | None = None) -> EditResult:
        """Run one edit.

        `noise` are initial latents instead of those drawn from the seed: b z t h w, a row a variant, all reasoning
        frames included. Same request, same machine: bit-identical result. When memory runs out, the edit is done again
        from its beginning in the next layout that takes less (see `use_layout`), which is logged, once. Raises
        ImageError for the photo, ValueError for arguments, EditCancelled when the callback stops it, OutOfMemory when
        it runs out again or nothing takes less, ChronoEditError for latents not finite.
        """
        if request.seed is None:  # drawn here, it is the same when the edit is done again
            request = replace(request, seed=draw_seed())
        try:
            return self.edit_batch([request], noise=noise)[0]
        except OutOfMemory as error:
            if not self.step_down(error):
                raise
        return self.edit_batch([request], noise=noise)[0]

    def edit_batch(self, requests: Sequence[EditRequest], *, noise: Tensor | None = None) -> list[EditResult]:
        """Run several edits, those of one size, schedule and guidance in one forward; results in the given order.

        A result equals that of its single edit to rounding. `noise` has the rows of all requests, in order, which
        must then fit one forward. `timings_s` counts the whole call until the edit was done. Raises as `edit`, and
        OutOfMemory at once.
        """
        if not requests:
            raise ValueError("there are no requests; give at least one")
        watch = Stopwatch(self.placement.device)
        with memory_named(lambda: watch.current, self._let_go), told_with(self._told):
            return self._edit_all(requests, watch, noise)

    def _edit_all(self, requests: Sequence[EditRequest], watch: Stopwatch, noise: Tensor | None) -> list[EditResult]:
        reporter = Reporter(requests)
        with watch.stage("load"):
            photos = [load_image(request.image) for request in requests]
            self._load(reporter)
            pairs = zip(requests, photos, strict=True)
            edits = [prepare(request, photo, self.components) for request, photo in pairs]
            if self.processes is not None:  # a seed that is drawn is drawn once
                seeds = self.processes.share([edit.request.seed for edit in edits])
                edits = [
                    replace(edit, request=replace(edit.request, seed=seed))
                    for edit, seed in zip(edits, seeds, strict=True)
                ]
        groups = group_edits(edits)
        if noise is not None and len(groups) > 1:
            raise ValueError("noise was given for requests that differ in size or schedule; run them one by one")
        results: dict[int, EditResult] = {}
        for group in groups:
            members = [edits[index] for index in group]
            results.update(zip(group, self._edit_group(members, reporter, watch, noise), strict=True))
        return [results[index] for index in range(len(edits))]

    def reconstruct(self, image: PIL.Image.Image) -> PIL.Image.Image:
        """The picture through the autoencoder alone, as the edit frame of a pair of itself, at an edit's size."""
        height, width = bucket_size(
            image.height, image.width, self.components.settings.target_area, token_side(self.components)
        )
        pixels = to_pixels(fit(image.convert("RGB"), height, width)).to(self.placement.device)  # 1 3 H W
        model = self.components.autoencoder
        with torch.no_grad(), self.placement.stage() as bring:
            bring(model)
            self.coding.prepare(model)
            tiling = self.coding.alone()
            latents = condition.encode_pair(model, pixels, pixels, tiling=tiling)
            video = autoencoder.decode(model, latents, tiling=tiling)  # 1 3 T H W
        return PIL.Image.fromarray(to_frames(video[0])[-1])

    def input_encoder(self) -> InputEncoder:
        """What encodes the inputs of this editor's edits, with its cache."""
        return InputEncoder(components=self.components, cache=self.cache, placement=self.placement, coding=self.coding)

    def load_loras(self, loras: Sequence[tuple[str | Path, float]]) -> None:
        """Fuse LoRA files, each with its scale, into the transformer, in place of any fused before.

        Raises LoraError when a file cannot be read or does not fit the model, which then stays as it was, and when its
        weights are stored in another precision already.
        """
        self._refuse_quantised()
        read = [(adapters.read_lora(path), float(scale)) for path, scale in loras]
        adapters.fuse(self.components.transformer, read)
        self._loras = [(lora.sha256, scale) for lora, scale in read]

    def unload_loras(self) -> None:
        """The transformer as it was loaded, bit for bit."""
        if self._loras:
            self._refuse_quantised()
            adapters.unfuse(self.components.transformer)
            self._loras = []

    def use_layout(self, name: str) -> None:
        """Arrange the parts otherwise from the next edit on, with the same results. Raises ValueError for its name."""
        self.placement = Placement(device=self.placement.device, layout=name)
        self._retarget()
        for part, module in list(self.components.loaded.items()):
            if not isinstance(module, nn.Module):
                continue
            if self.placement.mapped and self._is_as_loaded(part):
                self.components.release(part)  # its weights stay in their files when it is loaded again
            elif self.placement.offload:
                module.to("cpu")
        if self.placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def step_down(self, error: OutOfMemory) -> bool:
        """After that error, use the next layout that takes less, which is logged; whether there is one.

        Of several processes that share an edit none can, since the others would wait for it.
        """
        lower = None if self.processes is not None else lower_layout(self.placement)
        if lower is None:
            return False
        told = LAYOUTS[lower].told
        logger.warning("out of memory (%s: %s); it is done again, so that %s", error.stage, error.detail, told)
        self.use_layout(lower)
        return True

    def _told(self) -> str:
        """How it edits, for an edit that went wrong."""
        stored = f", the transformer's weights in {self.precision}" if self.precision is not None else ""
        scales_of_loras = ", ".join(f"{scale:g}" for _, scale in self._loras) or "none"
        return f"in {str(self.components.dtype).removeprefix('torch.')}{stored}, scales of LoRAs: {scales_of_loras}"

    def _let_go(self, stage: str) -> None:
        """Free what an edit that failed in a stage has left behind; in another the autoencoder may be at work ahead."""
        if stage in ("encode", "decode") and "autoencoder" in self.components.loaded:
            self.components.autoencoder.clear_cache()
        if self.placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _retarget(self) -> None:
        """Have parts loaded to where they belong. What is made smaller waits for that in main memory, so that the
        device never holds all of it."""
        first = torch.device("cpu") if self.precision is not None else self.placement.first
        self.components.retarget(first, mapped=self.placement.mapped)
        for module in self.components.loaded.values() if not self.placement.mapped else ():
            for parameter in module.parameters() if isinstance(module, nn.Module) else ():
                convert(parameter)

    def _is_as_loaded(self, part: str) -> bool:
        changed = self._is_quantised or self._split is not None or bool(self._loras)
        return part in self.components.loaders and not (part == "transformer" and changed)

    def _load(self, report: Report) -> None:
        """Load what every edit needs; the encoders load when something is not in the cache."""
        for done, part in enumerate(("transformer", "autoencoder")):
            report("load", done, 2)
            getattr(self.components, part)
        if self.processes is not None and self.processes.layout.context > 1 and self._split is None:
            assert self.processes.context_group is not None
            self._split = share_tokens(self.components.transformer, self.processes.context_group)
        if self.precision is not None and not self._is_quantised:
            transformer = self.components.transformer
            adapters.settle(transformer)
            try:
                quantize(transformer.requires_grad_(False), self.precision, on=self.placement.device)
                self._is_quantised = True
            finally:
                if not self._is_quantised and not self._loras and "transformer" in self.components.loaders:
                    self.components.release("transformer")  # a part of its layers is changed: it is loaded anew
        use_backend(self.components.transformer, self.attention, self.placement.device, self.components.dtype)
        if self.compile:
            compile_blocks(self.components.transformer)
        report("load", 2, 2)

    def _refuse_quantised(self) -> None:
        if self._is_quantised:
            raise LoraError(
                f"the weights are stored in {self.precision} already, and LoRAs are fused before that; load the model "
                "anew, then the LoRAs, then edit"
            )

    @torch.no_grad()
    def _edit_group(
        self, edits: Sequence[PreparedEdit], report: Report, watch: Stopwatch, noise: Tensor | None
    ) -> list[EditResult]:
        request = edits[0].request
        assert request.num_inference_steps is not None and request.guidance_scale is not None
        guidance = scales(request.guidance_scale, request.num_inference_steps)
        guidance = guided_until(guidance, request.guidance_until)
        with watch.stage("encode"):
            report("encode", 0, 1)
            encoder = self.input_encoder()
            encodings = self._encoded(encoder, edits, guided=any(map(is_guided, guidance)))
            encodings.check_finite()
            report("encode", 1, 1)
        shown = None
        with self.placement.stage() as bring:
            owners = row_edits(edits)
            first_rows = [owners.index(index) for index in range(len(edits))]
            start = initial_noise(edits, self.placement.device, noise)
            with watch.stage("denoise"):
                bring(self.components.transformer)
                run = self._run(edits, encodings, guidance)
            if self.compile:
                with watch.stage("compile"):
                    warm_up(run, start, first_rows, report)
            with watch.stage("denoise"):
                latents, whole = run.denoise(start, report)
            if run.course.trajectory:
                with watch.stage("trajectory"):
                    shown = run.trajectory(whole, first_rows, report)
        with watch.stage("decode"), self.placement.stage() as bring:
            bring(self.components.autoencoder)
            self.coding.prepare(self.components.autoencoder)
            decoded = decode_batch(self.components.autoencoder, edits, latents, shown, report, self.coding)
        return self._results(edits, decoded, latents, watch, run.tally)

    def _encoded(self, encoder: InputEncoder, edits: Sequence[PreparedEdit], *, guided: bool) -> Encodings:
        """The encodings; of several processes all encode the pictures, the first the rest, and the others receive."""
        if self.processes is None:
            return encoder.encode(edits, guided=guided)
        encoder.share_conditions(edits)
        mine = encoder.encode(edits, guided=guided).to(torch.device("cpu")) if self.processes.is_first else None
        encodings = self.processes.share(mine)
        assert encodings is not None
        return encodings.to(self.placement.device)

    def _run(self, edits: Sequence[PreparedEdit], encodings: Encodings, guidance: Sequence[float]) -> Run:
        request, transformer, owners = edits[0].request, self.components.transformer, row_edits(edits)
        assert request.num_inference_steps is not None and request.flow_shift is not None
        positive, negative = prompt_kv(transformer, encodings, collapse_padding=self.collapse_padding)
        positive, negative = select_prompts(positive, negative, owners)
        sigmas = flow_sigmas(request.num_inference_steps, request.flow_shift)
        return Run(
            transformer=transformer,
            condition_latents=encodings.condition_latents[owners],  # b c t h w
            positive=positive,
            negative=negative,
            sigmas=sigmas,
            timesteps=timesteps(sigmas, request.integer_timesteps).to(self.placement.device),
            scales=guidance,
            solver=solver_named(request.solver),
            course=edits[0].course,
            owners=owners,
            rule=None if request.step_cache is None else step_cache(request.step_cache, self.components.settings),
            split=self._split,
            processes=self.processes,
        )

    def _results(
        self,
        edits: Sequence[PreparedEdit],
        decoded: Sequence[Decoded],
        latents: Tensor,
        watch: Stopwatch,
        tally: Tally,
    ) -> list[EditResult]:
        owners, seconds = row_edits(edits), watch.seconds()
        return [
            EditResult(
                image=pictures.images[0],
                images=pictures.images,
                video=pictures.video,
                trajectory=pictures.trajectory,
                latents=_rows_of(latents, owners, index) if edit.request.return_latents else None,
                request=edit.request,
                timings_s=dict(seconds),
                hashes={"image": edit.image_sha256, **self.hashes},
                passes=tally.of(index),
            )
            for index, (edit, pictures) in enumerate(zip(edits, decoded, strict=True))
        ]


def _rows_of(latents: Tensor, owners: Sequence[int], edit: int) -> Tensor:
    """The rows of one edit, on the CPU."""
    return latents[[row for row, owner in enumerate(owners) if owner == edit]].cpu()  # b z t h w
