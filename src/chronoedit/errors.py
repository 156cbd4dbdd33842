"""The few exceptions that users meet; each message says what was given, what was expected and what to do."""

from __future__ import annotations


class ChronoEditError(Exception):
    """Base of every failure of the input or the machine; the command line prints it without a traceback."""


class ImageError(ChronoEditError):
    """An input picture or video that cannot be read or is refused."""


class CheckpointError(ChronoEditError):
    """A model folder, file or hub id that cannot be loaded."""


class LoraError(ChronoEditError):
    """A LoRA file that cannot be read, or that does not match the model."""


class OutputError(ChronoEditError):
    """A result that cannot be written."""


class OutOfMemory(ChronoEditError):
    """There is not enough memory for an edit; `stage` is where it ran out."""

    def __init__(self, stage: str, detail: str) -> None:
        super().__init__(f"out of memory in the stage '{stage}' ({detail}); a smaller height and width take less")
        self.stage = stage
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.stage, self.detail)


class NotFinite(ChronoEditError):
    """An edit that became NaN or infinite; the message names the stage, the step and the settings."""


class EditCancelled(ChronoEditError):
    """The progress callback asked for the edit to stop."""


class MissingExtraError(ChronoEditError):
    """An optional package is missing; the message names the extra to install."""


class DataError(ChronoEditError):
    """A training set, or one of its rows, that cannot be read."""


class TrainingError(ChronoEditError):
    """A training run that cannot go on."""


class VlmError(ChronoEditError):
    """A vision-language model that cannot be asked, refuses, or does not answer as it must."""


class VlmRefusal(VlmError):
    """A vision-language model that will not answer."""


class VlmCutOff(VlmError):
    """An answer that reached the limit of tokens; `text` is what there is of it."""

    def __init__(self, text: str, max_tokens: int) -> None:
        super().__init__(f"It was cut off after {max_tokens} tokens: it must be shorter, without thinking aloud.")
        self.text = text
