"""The editor: a loaded model that turns requests into results, one at a time or in batches.

Shapes: b rows (one a variant of each edit), z latent channels, t latent frames, h w latent height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor

from chronoedit.cache import MemoryCache
from chronoedit.editing.batch import group_edits, initial_noise, row_edits
from chronoedit.editing.decode import Decoded, decode_batch
from chronoedit.editing.denoise import Report, Run, prompt_kv, select_prompts
from chronoedit.editing.encode import Encodings, InputEncoder
from chronoedit.editing.placement import Placement
from chronoedit.editing.prepare import PreparedEdit, fit, prepare, to_frames, to_pixels, token_side
from chronoedit.editing.progress import Reporter, Stopwatch
from chronoedit.errors import LoraError
from chronoedit.lora import adapters
from chronoedit.media import load_image
from chronoedit.model import autoencoder, condition
from chronoedit.model.checkpoint import Components, open_checkpoint
from chronoedit.request import EditRequest, EditResult, bucket_size
from chronoedit.runtime.context_parallel import share_tokens
from chronoedit.runtime.edit_processes import EditProcesses
from chronoedit.runtime.quantize import check_precision, quantize
from chronoedit.sampling.guidance import guided_until, is_guided, scales
from chronoedit.sampling.schedules import flow_sigmas, timesteps
from chronoedit.sampling.solvers import solver_named

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(
    path_or_id: str | Path = "tiny",
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    base: str | Path | None = None,
    offload: bool = False,
    precision: str | None = None,
    processes: EditProcesses | None = None,
) -> Editor:
    """An editor of the embedded model ("tiny"), a folder in the published layout, a hub id, or a transformer file.

    `dtype` (torch's, or a name in `DTYPES`) is the precision of the transformer and the text encoder, by default
    float32 on the CPU and bfloat16 elsewhere; `device` is the GPU when there is one. A single transformer file takes
    its other components from the folder `base`. With `offload` the components take turns on the device. With a
    `precision` of `runtime.quantize.PRECISIONS` the transformer's weights are stored in it once LoRAs are fused, before
    the first edit. `processes` share each edit (see `Editor`).
    Raises CheckpointError when the model cannot be opened, ValueError for an unknown dtype, or a precision that the
    device cannot compute with.
    """
    place = default_device() if device is None else torch.device(device)
    if precision is not None:
        check_precision(precision, place)
    compute = _dtype(dtype) or (torch.float32 if place.type == "cpu" else torch.bfloat16)
    # What is made smaller waits for that in main memory, so that the device never holds all of it.
    first = "cpu" if offload or precision is not None else place
    components = open_checkpoint(path_or_id, dtype=compute, device=first, base=base)
    return Editor(components, device=place, offload=offload, precision=precision, processes=processes)


def default_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, kw_only=True)
class EditorLoader:
    """A picklable `EditorFactory`: the arguments of `load`, and the LoRAs; a call makes the editor."""

    path: str = "tiny"
    dtype: str | None = None
    device: str | None = None
    base: str | None = None
    offload: bool = False
    precision: str | None = None
    loras: tuple[tuple[str, float], ...] = ()

    def __call__(self) -> Editor:
        """Load the model. Raises as `load` and `Editor.load_loras` do."""
        editor = load(
            self.path,
            dtype=self.dtype,
            device=self.device,
            base=self.base,
            offload=self.offload,
            precision=self.precision,
        )
        if self.loras:
            editor.load_loras(self.loras)
        return editor


class Editor:
    """Edits with one model; can be used any number of times, by one thread at a time.

    `device` does the work; with `offload` the components visit it stage by stage. With a `precision` the transformer's
    weights are stored in it from the first edit on; LoRAs are fused before that, or not at all. `collapse_padding`
    keeps one of the identical padded text keys (mathematically the same; off for bit-for-bit comparison with the
    published code). `cache` holds what encoders made, and may be shared by editors. `processes` are those
    that share each edit: all of them call the same methods with the same requests, and get the same results.
    """

    def __init__(
        self,
        components: Components,
        *,
        device: torch.device | str | None = None,
        offload: bool = False,
        precision: str | None = None,
        collapse_padding: bool = True,
        cache: MemoryCache | None = None,
        processes: EditProcesses | None = None,
    ) -> None:
        self.components = components
        self.cache = MemoryCache() if cache is None else cache
        self.collapse_padding = collapse_padding
        self.placement = Placement(device=default_device() if device is None else torch.device(device), offload=offload)
        self.precision = precision
        self.processes = processes
        self._loras: list[tuple[str, float]] = []
        self._is_quantised = self._shares_tokens = False

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
        frames included. Same request, same machine: bit-identical result. Raises ImageError for the photo,
        ValueError for arguments, EditCancelled when the callback stops it, ChronoEditError for latents not finite.
        """
        return self.edit_batch([request], noise=noise)[0]

    def edit_batch(self, requests: Sequence[EditRequest], *, noise: Tensor | None = None) -> list[EditResult]:
        """Run several edits, those of one size, schedule and guidance in one forward; results in the given order.

        A result equals that of its single edit to rounding. `noise` has the rows of all requests, in order, which
        must then fit one forward. `timings_s` counts the whole call until the edit was done. Raises as `edit`.
        """
        if not requests:
            raise ValueError("there are no requests; give at least one")
        reporter, watch = Reporter(requests), Stopwatch(self.placement.device)
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
            video = autoencoder.decode(model, condition.encode_pair(model, pixels, pixels))  # 1 3 T H W
        return PIL.Image.fromarray(to_frames(video[0])[-1])

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

    def _load(self, report: Report) -> None:
        """Load what every edit needs; the encoders load when something is not in the cache."""
        for done, part in enumerate(("transformer", "autoencoder")):
            report("load", done, 2)
            getattr(self.components, part)
        if self.processes is not None and self.processes.layout.context > 1 and not self._shares_tokens:
            assert self.processes.context_group is not None
            share_tokens(self.components.transformer, self.processes.context_group)
            self._shares_tokens = True
        if self.precision is not None and not self._is_quantised:
            transformer = self.components.transformer
            adapters.settle(transformer)
            quantize(transformer.requires_grad_(False), self.precision, on=self.placement.device)
            self._is_quantised = True
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
            encoder = InputEncoder(components=self.components, cache=self.cache, placement=self.placement)
            encodings = self._encoded(encoder, edits, guided=any(map(is_guided, guidance)))
            report("encode", 1, 1)
        shown = None
        with self.placement.stage() as bring:
            with watch.stage("denoise"):
                bring(self.components.transformer)
                run = self._run(edits, encodings, guidance)
                latents, whole = run.denoise(initial_noise(edits, self.placement.device, noise), report)
            if run.course.trajectory:
                owners = row_edits(edits)
                with watch.stage("trajectory"):
                    shown = run.trajectory(whole, [owners.index(index) for index in range(len(edits))], report)
        with watch.stage("decode"), self.placement.stage() as bring:
            bring(self.components.autoencoder)
            decoded = decode_batch(self.components.autoencoder, edits, latents, shown, report)
        return self._results(edits, decoded, latents, watch)

    def _encoded(self, encoder: InputEncoder, edits: Sequence[PreparedEdit], *, guided: bool) -> Encodings:
        """The encodings; of several processes the first encodes, and the others receive."""
        if self.processes is None:
            return encoder.encode(edits, guided=guided)
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
            processes=self.processes,
        )

    def _results(
        self, edits: Sequence[PreparedEdit], decoded: Sequence[Decoded], latents: Tensor, watch: Stopwatch
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
            )
            for index, (edit, pictures) in enumerate(zip(edits, decoded, strict=True))
        ]


def _rows_of(latents: Tensor, owners: Sequence[int], edit: int) -> Tensor:
    """The rows of one edit, on the CPU."""
    return latents[[row for row, owner in enumerate(owners) if owner == edit]].cpu()  # b z t h w


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if not isinstance(dtype, str):
        return dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is unknown; choose from {', '.join(DTYPES)}")
    return DTYPES[dtype]
