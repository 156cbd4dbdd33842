"""A vision-language model behind an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, or a hosted one."""

from __future__ import annotations

import base64
import io
import ipaddress
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from chronoedit.errors import MissingExtraError, VlmCutOff, VlmError, VlmRefusal
from chronoedit.vlm.asking import OnText, Question, Turn, VisionModel, with_schema_in_words

logger = logging.getLogger(__name__)

JPEG_QUALITY = 95
NO_KEY = "none"  # local servers want some key, and take any
NO_SCHEMAS = (400, 404, 422, 501)
"""How servers answer that know no `response_format`."""


@dataclass(kw_only=True)
class Server(VisionModel):
    """Asks a server; `url` ends in /v1 as a rule, `name` is the model's there.

    A request that times out, drops, or meets a busy server is sent again up to `max_retries` times, later each time.
    Raises ValueError for what is no address or limit.
    """

    url: str
    key: str = field(default=NO_KEY, repr=False)
    timeout_s: float = 120.0
    max_retries: int = 4
    _told: bool = field(default=False, init=False)
    _takes_schemas: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{self.url!r} is no address of a server; give one such as http://localhost:8000/v1")
        if self.timeout_s <= 0 or self.max_retries < 0:
            raise ValueError(
                f"a time-out of {self.timeout_s} s and {self.max_retries} retries; give a positive time, and 0 or more"
            )

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine, as its address says."""
        host = urlsplit(self.url).hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    def close(self) -> None:
        """End the connections."""
        super().close()
        if "_client" in self.__dict__:
            self._client.close()
            del self._client

    @cached_property
    def _client(self) -> Any:
        try:
            import openai
        except ImportError as error:
            raise MissingExtraError('asking a server needs its client: pip install "chronoedit[vlm]"') from error
        return openai.OpenAI(base_url=self.url, api_key=self.key, timeout=self.timeout_s, max_retries=self.max_retries)

    def _reply(self, turns: list[Turn], question: Question, on_text: OnText | None) -> str:
        import openai

        self._tell_of_pictures(turns)
        with self._errors_in_words():
            if question.schema is None or not self._takes_schemas:
                return self._words(with_schema_in_words(turns, question), question, {}, on_text)
            try:
                return self._words(turns, question, {"response_format": _response_format(question)}, on_text)
            except openai.APIStatusError as error:
                if error.status_code not in NO_SCHEMAS or "response_format" not in str(error):
                    raise
                logger.info("%s takes no schemas; they are put in words", self.url)
                self._takes_schemas = False
                return self._words(with_schema_in_words(turns, question), question, {}, on_text)

    def _words(self, turns: list[Turn], question: Question, extra: dict[str, Any], on_text: OnText | None) -> str:
        asked = {
            "model": self.name,
            "messages": [_message(turn) for turn in turns],
            "max_tokens": question.max_tokens,
            "temperature": question.temperature,
            "seed": question.seed,
            **extra,
        }
        if on_text is None:
            return self._whole(question, self._client.chat.completions.create(**asked))
        return self._streamed(question, self._client.chat.completions.create(**asked, stream=True), on_text)

    def _whole(self, question: Question, reply: Any) -> str:
        choices = getattr(reply, "choices", None)
        if not choices:
            raise VlmError(f"{self.url} sent no answer; does it speak the OpenAI protocol, at this address?")
        message = choices[0].message
        refusal = getattr(message, "refusal", None)
        return self._finished(question, message.content, refusal, choices[0].finish_reason)

    def _streamed(self, question: Question, chunks: Any, on_text: OnText) -> str:
        text, refusal, ending = "", "", None
        for chunk in chunks:
            for choice in chunk.choices[:1]:
                piece = choice.delta.content or ""
                text, refusal = text + piece, refusal + (getattr(choice.delta, "refusal", None) or "")
                ending = choice.finish_reason or ending
                if piece:
                    on_text(piece)
        if ending is None:
            raise VlmError(f"{self.url} stopped in the middle of its answer; ask again")
        return self._finished(question, text, refusal, ending)

    def _finished(self, question: Question, text: str | None, refusal: str | None, ending: str | None) -> str:
        if refusal or ending == "content_filter":
            raise VlmRefusal(f"{self.name} refuses to answer: {refusal or 'filtered'}")
        if ending == "length":
            raise VlmCutOff(text or "", question.max_tokens)
        return text or ""

    def _tell_of_pictures(self, turns: list[Turn]) -> None:
        """Say it before the first pictures leave this machine."""
        if self.is_local or self._told or not any(turn.images for turn in turns):
            return
        self._told = True
        logger.warning("pictures leave this machine for %s", urlsplit(self.url).hostname)

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        import openai

        tries = f"asked {self.max_retries + 1} times"
        try:
            yield
        except openai.AuthenticationError as error:
            raise VlmError(f"{self.url} wants another key ({error.status_code}); set VLM_API_KEY") from error
        except openai.APITimeoutError as error:
            raise VlmError(f"{self.url} did not answer within {self.timeout_s} s, {tries}") from error
        except openai.APIConnectionError as error:
            raise VlmError(f"{self.url} cannot be reached, {tries}; is the server running?") from error
        except openai.APIStatusError as error:
            raise VlmError(f"{self.url} answered {error.status_code}: {error.message}") from error
        except (openai.OpenAIError, ValueError) as error:  # the second: no JSON
            raise VlmError(f"{self.url} sent what cannot be read: {error}") from error


def _message(turn: Turn) -> dict[str, Any]:
    if not turn.images:
        return {"role": turn.role, "content": turn.text}
    pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in turn.images]
    return {"role": turn.role, "content": [*pictures, {"type": "text", "text": turn.text}]}


def _response_format(question: Question) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": question.schema, "strict": True}}


def data_url(image: Image.Image) -> str:
    """A picture as JPEG in a data URL."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "jpeg", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
