"""What goes with the files of a model when it is handed on: its card, the picture of its training, a Modelfile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import MARK, write_bytes, write_own
from custom_llm.config.sampling import Sampling
from custom_llm.export.huggingface.directory import FILES
from custom_llm.export.share.card import PICTURE, ModelCard

# field of `Sampling` → Ollama's name for it
PARAMETERS = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p",
              "repeat_penalty": "repeat_penalty"}  # fmt: skip
MOST_WRITTEN = 256  # tokens of an answer


def write_companions(card: ModelCard, folder: Path, picture: Path, end_of_text: str | None) -> list[str]:
    """Write README.md and the picture into the Hugging Face directory, and a Modelfile beside the GGUF files.

    `picture` is of the losses, if it is there; at `end_of_text` a text ends, if there is such a token. Returned are
    notes about what could not be written; the model itself is there.
    """
    notes = [_copy(picture, folder / PICTURE)]
    card = replace(card, has_picture=(folder / PICTURE).is_file())
    notes.append(write_own(folder / "README.md", card.text()))
    paths = [row.path for row in card.rows]
    name = paths[-1].name
    if name.isprintable() and name == name.strip():  # it drops what is unseen and ends at line breaks
        text = make_modelfile(paths, card.config.block_size, end_of_text, card.about.license)
        notes.append(write_own(paths[-1].with_name("Modelfile"), text))
    else:
        notes.append(f"no Modelfile: Ollama cannot be told of a file with the name {name!a}")
    return [note for note in notes if note]


def files_to_push(card: ModelCard, folder: Path) -> dict[str, Path]:
    """Path in a repository → file: what this program has written of the model, and nothing else of its folders."""
    gguf = {row.path.name: row.path for row in card.rows}
    modelfile = card.rows[-1].path.with_name("Modelfile")
    found = {**gguf, "Modelfile": modelfile, **{name: folder / name for name in (*FILES, "README.md", PICTURE)}}
    return {name: path for name, path in found.items() if path.is_file()}


def _copy(picture: Path, target: Path) -> str | None:
    """Copy the picture, or remove an earlier one where there is none; a note if that fails."""
    try:
        content = picture.read_bytes() if picture.is_file() else b""
        if content.startswith(b"\x89PNG"):
            write_bytes(target, content)
        else:
            target.unlink(missing_ok=True)
    except UserError as error:
        return f"{error}"
    except OSError as error:
        return f"cannot copy {describe_os_error(error)}"
    return None


def make_modelfile(paths: Sequence[str | Path], block_size: int, end_of_text: str | None, license: str = "") -> str:
    """A Modelfile for Ollama (docs.ollama.com/modelfile): `ollama create NAME -f Modelfile`, `ollama run NAME`.

    It is for the last of `paths`, files of the same model in its own folder; the others are comments.
    """
    # A path ends with the line, so that spaces and quotes in it need no others.
    *others, last = (f"FROM ./{Path(path).name}" for path in paths)
    lines = [f"# {MARK}", *(f"# {other}" for other in others), last]
    lines.append('TEMPLATE "{{ .Prompt }}"')  # it continues what is typed, and knows no roles
    lines.append(f"PARAMETER num_ctx {block_size}")
    # Without a number Ollama writes on for many windows, where no end was learnt; half leaves the other to the prompt.
    lines.append(f"PARAMETER num_predict {max(1, min(MOST_WRITTEN, block_size // 2))}")
    lines += [f"PARAMETER {theirs} {getattr(Sampling(), ours)}" for ours, theirs in PARAMETERS.items()]
    if end_of_text is not None:
        lines.append(f"PARAMETER stop {_quoted(end_of_text)}")
    if license:
        lines.append(f"LICENSE {_quoted(license)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """As Ollama unquotes it: what stands between the outermost quotes, without escapes."""
    return f'"""{text}"""' if '"' in text else f'"{text}"'
