"""Files of another model, where those of this one are about to be written."""

from __future__ import annotations

from pathlib import Path

from custom_llm.common.aside import family, may_replace, set_aside
from custom_llm.common.errors import UserError
from custom_llm.export.about import About
from custom_llm.export.adapter import adapter_path
from custom_llm.export.huggingface.directory import read_about

WORDS = ("description", "dataset", "training", "example")  # by which a model is known; the others a person gives


def keep_others(about: About, gguf_output: str | Path, hf_dir: str | Path) -> None:
    """Give GGUF files and the directory of another model a dated name, unless a person says that they may go.

    about: the words of the model that is about to be written.
    """
    base, folder = Path(gguf_output), Path(hf_dir)
    ours = {name: getattr(about, name) for name in WORDS}
    families = []
    files = [*family(base, (".yaml",)), *sorted(base.parent.glob(f"{base.name}.*.gguf")), adapter_path(base)]
    files = [path for path in files if path.is_file()]
    if any(path.suffix == ".gguf" and _words_of_gguf(path) not in (None, ours) for path in files):
        families.append((base, files))
    if _words_of_directory(folder) not in (None, ours) and not any(map(_is_output, folder.iterdir())):
        families.append((folder, [folder]))
    if families and not may_replace(f"{families[0][0]}, of another model"):
        set_aside(families)


def _is_output(path: Path) -> bool:
    """Whether a folder is more than the directory of a model: all is written into one."""
    return path.suffix in (".pth", ".gguf")


def _words_of_gguf(path: Path) -> dict[str, str] | None:
    """The words of a GGUF file; None where it cannot be read, and is nothing to keep."""
    from gguf import GGUFReader

    keys = {text: key for key, text in About(**{name: name for name in WORDS}).to_gguf().items()}
    try:
        fields = GGUFReader(path).fields
        return {name: str(fields[keys[name]].contents()) if keys[name] in fields else "" for name in WORDS}
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return None


def _words_of_directory(folder: Path) -> dict[str, str] | None:
    try:
        about = read_about(folder)
    except UserError:
        return None
    return {name: getattr(about, name) for name in WORDS}
