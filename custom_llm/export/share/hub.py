"""Pushing a model to the Hugging Face hub. The only module that imports huggingface_hub, and only when it is used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from custom_llm.common.errors import UserError
from custom_llm.common.notes import is_terminal, note, say

FLAG = "--push_to_hub"
TOKEN = "make a token that may write at huggingface.co/settings/tokens, and run: hf auth login (or set HF_TOKEN)"
KEPT = "the files are here; the same command tries again"

# status of an answer → what to say
_ANSWERS = {
    401: f"the hub does not know this token; {TOKEN}",
    402: f"the hub asks for a payment, so a quota may be used up; see huggingface.co/settings/billing; {KEPT}",
    403: f"this token may not write there; is the owner right? If so, {TOKEN}",
    404: f"there is no such owner or repository, or this token may not see it; check the name; {KEPT}",
    409: f"somebody changed it at the same time, or the name is taken; give another name; {KEPT}",
    412: f"somebody changed it at the same time; {KEPT}",
    413: f"it is larger than the hub takes from this account; push fewer types, or free space; {KEPT}",
    429: f"too many requests in a short time; wait some minutes; {KEPT}",
}


def check_push(repo: str) -> None:
    """Raise UserError, before the work begins, where a push cannot succeed: an invalid name, or no token."""
    try:
        from huggingface_hub import get_token
        from huggingface_hub.utils import HFValidationError, validate_repo_id
    except ImportError:
        raise UserError(f"{FLAG} needs huggingface_hub: pip install huggingface_hub") from None
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise UserError(
            f"{FLAG} {repo[:100]!a} is no name of a repository; give owner/name of letters, digits, - _ and ."
        ) from None
    if get_token() is None:
        raise UserError(f"{FLAG} {repo}: there is no token; {TOKEN}")


def push(repo: str, files: Mapping[str, Path], public: bool, message: str) -> str:
    """Make the repository if there is none, and add the files to it in one commit, all of them or none.

    Args:
        repo: owner/name, or a name of the account that the token is of; its address is returned.
        files: path in the repository → file.
        public: whether all may see it; then a repository that is there may be public, too.

    Raises:
        UserError: it cannot be done here and now; the local files are as they were.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars

    if not is_terminal(sys.stderr):
        disable_progress_bars()
    api = HfApi()
    try:
        address = api.create_repo(repo, private=not public, exist_ok=True)
        repo = address.repo_id
        is_public = not api.model_info(repo).private
        if is_public and not public:
            raise UserError(f"{FLAG} {repo}: it is there and all may see it; give --public if this model is for all")
        size = sum(path.stat().st_size for path in files.values()) / 1e6
        whom = "public" if is_public else "private"
        say(f"pushing {len(files)} files, {size:,.1f} MB, to {repo} ({whom})")
        operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
        api.create_commit(repo, operations, commit_message=message)
        if public and not is_public:
            note(f"{repo} was there and is private; its settings on the hub open it")
        return str(address)
    # Answers of the hub; the network's, by whatever client the library has; a file's; and what it makes of these.
    except (HfHubHTTPError.__bases__[0], OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{FLAG} {repo}: {_explain(error)}") from None


def _explain(error: BaseException) -> str:
    """What to say about a push that failed."""
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            said = getattr(cause, "server_message", None) or cause
            return _ANSWERS.get(status, f"the hub answers {status}: {_short(said)}; {KEPT}")
    return f"the hub was not reached, or not to the end ({_short(causes[-1])}); {KEPT}"


def _short(error: object) -> str:
    """The first line of a message."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
