"""The bindings of the shared library: how its errors are heard, and who frees what it allocates."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from custom_llm.common.errors import EXIT_USER_ERROR, UserError
from custom_llm.common.steps import step
from custom_llm.llamacpp import MISSING, is_available

if not is_available():
    raise UserError(MISSING)
try:
    import llama_cpp as c
    from llama_cpp._ggml import libggml as ggml
except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: its shared library does not load
    raise UserError(f"llama-cpp-python cannot be loaded ({error}); pip install llama-cpp-python") from None

if TYPE_CHECKING:
    from typing_extensions import Self

REDO = f"write it again with {step('convert_to_gguf')}"
_LOG_LEVEL_ERROR = 4  # GGML_LOG_LEVEL_ERROR

error_lines: deque[str] = deque(maxlen=8)  # what it has complained of; to be cleared before a call


@c.llama_log_callback
def _keep_errors(level: int, text: bytes, _user_data: object) -> None:
    if level == _LOG_LEVEL_ERROR:
        error_lines.append(text.decode("utf-8", "replace").strip())


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)
def _leave_in_one_line(message: bytes) -> None:
    """Called when llama.cpp is about to abort() with a stack dump, as it does for some damaged files."""
    failed = message.decode("utf-8", "replace").rsplit("/", 1)[-1]
    print(f"error: llama.cpp gave up: {failed}; if the .gguf is damaged, {REDO}", file=sys.stderr, flush=True)
    os._exit(EXIT_USER_ERROR)


ggml.ggml_set_abort_callback(_leave_in_one_line)
c.llama_log_set(_keep_errors, ctypes.c_void_p(0))
c.llama_backend_init()


def gpu_available() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(c.llama_supports_gpu_offload())


class Owned:
    """Something that llama.cpp allocated, freed by `close` or at the end of a `with`."""

    ptr: int | None
    _free: Callable[[int], None]  # the C function that frees it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory; what uses it must be closed first."""
        if self.ptr:
            self._free(self.ptr)
            self.ptr = None


def load_failure() -> str:
    """The first error llama.cpp logged while loading: the ones after it only say that loading failed."""
    if not error_lines:
        return "no reason given"
    _function, _, message = error_lines[0].partition(": ")
    return message.removeprefix("error loading model: ")
