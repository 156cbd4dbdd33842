"""Checkpoints by hub id, through `huggingface_hub`: downloaded once, resumed when interrupted, then found offline."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from chronoedit.errors import CheckpointError

EXAMPLE_ID = "nvidia/ChronoEdit-14B-Diffusers"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w][\w.-]*")
WANTED_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.md")
UNWANTED_FILES = ("*/*.fp16.*", "*/*.non_ema.*", "assets/*", "examples/*")


def is_hub_id(text: str) -> bool:
    """Whether a text has the form `owner/name` of a hub id."""
    return HUB_ID.fullmatch(text) is not None


def download(repo_id: str) -> Path:
    """The local folder of a hub id; what is not in the cache yet is downloaded, with a progress bar and resume.

    Offline (no connection, or HF_HUB_OFFLINE) a snapshot in the cache is used as it is. Raises CheckpointError when
    the id does not exist, needs a login, or cannot be reached and is not in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    failures: tuple[type[Exception], ...] = (HfHubHTTPError, OSError, *_transport_errors())
    try:
        folder = snapshot_download(repo_id, allow_patterns=list(WANTED_FILES), ignore_patterns=list(UNWANTED_FILES))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{repo_id} asks for its terms to be accepted: do so at https://huggingface.co/{repo_id}, then log in "
            f"with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"no folder {repo_id} here and no such model on the hub (or it is private); check the spelling, such as "
            f"{EXAMPLE_ID}, or log in with `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise CheckpointError(
            f"no folder {repo_id} here, it is not in the hub's cache, and the hub cannot be reached (offline, or "
            f"HF_HUB_OFFLINE is set); connect and run it again, or copy a download of it here and give its folder"
        ) from error
    except failures as error:
        raise CheckpointError(
            f"the download of {repo_id} failed ({error}); run the same command again, it goes on where it stopped"
        ) from error
    return Path(folder)


def _transport_errors() -> tuple[type[Exception], ...]:
    """Broken connections, as the HTTP library raises them that this version of the client is built on."""
    libraries = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return tuple(library.HTTPError for library in libraries)
