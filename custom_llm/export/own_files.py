"""Texts that every export writes anew, unless a person has made them their own."""

from __future__ import annotations

from pathlib import Path

from custom_llm.errors import UserError, describe_os_error
from custom_llm.files import check_target, write_bytes

MARK = "Written by custom-llm-scripts, anew with every export: without this line it stays as it is."


def write_own(path: Path, content: str) -> str | None:
    """Write a text that has MARK in it to `path`; a note for the person if that cannot be, or would destroy theirs."""
    try:
        path = check_target(path)  # a pipe would wait for a writer
        if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
            return f"{path} is there and is not, or no longer, one that this program writes; it stays as it is"
        write_bytes(path, content.encode("utf-8", "replace"))
    except UserError as error:
        return f"{error}"
    except OSError as error:
        return f"cannot write {describe_os_error(error)}"
    return None
