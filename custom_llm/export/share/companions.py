"""What goes with the files of a model when it is handed on: its card, the picture of its training, a Modelfile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import write_bytes, write_own
from custom_llm.export.huggingface.directory import FILES
from custom_llm.export.share.card import PICTURE, ModelCard
from custom_llm.export.share.modelfile import make_modelfile, ollama_reads


def write_companions(card: ModelCard, folder: Path, picture: Path, end_of_text: str | None) -> list[str]:
    """Write README.md and the picture into the Hugging Face directory, and a Modelfile beside the GGUF files.

    Args:
        picture: of the losses, if it is there.
        end_of_text: the token at which a text ends, if there is one.

    Returns:
        Notes about what could not be written; the model itself is there.
    """
    notes = [_copy(picture, folder / PICTURE)]
    card = replace(card, has_picture=(folder / PICTURE).is_file())
    notes.append(write_own(folder / "README.md", card.text()))
    paths = [row.path for row in card.rows]
    if ollama_reads(paths[-1].name):
        text = make_modelfile(paths, card.config.block_size, end_of_text, card.about.license)
        notes.append(write_own(paths[-1].with_name("Modelfile"), text))
    else:
        notes.append(f"no Modelfile: Ollama cannot be told of a file with the name {paths[-1].name!a}")
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
