"""A Modelfile for Ollama (docs.ollama.com/modelfile): `ollama create NAME -f Modelfile`, `ollama run NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from custom_llm.common.files import MARK
from custom_llm.config.sampling import Sampling

# field of `Sampling` → Ollama's name for it
PARAMETERS = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
              "repeat_penalty": "repeat_penalty"}  # fmt: skip


def make_modelfile(paths: Sequence[str | Path], block_size: int, end_of_text: str | None, license: str = "") -> str:
    """The Modelfile for files that lie in its own folder.

    Args:
        paths: GGUF files of the same model; it is for the last one, and the others are comments.
        block_size: tokens that the model reads at once.
        end_of_text: the token at which a text ends, if there is one.
    """
    sampling = Sampling()
    lines = [f"# {MARK}", *(f"# FROM {_source(path)}" for path in paths[:-1]), f"FROM {_source(paths[-1])}"]
    lines.append('TEMPLATE "{{ .Prompt }}"')  # it continues what is typed, and knows no roles
    lines.append(f"PARAMETER num_ctx {block_size}")
    lines += [f"PARAMETER {theirs} {getattr(sampling, ours)}" for ours, theirs in PARAMETERS.items()]
    if end_of_text is not None:
        lines.append(f"PARAMETER stop {_quoted(end_of_text)}")
    if license:
        lines.append(f"LICENSE {_quoted(license)}")
    return "\n".join(lines) + "\n"


def ollama_reads(name: str) -> bool:
    """Whether a file of this name can be named in a Modelfile, which drops what is unseen and ends at line breaks."""
    return name.isprintable() and name == name.strip()


def _source(path: str | Path) -> str:
    """A path relative to the Modelfile; it ends with the line, so that spaces and quotes in it need no others."""
    return f"./{Path(path).name}"


def _quoted(text: str) -> str:
    """As Ollama unquotes it: what stands between the outermost quotes, without escapes."""
    return f'"""{text}"""' if '"' in text else f'"{text}"'
