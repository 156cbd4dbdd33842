"""A vision-language model in this process, by transformers: Qwen3-VL, Qwen2.5-VL, or any other of its kind."""

from __future__ import annotations

import ctypes
import gc
import inspect
import logging
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from chronoedit.errors import MissingExtraError, VlmCutOff, VlmError
from chronoedit.host import free_host_bytes
from chronoedit.vlm.asking import OnText, Question, Turn, VisionModel, with_schema_in_words

logger = logging.getLogger(__name__)

SHORT_NAMES = {
    "Qwen3-VL-30B-A3B": "Qwen/Qwen3-VL-30B-A3B-Instruct",
    "Qwen3-VL-8B": "Qwen/Qwen3-VL-8B-Instruct",
    "Qwen2.5-VL-7B": "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen2.5-VL-72B": "Qwen/Qwen2.5-VL-72B-Instruct",
}
"""What people call them, and their hub ids."""
QWEN_FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
QWEN_PICTURE = "<|image_pad|>"
HUB_PATIENCE_S = 3.0

Inputs = dict[str, Any]


@dataclass
class _Loaded:
    """A model with what makes its inputs of a conversation."""

    model: Any
    tokenizer: Any
    inputs: Callable[[list[Turn]], Inputs]

    @property
    def ends(self) -> list[int]:
        """The tokens that end an answer."""
        ends = self.model.generation_config.eos_token_id
        return ends if isinstance(ends, list) else [ends]


