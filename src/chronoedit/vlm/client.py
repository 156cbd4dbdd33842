"""A vision-language model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, or a hosted one."""

from __future__ import annotations

import base64
import io
import ipaddress
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from chronoedit.cache import content_key
from chronoedit.errors import MissingExtraError, VlmError
from chronoedit.ledger import Ledger
from chronoedit.media import image_sha256

logger = logging.getLogger(__name__)

SHORTEST_SIDE_PX = 1080
JPEG_QUALITY = 95
NO_KEY = "none"  # local servers want some key, and take any


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: instructions, the user's words, and pictures that go before them."""

    instructions: str
    text: str
    images: tuple[Image.Image, ...] = ()
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back; `problem` is what is still wrong with it, `cached` whether it was known already."""

    text: str
    problem: str | None = None
    cached: bool = False


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where the server is and how it is treated; `url` ends in /v1 as a rule.

    A request that times out, drops, or meets a busy server is sent again up to `max_retries` times, later each time.
    Not more than `max_requests` are sent in all. `answers` is a file in which answers are kept, to be used again.
    Raises ValueError for what is no address or limit.
    """

    url: str
    model: str
    key: str = NO_KEY
    timeout_s: float = 120.0
    max_retries: int = 4
    max_requests: int | None = None
    answers: Path | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url!r} is no address of a server; give one such as http://localhost:8000/v1")
        if self.timeout_s <= 0 or self.max_retries < 0 or (self.max_requests is not None and self.max_requests < 1):
            raise ValueError(
                f"a time-out of {self.timeout_s} s, {self.max_retries} retries and {self.max_requests} requests; give "
                "positive numbers"
            )

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, as its address says."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")


@dataclass
class Server:
    """Asks a server; `sent` counts the requests."""

    settings: ServerSettings
    sent: int = 0
    _told: bool = field(default=False, init=False)

    def ask(self, question: Question, problem_of: Callable[[str], str | None], repairs: int = 2) -> Answer:
        """The answer to a question; one with a problem is sent back with it, up to `repairs` times.

        An answer without a problem is kept in `settings.answers`, and found there the next time.
        Raises VlmError when the server cannot be used, refuses, or the budget is spent; MissingExtraError.
        """
        key = self._key(question)
        known = None if self._ledger is None else self._ledger.get(key)
        if known is not None and problem_of(known["answer"]) is None:
            return Answer(text=known["answer"], cached=True)
        messages = self._messages(question)
        text = self._send(messages, question)
        problem = problem_of(text)
        for _ in range(repairs):
            if problem is None:
                break
            messages += [
                {"role": "assistant", "content": text},
                {"role": "user", "content": f"{problem} Answer again, with nothing but the corrected answer."},
            ]
            text = self._send(messages, question)
            problem = problem_of(text)
        if problem is None and self._ledger is not None:
            self._ledger.append(key, {"model": self.settings.model, "answer": text})
        return Answer(text=text, problem=problem)

    @cached_property
    def _ledger(self) -> Ledger | None:
        return None if self.settings.answers is None else Ledger(self.settings.answers)

    @cached_property
    def _client(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError('asking a server needs its client: pip install "chronoedit[vlm]"') from error
        settings = self.settings
        return openai.OpenAI(
            base_url=settings.url, api_key=settings.key, timeout=settings.timeout_s, max_retries=settings.max_retries
        )

    def _key(self, question: Question) -> str:
        """What an answer was the answer to."""
        pictures = [image_sha256(image) for image in question.images]
        settings = (question.max_tokens, question.temperature, question.seed)
        return content_key("vlm", self.settings.model, question.instructions, question.text, *pictures, *settings)

    def _messages(self, question: Question) -> list[dict[str, Any]]:
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(image)}} for image in question.images
        ]
        content.append({"type": "text", "text": question.text})
        return [{"role": "system", "content": question.instructions}, {"role": "user", "content": content}]

    def _send(self, messages: list[dict[str, Any]], question: Question) -> str:
        client, settings = self._client, self.settings  # the first says which extra is missing
        import openai

        if settings.max_requests is not None and self.sent >= settings.max_requests:
            raise VlmError(f"the budget of {settings.max_requests} requests is spent; raise it, or ask for less")
        if question.images and not settings.is_local and not self._told:
            logger.warning("pictures leave this machine for %s", urlsplit(settings.url).hostname)
            self._told = True
        self.sent += 1
        try:
            reply = client.chat.completions.create(
                model=settings.model,
                messages=messages,
                max_tokens=question.max_tokens,
                temperature=question.temperature,
                seed=question.seed,
            )
        except openai.AuthenticationError as error:
            raise VlmError(f"{settings.url} wants another key ({error.status_code}); set VLM_API_KEY") from error
        except openai.APITimeoutError as error:
            raise VlmError(f"{settings.url} did not answer within {settings.timeout_s} s, {self._tries()}") from error
        except openai.APIConnectionError as error:
            raise VlmError(f"{settings.url} cannot be reached, {self._tries()}; is the server running?") from error
        except openai.APIStatusError as error:
            raise VlmError(f"{settings.url} answered {error.status_code}: {error.message}") from error
        except (openai.OpenAIError, ValueError) as error:  # the second: no JSON
            raise VlmError(f"{settings.url} sent what cannot be read: {error}") from error
        return _text(reply, settings)

    def _tries(self) -> str:
        return f"asked {self.settings.max_retries + 1} times"


def _text(reply: Any, settings: ServerSettings) -> str:
    """The words of a reply. Raises VlmError for a refusal, an answer that was cut off, and what is no reply."""
    choices = getattr(reply, "choices", None)
    if not choices:
        raise VlmError(f"{settings.url} sent no answer; does it speak the OpenAI protocol, at this address?")
    message = choices[0].message
    if getattr(message, "refusal", None) or choices[0].finish_reason == "content_filter":
        raise VlmError(f"{settings.model} refuses to answer: {getattr(message, 'refusal', None) or 'filtered'}")
    if choices[0].finish_reason == "length":
        raise VlmError(f"the answer of {settings.model} was cut off; it may think aloud: use one that does not")
    return (message.content or "").strip()


def data_url(image: Image.Image) -> str:
    """A picture as JPEG in a data URL, its shortest side at most 1080 px."""
    image = image.convert("RGB")
    shortest = min(image.size)
    if shortest > SHORTEST_SIDE_PX:
        scale = SHORTEST_SIDE_PX / shortest
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
