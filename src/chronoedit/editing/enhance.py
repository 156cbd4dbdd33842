"""A request in the words that the model was trained on, by a vision-language model, before the edit begins."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from chronoedit.errors import VlmError
from chronoedit.media import load_image
from chronoedit.request import EditRequest
from chronoedit.vlm.asking import Answer, Question, VisionModel
from chronoedit.vlm.checks import enhanced_prompt_problem
from chronoedit.vlm.prompts import ENHANCER, enhancer_text

logger = logging.getLogger(__name__)


def enhancer_question(request: EditRequest) -> Question:
    """What the model is asked: the picture and the user's words. Raises ImageError."""
    return Question(instructions=ENHANCER, text=enhancer_text(request.prompt), images=(load_image(request.image),))


def enhance(model: VisionModel, request: EditRequest, on_text: Callable[[str], None] | None = None) -> Answer:
    """An English paragraph of 80 to 100 words for the request; `problem` says what is still wrong after two repairs.

    Raises VlmError when the model cannot be asked or refuses, ImageError.
    """
    return model.ask(
        enhancer_question(request), lambda text: enhanced_prompt_problem(text, request.prompt), on_text=on_text
    )


def enhanced(model: VisionModel, request: EditRequest, *, require: bool = False) -> EditRequest:
    """The request with an enhanced prompt, the user's own kept as `original_prompt`; the model is then closed.

    When the model fails, that is logged and the request is given back as it is; with `require` it raises VlmError.
    """
    try:
        answer = enhance(model, request)
        if answer.problem is not None:
            raise VlmError(
                f"the answer of {model.name} is not as it must be after {model.sent} requests: {answer.problem}"
            )
    except VlmError as error:
        if require:
            raise
        logger.warning("the prompt is not enhanced, the edit goes on with yours: %s", error)
        return request
    finally:
        model.close()
    return replace(request, prompt=answer.text, original_prompt=request.prompt)
