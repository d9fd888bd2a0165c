"""A model that is there already, when another one is about to be written in its place."""

from __future__ import annotations

from pathlib import Path

from custom_llm.common.aside import OF_CONFIG, OF_MODEL, family, is_dated, may_replace, set_aside
from custom_llm.common.errors import UserError
from custom_llm.model.archive import Label, label_of
from custom_llm.model.files import Origin, SavedConfig, base_path, load_config

DEFAULT_MODEL = "trained_model.pth"  # which older versions have not labelled


def keep_trained(config_path: str | Path, base: Origin | None = None) -> None:
    """Before step 1 writes a configuration: keep one that is of a trained model, and that model with it.

    What is no configuration is kept as well, and so are weights to start from, unless those of the same model are about
    to be written. base: of which they are; None: there will be none.
    """
    path = Path(config_path)
    if not path.is_file() or not path.stat().st_size:
        if (left := base_path(path)).exists():  # whose configuration is gone
            set_aside([(left, [left])])
        return
    saved = _config(path)
    if saved is not None and not is_trained(saved):  # made by step 1, which makes it again
        if base_path(path).exists() and (base is None or saved.base != base):
            set_aside([(path, family(path, OF_CONFIG))])
        return
    if may_replace(f"{path}, {_described(saved)}"):
        if base is None:
            base_path(path).unlink(missing_ok=True)
        return
    models = [] if saved is None else _models(path, saved.training_id)
    set_aside([(path, family(path, OF_CONFIG)), *((model, family(model, OF_MODEL)) for model in models)])


class EarlierModel:
    """The model at `model_path`, before a training writes another one there.

    To be made before the training is prepared, since it may ask; nothing is moved before `set_aside`.
    """

    def __init__(self, model_path: str | Path, config_path: str | Path, ask: bool = True) -> None:
        self._model, self._config = Path(model_path), Path(config_path)
        there = family(self._model, OF_MODEL[:1])
        self._saved = _config(self._config) if there else None
        is_kept = there and there[0].is_file() and there[0].stat().st_size
        self._kept = bool(is_kept) and not (ask and may_replace(f"{there[0]}, {_described(self._saved)}"))

    def set_aside(self) -> None:
        """Rename it with all that was made with it, and copy its configuration, from which the next one begins."""
        if not self._kept:
            return
        own = [(self._config, family(self._config, OF_CONFIG))] if self._is_of_config() else []
        set_aside([(self._model, family(self._model, OF_MODEL)), *own], copied=own[0][1] if own else ())

    def _is_of_config(self) -> bool:
        if self._saved is None or not is_trained(self._saved):
            return False
        return self._saved.training_id == label_of(family(self._model, OF_MODEL)[0]).training


def is_trained(saved: SavedConfig) -> bool:
    """Whether a training has completed a configuration; one that starts from a base has a tokenizer before."""
    return saved.tokenizer is not None and (saved.base is None or bool(saved.training_id))


def _config(path: Path) -> SavedConfig | None:
    try:
        return load_config(path)
    except UserError:
        return None


def _models(config_path: Path, training: str) -> list[Path]:
    """The models beside a configuration that are of its training."""
    if not training:
        default = config_path.with_name(DEFAULT_MODEL)
        return [default] if default.is_file() and label_of(default) == Label() else []
    others = [path for path in sorted(config_path.parent.glob("*.pth")) if not is_dated(path) and path != config_path]
    return [path for path in others if label_of(path) == Label("weights", training)]


def _described(saved: SavedConfig | None) -> str:
    if saved is None or not saved.training.dataset:
        return "which was made before"
    return f"a model that learnt from {saved.training.dataset}"