@dataclass(kw_only=True)
class Local(VisionModel):
    """`name` is a folder, a hub id, or one of `SHORT_NAMES`. Loaded when it is first asked, once for a whole job;
    `close` frees it.

    Without a `device` it is spread over the GPUs there are, or stays on the CPU. Threads that ask at once take turns.
    """

    device: str | None = None
    _loaded: _Loaded | None = field(default=None, init=False, repr=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.name = SHORT_NAMES.get(self.name, self.name)

    def close(self) -> None:
        """Give the memory back; asked again, the model is loaded anew."""
        super().close()
        self._loaded = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _trim_heap()

    def _reply(self, turns: list[Turn], question: Question, on_text: OnText | None) -> str:
        import torch

        with self._turn:
            if self._loaded is None:
                self._loaded = self._load()
            loaded = self._loaded
            inputs = loaded.inputs(with_schema_in_words(turns, question))
            inputs = {name: value.to(loaded.model.device) for name, value in inputs.items()}
            torch.manual_seed(question.seed)
            try:
                with torch.inference_mode():
                    tokens = loaded.model.generate(**inputs, **_sampling(question), streamer=_streamer(loaded, on_text))
            except torch.OutOfMemoryError as error:
                raise VlmError(f"{self.name} ran out of memory; use a smaller one, or a server: --vlm-url") from error
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        words = str(loaded.tokenizer.decode(answer, skip_special_tokens=True))
        if len(answer) >= question.max_tokens and int(answer[-1]) not in loaded.ends:
            raise VlmCutOff(words, question.max_tokens)
        return words

    def _load(self) -> _Loaded:
        import torch
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

        logger.info("opening %s", self.name)
        self._check_memory()
        source = {"revision": self.revision, "local_files_only": self._only_here()}
        spread = self.device is None and torch.cuda.is_available()
        try:
            config = AutoConfig.from_pretrained(self.name, **source)
            inputs = self._inputs(config, source)
            tokenizer = AutoTokenizer.from_pretrained(self.name, **source)
            model = AutoModelForImageTextToText.from_pretrained(
                self.name, dtype="auto", device_map="auto" if spread else None, **source
            )
        except (OSError, ValueError, KeyError) as error:
            raise VlmError(
                f"{self.name} cannot be opened as a model of pictures and words ({_first_line(error)}); give a folder, "
                "a hub id such as Qwen/Qwen3-VL-8B-Instruct, or a server: --vlm-url"
            ) from error
        model.eval()
        return _Loaded(model if spread else model.to(self.device or "cpu"), tokenizer, inputs(model, tokenizer))

    def _check_memory(self) -> None:
        """Refuse a model that lies on this machine and is larger than the memory that is free, before it is loaded."""
        needed, free = _weight_bytes(self.name, self.revision), _free_bytes()
        if needed > free:
            raise VlmError(
                f"{self.name} takes {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB of memory are free; use a "
                "smaller one, or a server: --vlm-url"
            )

    def _only_here(self) -> bool:
        """Whether it must be opened without the hub, which is asked once: its client tries for half a minute.

        Raises VlmError when the model is not on this machine then.
        """
        if Path(self.name).is_dir():
            return True
        if _hub_answers():
            return False
        if not _weight_bytes(self.name, self.revision):
            raise VlmError(
                f"{self.name} is not on this machine, and the hub cannot be reached; connect, give a folder, or a "
                "server: --vlm-url"
            )
        return True

    def _inputs(self, config: Any, source: dict[str, Any]) -> Callable[[Any, Any], Callable[[list[Turn]], Inputs]]:
        """How conversations become inputs. Raises MissingExtraError where torchvision is needed and missing."""
        if config.model_type in QWEN_FAMILIES:  # their processor wants torchvision, for videos alone
            from transformers import AutoImageProcessor

            pictures = AutoImageProcessor.from_pretrained(self.name, **source)
            return lambda model, tokenizer: lambda turns: _qwen_inputs(turns, model, tokenizer, pictures)
        from transformers import AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(self.name, **source)
        except ImportError as error:
            raise MissingExtraError(f"{self.name} needs more than is installed: {_first_line(error)}") from error
        return lambda model, tokenizer: lambda turns: _processed(turns, processor)


def _processed(turns: list[Turn], processor: Any) -> Inputs:
    return dict(
        processor.apply_chat_template(
            _messages(turns, with_pictures=True),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
    )


def _qwen_inputs(turns: list[Turn], model: Any, tokenizer: Any, image_processor: Any) -> Inputs:
    """As the published processor makes them: each picture's mark stands once for each of its tokens."""
    text = tokenizer.apply_chat_template(
        _messages(turns, with_pictures=False), add_generation_prompt=True, tokenize=False
    )
    pictures: list[Image.Image] = [image for turn in turns for image in turn.images]
    inputs: Inputs = {}
    if pictures:
        inputs = dict(image_processor(images=pictures, return_tensors="pt"))
        counts = inputs["image_grid_thw"].prod(-1) // image_processor.merge_size**2
        parts = text.split(QWEN_PICTURE)
        if len(parts) != len(pictures) + 1:
            raise ValueError(f"a prompt must not have {QWEN_PICTURE} in it; leave it out")
        marks = [QWEN_PICTURE * int(count) for count in counts]
        text = parts[0] + "".join(mark + part for mark, part in zip(marks, parts[1:], strict=True))
    inputs |= dict(tokenizer(text, return_tensors="pt", add_special_tokens=False, return_token_type_ids=False))
    if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
    return inputs


def _messages(turns: list[Turn], *, with_pictures: bool) -> list[dict[str, Any]]:
    def content(turn: Turn) -> list[dict[str, Any]]:
        pictures = [{"type": "image", **({"image": image} if with_pictures else {})} for image in turn.images]
        return [*pictures, {"type": "text", "text": turn.text}]

    return [{"role": turn.role, "content": content(turn)} for turn in turns]


def _sampling(question: Question) -> dict[str, Any]:
    limit = {"max_new_tokens": question.max_tokens}
    if question.temperature == 0:
        return {**limit, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {**limit, "do_sample": True, "temperature": question.temperature}


def _streamer(loaded: _Loaded, on_text: OnText | None) -> Any:
    if on_text is None:
        return None
    from transformers import TextStreamer

    streamer = TextStreamer(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
    streamer.on_finalized_text = lambda text, stream_end=False: on_text(text)
    return streamer


def _weight_bytes(name: str, revision: str | None) -> int:
    """Of the weights of a folder, or of a hub id that was fetched before; 0 where they are not here yet."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        try:
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            return 0
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _hub_answers() -> bool:
    """Whether the hub answers at all, in time: a name that is looked up in vain can take longer than any time-out."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[object] = []

    def ask() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            answers.append(urllib.request.urlopen(request, timeout=HUB_PATIENCE_S))
        except urllib.error.HTTPError as error:
            answers.append(error)
        except urllib.error.URLError as error:
            answers.extend([error] * isinstance(error.reason, ssl.SSLError))  # it does, to a client that trusts it
        except OSError as error:
            logger.debug("%s: %s", constants.ENDPOINT, error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_PATIENCE_S)
    return bool(answers)


def _free_bytes() -> int:
    """Of main memory and all GPUs together."""
    import torch

    return free_host_bytes() + sum(torch.cuda.mem_get_info(device)[0] for device in range(torch.cuda.device_count()))


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _trim_heap() -> None:
    """Give freed pages back to the system; glibc keeps them otherwise, and the edit begins with less."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        return
