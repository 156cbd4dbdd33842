"""Sample edits while a model is in training: the same examples, from the same noise, each time.

Shapes: z latent channels, c 4 + z condition channels, t latent frames, h w latent height and width; pixels are T H W.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from PIL import Image
from torch import Tensor, nn

from chronoedit.data.encoded import Encoded, Encoder, Example
from chronoedit.media import contact_sheet
from chronoedit.model import autoencoder as ae
from chronoedit.sampling.guidance import guide, is_guided
from chronoedit.sampling.loop import denoise
from chronoedit.sampling.schedules import flow_sigmas, timesteps
from chronoedit.sampling.solvers import solver_named
from chronoedit.training.state import step_generator
from chronoedit.training.velocity import Conditions, predict

MAX_SAMPLES = 4
SIDE_PX = 384  # of a picture on the sheet, at most
PIXEL_FRAMES_A_LATENT = 4


class Samples:
    """Edits fixed examples, by the model's own steps, shift and guidance, and lays them out as one picture.

    Pairs are denoised as they are, clips with all their frames to the end, so that the whole trajectory is seen; the
    inputs and targets beside them are what the autoencoder makes of the training latents. All comes from the encoder's
    cache; the autoencoder alone is loaded, and released again. `draw` is the same work on every process, so all
    processes must call it where the transformer needs them all. At most 4 examples are taken, the first ones.
    Raises ValueError without examples.
    """

    def __init__(
        self,
        encoder: Encoder,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        num_inference_steps: int | None = None,
        compute: str = "fp32",
        solver: str = "unipc",
    ) -> None:
        if not examples:
            raise ValueError("sample edits need an example; got none")
        self.encoder, self.examples, self.seed, self.compute = encoder, list(examples)[:MAX_SAMPLES], seed, compute
        self.settings = encoder.components.settings
        self.num_inference_steps = num_inference_steps or self.settings.num_inference_steps
        self.solver = solver_named(solver)
        self._ends: list[tuple[Image.Image, Image.Image]] = []

    def draw(self, transformer: nn.Module, device: torch.device) -> Image.Image:
        """The sheet: a row an example, its input, the sample (of a clip all frames) and its target.

        The transformer may be in training: it is as it was afterwards, and so is torch's random state.
        """
        return contact_sheet(self.rows(transformer, device), labels=[self._label(each) for each in self.examples])

    def rows(self, transformer: nn.Module, device: torch.device) -> list[list[Image.Image]]:
        """The pictures of the sheet, each at most 384 px long."""
        with torch.no_grad(), _unchanged_randomness(device), _evaluating(transformer):
            loaded = [self.encoder.load(example) for example in self.examples]
            latents = [self._denoised(transformer, each, k, device).cpu() for k, each in enumerate(loaded)]
            with _loaded_for_now(self.encoder):
                if not self._ends:
                    self._ends = [self._input_and_target(each.latents) for each in loaded]
                drawn = [self._pictures(each) for each in latents]
        return [[first, *own, last] for own, (first, last) in zip(drawn, self._ends, strict=True)]

    def _denoised(self, transformer: nn.Module, example: Encoded, index: int, device: torch.device) -> Tensor:
        """The final latents z t h w of one example."""
        scale = self.settings.guidance_scale
        texts = (
            [example.text, self.encoder.cache.get(self.encoder.text_key(""))] if is_guided(scale) else [example.text]
        )
        limit = self.settings.max_sequence_length
        conditions = Conditions.of([example] * len(texts), texts, limit)
        sigmas = flow_sigmas(self.num_inference_steps, self.settings.flow_shift)
        times = timesteps(sigmas)
        shape = (1, *example.latents.shape)
        noise = torch.randn(shape, generator=step_generator(self.seed, index, "samples")).to(device)

        def velocity(latents: Tensor, sigma: float, step: int) -> Tensor:
            rows = latents.expand(len(texts), *latents.shape[1:])
            time = times[step].expand(len(texts))
            found = predict(transformer, rows, time, conditions, device, self.compute).float()
            return guide(found[:1], found[1:], scale) if len(found) > 1 else found

        return denoise(velocity, self.solver.start(noise), sigmas, self.solver).latents[0]

    def _input_and_target(self, latents: Tensor) -> tuple[Image.Image, Image.Image]:
        """The input and target that training latents z t h w stand for."""
        pixels = self._decoded(latents[:, [0, -1]])
        return _picture(pixels[0]), _picture(pixels[-1])

    def _pictures(self, latents: Tensor) -> list[Image.Image]:
        """The edit of latents z 2 h w; all 8 frames of z 8 h w, one of each group of four."""
        edit = self._decoded(latents[:, [0, -1]])[-1]
        if latents.shape[1] == 2:
            return [_picture(edit)]
        reasoning = self._decoded(latents[:, :-1])[::PIXEL_FRAMES_A_LATENT]
        return [_picture(frame) for frame in (*reasoning, edit)]

    def _decoded(self, latents: Tensor) -> Tensor:
        """Pixels T 3 H W in [-1, 1]."""
        components = self.encoder.components
        return ae.decode(components.autoencoder, latents[None].to(components.device))[0].transpose(0, 1)

    def _label(self, example: Example) -> str:
        shown = "sample" if example.bucket.latent_frames == 2 else "the frames 0 to 7 of the sample"
        return f"{example.row}: input, {shown}, target"


def _picture(frame: Tensor) -> Image.Image:
    """Pixels 3 H W in [-1, 1] as a picture, no larger than the sheet takes."""
    values = ((frame.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    picture = Image.fromarray(values.permute(1, 2, 0).cpu().numpy())  # h w c
    picture.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return picture


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode; each of its parts is put back into the mode that it was in."""
    before = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in before.items():
            each.training = training


@contextmanager
def _unchanged_randomness(device: torch.device) -> Iterator[None]:
    """Loading a part draws its first weights, which must not move the noise of training."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


@contextmanager
def _loaded_for_now(encoder: Encoder) -> Iterator[None]:
    """The autoencoder may be used; if that loaded it, it is released."""
    components = encoder.components
    there = "autoencoder" in components.loaded
    try:
        yield
    finally:
        if not there and "autoencoder" in components.loaded:
            components.release("autoencoder")
