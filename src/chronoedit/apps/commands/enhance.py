"""`chronoedit enhance`: a request in the words that the model was trained on, by a vision-language model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from chronoedit.apps.options import Switch, option

if TYPE_CHECKING:
    from chronoedit.vlm.client import Server

KEYS = ("VLM_API_KEY", "OPENAI_API_KEY")


@dataclass(frozen=True, kw_only=True)
class VlmFlags:
    """The vision-language model that is asked."""

    vlm_url: Annotated[
        str | None, option("an OpenAI-compatible server, such as http://localhost:8000/v1", shown="URL")
    ] = None
    model: Annotated[str, option("its name there", shown="NAME", also=("vlm-model",))] = (
        "Qwen/Qwen3-VL-30B-A3B-Instruct"
    )
    vlm_timeout_s: Annotated[float, option("to wait for an answer", shown="S")] = 120.0
    vlm_max_retries: Annotated[int, option("times that a busy or silent server is asked again", shown="N")] = 4
    vlm_answers: Annotated[Path | None, option("keep answers in this file, and use them again", shown="FILE")] = None

    def server(self, environment: Mapping[str, str] = os.environ) -> Server:
        """The server; its key is read from the environment. Raises ValueError without an address."""
        from chronoedit.vlm.client import NO_KEY, Server, ServerSettings

        if self.vlm_url is None:
            raise ValueError(
                "no server was given to ask; start one (vllm serve, llama-server, ollama serve) and give its address "
                "with --vlm-url. Or paste --print-enhancer-prompt into a chat of your own"
            )
        key = next((environment[name] for name in KEYS if environment.get(name)), NO_KEY)
        return Server(
            ServerSettings(
                url=self.vlm_url,
                model=self.model,
                key=key,
                timeout_s=self.vlm_timeout_s,
                max_retries=self.vlm_max_retries,
                answers=self.vlm_answers,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Enhance:
    """Put a request into the words that the model was trained on, by asking a vision-language model.

    The model sees the picture. Its answer is checked (English, 80 to 100 words, how it begins, quoted text) and sent
    back with what is wrong, twice at most. A key is read from VLM_API_KEY or OPENAI_API_KEY.
    """

    input_image: Annotated[Path | None, option("the picture that is to be edited", shown="FILE", short="i")] = None
    input_prompt: Annotated[str | None, option("the request, in your words", shown="TEXT", short="p")] = None
    print_enhancer_prompt: Annotated[Switch, option("print what the model is told, for a chat of your own")] = False
    vlm: VlmFlags

    def run(self) -> int:
        """Print the enhanced prompt."""
        from chronoedit.vlm.prompts import ENHANCER, enhancer_text

        if self.print_enhancer_prompt:
            print(ENHANCER)
            return 0
        if self.input_image is None or not (self.input_prompt or "").strip():
            raise ValueError("give the picture and the request: --input-image FILE --input-prompt TEXT")
        server = self.vlm.server()
        from chronoedit.errors import VlmError
        from chronoedit.media import load_image
        from chronoedit.vlm.checks import enhanced_prompt_problem
        from chronoedit.vlm.client import Question

        request = self.input_prompt or ""
        image = load_image(self.input_image)
        question = Question(instructions=ENHANCER, text=enhancer_text(request), images=(image,))
        answer = server.ask(question, lambda text: enhanced_prompt_problem(text, request))
        if answer.problem is not None:
            print(answer.text, file=sys.stderr)
            raise VlmError(f"{self.vlm.model} did not manage it in {server.sent} requests. {answer.problem}")
        print(answer.text)
        return 0


COMMANDS: dict[str, type[Any]] = {"enhance": Enhance}
