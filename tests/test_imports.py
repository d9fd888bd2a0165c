"""Who may import whom: data flows one way, question → config → model → weights → file → text."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, ROOT

PACKAGE = ROOT / "custom_llm"
FOUNDATION = {"blocks", "config", "errors", "files", "options", "progress", "signals", "windows"}

# part of the package → the parts it may import
ALLOWED = {
    "options": set(),
    "blocks": {"options"},
    "config": {"blocks", "expressions", "options"},
    "presets": {"blocks", "config"},
    "errors": set(),
    "evaluate": FOUNDATION | {"evaluation", "held_out", "inference", "quantized", "samples", "scorers"},
    "exports": set(),
    "expressions": set(),
    "cli": {"errors", "run_file"},
    "files": {"errors"},
    "held_out": FOUNDATION | {"data", "scorers", "training"},
    "judges": FOUNDATION | {"evaluation", "inference"},
    "llamacpp": {"errors"},
    "omp": set(),
    "open_engine": {"errors", "inference", "llamacpp", "torch_engine"},
    "progress": set(),
    "quantized": FOUNDATION | {"evaluation", "export", "inference", "scorers", "torch_engine"},
    "run_file": {"errors", "files", "options", "yaml_file"},
    "samples": FOUNDATION | {"inference", "scorers"},
    "scorers": FOUNDATION | {"data", "export", "inference", "model", "torch_engine"},
    "signals": set(),
    "sizes": {"config"},
    "torch_engine": {"data.tokenizer", "export", "inference", "llamacpp", "model"},
    "torchrun": {"errors"},
    "windows": set(),
    "wizard": {"cli", "config", "errors", "options"},
    "yaml_file": {"errors", "options"},
    "data": FOUNDATION,
    "model": FOUNDATION,
    "training": FOUNDATION | {"data", "model", "sizes", "torchrun"},
    "export": FOUNDATION | {"data.bpe", "data.tokenizer", "inference.sampling", "llamacpp", "model"},
    "inference": {"config", "errors", "files", "llamacpp", "options", "progress", "windows", "wizard"},
    "server": {"errors", "inference", "llamacpp", "options"},
    "evaluation": FOUNDATION,
}


def imported_modules(path):
    """Every module a file imports, at its head or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_part_may(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = {f"custom_llm.{name}" for name in ALLOWED[part] | {part}}
    scripts = {script.stem for script in ROOT.glob("*.py")}
    for module in imported_modules(path):
        assert module.split(".")[0] not in scripts, f"the package imports the root script {module}"
        if module.split(".")[0] == "custom_llm":
            fits = any(module == name or module.startswith(f"{name}.") for name in allowed)
            assert fits, f"{part} may not import {module}"


@pytest.mark.parametrize("module", ["custom_llm.inference.engine", "inference_gguf", "serve_gguf", "custom_llm.config"])
def test_running_a_gguf_needs_no_torch(module):
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert not {"torch", "transformers"} & set(done.stdout.split())
