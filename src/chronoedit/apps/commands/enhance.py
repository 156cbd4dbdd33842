"""`chronoedit enhance`: a request in the words that the model was trained on, by a vision-language model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from chronoedit.apps.options import Switch, option
from chronoedit.apps.session import hush_libraries
from chronoedit.apps.vlm_flags import VlmFlags


@dataclass(frozen=True, kw_only=True)
class Enhance:
    """Put a request into the words that the model was trained on, by asking a vision-language model.

    The model sees the picture. Its answer is checked (English, 80 to 100 words, how it begins, quoted text) and sent
    back with what is wrong, twice at most. A server's key is read from VLM_API_KEY or OPENAI_API_KEY.
    """

    input_image: Annotated[Path | None, option("the picture that is to be edited", shown="FILE", short="i")] = None
    input_prompt: Annotated[str | None, option("the request, in your words", shown="TEXT", short="p")] = None
    print_enhancer_prompt: Annotated[Switch, option("print what the model is told, for a chat of your own")] = False
    dry_run: Annotated[Switch, option("print what would be sent, and about how many tokens; send nothing")] = False
    vlm: VlmFlags

    def run(self) -> int:
        """Print the enhanced prompt."""
        from chronoedit.vlm.prompts import ENHANCER

        if self.print_enhancer_prompt:
            print(ENHANCER)
            return 0
        if self.input_image is None or not (self.input_prompt or "").strip():
            raise ValueError("give the picture and the request: --input-image FILE --input-prompt TEXT")
        from chronoedit.editing.enhance import enhance, enhancer_question
        from chronoedit.errors import VlmError
        from chronoedit.request import EditRequest
        from chronoedit.vlm.asking import estimate_tokens, shown

        request = EditRequest(image=self.input_image, prompt=self.input_prompt or "")
        question = enhancer_question(request)
        if self.dry_run:
            print(shown(question))
            print(f"about {estimate_tokens(question)} tokens, and up to 2 repairs; nothing was sent", file=sys.stderr)
            return 0
        model = self.vlm.open()
        hush_libraries()
        try:
            answer = enhance(model, request, _typed if sys.stderr.isatty() else None)
        finally:
            model.close()
        if answer.problem is not None:
            print(answer.text, file=sys.stderr)
            raise VlmError(f"{model.name} did not manage it in {model.sent} requests. {answer.problem}")
        print(answer.text)
        return 0


def _typed(text: str) -> None:
    """Words as they come, for whoever watches."""
    print(text, end="", file=sys.stderr, flush=True)


COMMANDS: dict[str, type[Any]] = {"enhance": Enhance}
