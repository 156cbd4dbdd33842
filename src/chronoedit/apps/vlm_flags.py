"""The flags that say which vision-language model is asked, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from chronoedit.apps.options import PromptFlags, Switch, option

if TYPE_CHECKING:
    from chronoedit.vlm.asking import VisionModel

KEYS = ("VLM_API_KEY", "OPENAI_API_KEY")
DEFAULT_VLM = "Qwen/Qwen3-VL-30B-A3B-Instruct"


@dataclass(frozen=True, kw_only=True)
class VlmFlags:
    """The vision-language model: behind a server with --vlm-url, else opened on this machine."""

    vlm_url: Annotated[
        str | None, option("an OpenAI-compatible server, such as http://localhost:8000/v1", shown="URL")
    ] = None
    vlm_model: Annotated[
        str, option("its name there; without a server a folder or hub id", shown="NAME", also=("model",))
    ] = DEFAULT_VLM
    vlm_revision: Annotated[str | None, option("of that model, for the hub and the kept answers", shown="NAME")] = None
    vlm_device: Annotated[str | None, option("without a server: cpu, cuda, ... (default: all GPUs)", shown="NAME")] = (
        None
    )
    vlm_timeout_s: Annotated[float, option("to wait for an answer of a server", shown="S")] = 120.0
    vlm_max_retries: Annotated[int, option("times that a busy or silent server is asked again", shown="N")] = 4
    vlm_max_requests: Annotated[int | None, option("not more than so many in all", shown="N")] = None
    vlm_answers: Annotated[Path | None, option("keep answers in this file, and use them again", shown="FILE")] = None

    def place(self) -> str:
        """Where it runs, in words."""
        return f"at {self.vlm_url}" if self.vlm_url else "opened on this machine (--vlm-url asks a server)"

    def open(self, environment: Mapping[str, str] = os.environ) -> VisionModel:
        """The model; a server's key is read from the environment. Nothing is loaded or sent before it is asked.

        Raises ValueError for flags that cannot be.
        """
        from chronoedit.vlm.client import NO_KEY, Server

        if self.vlm_url is None:
            from chronoedit.vlm.local import Local

            return Local(
                name=self.vlm_model,
                revision=self.vlm_revision,
                device=self.vlm_device,
                max_requests=self.vlm_max_requests,
                answers=self.vlm_answers,
            )
        if self.vlm_device is not None:
            raise ValueError(
                f"--vlm-device {self.vlm_device} with --vlm-url: a server has its own; leave one of them out"
            )
        return Server(
            url=self.vlm_url,
            name=self.vlm_model,
            revision=self.vlm_revision,
            key=next((environment[name] for name in KEYS if environment.get(name)), NO_KEY),
            timeout_s=self.vlm_timeout_s,
            max_retries=self.vlm_max_retries,
            max_requests=self.vlm_max_requests,
            answers=self.vlm_answers,
        )


@dataclass(frozen=True, kw_only=True)
class EnhancerFlags:
    """A longer prompt first, by a vision-language model that sees the picture (see chronoedit enhance)."""

    use_prompt_enhancer: Annotated[Switch, option("ask for one; when that fails, yours is used")] = False
    prompt_enhancer_model: Annotated[
        str | None, option(f"the model that is asked (default: {DEFAULT_VLM})", shown="NAME")
    ] = None
    vlm_url: Annotated[
        str | None, option("ask it on this OpenAI-compatible server (default: opened here)", shown="URL")
    ] = None
    require_enhancer: Annotated[Switch, option("when it fails, do not edit")] = False

    def check(self, prompts: PromptFlags) -> None:
        """Raise ValueError for flags that contradict each other."""
        if not self.use_prompt_enhancer:
            if self != EnhancerFlags():
                raise ValueError(
                    "flags of the prompt enhancer without --use-prompt-enhancer; add it, or leave them out"
                )
        elif prompts.task is not None:
            raise ValueError(
                f"--task {prompts.task} needs its own words, --use-prompt-enhancer changes them; leave one of them out"
            )

    def model(self) -> VlmFlags:
        """The flags of the model that is asked."""
        return VlmFlags(vlm_url=self.vlm_url, vlm_model=self.prompt_enhancer_model or DEFAULT_VLM)
