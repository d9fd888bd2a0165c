"""Files of a model on the Hugging Face hub, or why they cannot be had."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SECONDS_FOR_HUB = 10


class HubError(Exception):
    """Why the hub does not give a model, and the way out, where there is one whatever is wanted of it."""

    def __init__(self, reason: str, way_out: str = "") -> None:
        super().__init__(f"{reason}; {way_out}" if way_out else reason)
        self.reason, self.way_out = reason, way_out


class NotReached(HubError):
    """The hub cannot be asked here and now, and its cache has nothing of the model."""


def is_name(name: str) -> bool:
    """Whether a model on the hub could have this name: owner/name, or one word."""
    from huggingface_hub import errors
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except errors.HFValidationError:
        return False
    return True


def download(name: str, files: Iterable[str]) -> Path | None:
    """The folder of what a model has of `files`, None where that is nothing; from the hub's cache if it is not reached.

    HubError where there is no such model, or it is not given.
    """
    from huggingface_hub import errors, hf_hub_download

    online = hub_answers()
    folder = None
    for file in files:
        try:
            folder = _root(hf_hub_download(name, file, local_files_only=not online), file)
        except errors.GatedRepoError:
            raise HubError(
                "the hub gives it only to those who were allowed",
                "log in with hf auth login, or give a folder that holds it",
            ) from None
        except errors.RepositoryNotFoundError:
            raise HubError("no such folder, and no such model on the hub") from None
        except errors.LocalEntryNotFoundError:
            if online:
                raise NotReached("no such folder, and the Hugging Face hub cannot be reached") from None
        except errors.EntryNotFoundError:
            pass
        except Exception as error:  # of the HTTP client, of the disk, or what the library makes of an odd answer
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise HubError(f"the hub does not give {file} ({reason})", "give a folder") from None
    if folder is None and not online:
        raise NotReached("no such folder, and the Hugging Face hub cannot be reached")
    return folder


def bytes_of(name: str, files: Iterable[str]) -> int:
    """How large files of a model on the hub are together; 0 where it does not say so."""
    from huggingface_hub import get_paths_info

    try:
        return sum(getattr(found, "size", 0) or 0 for found in get_paths_info(name, list(files)))
    except Exception:  # as above; whatever is wrong, the download will tell
        return 0


def hub_answers() -> bool:
    """Whether the hub can be reached: asked once and briefly, since its library tries each file for half a minute."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS_FOR_HUB)
    except Exception:  # of the library's HTTP client, whichever that is, or because HF_HUB_OFFLINE is set
        return False
    return True


def _root(path: str, file: str) -> Path:
    """The folder below which a downloaded file stands."""
    return Path(path).parents[len(Path(file).parts) - 1]
