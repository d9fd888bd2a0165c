"""Who may import whom: data flows one way, question → config → model → weights → file → text.

Imports are looked at where a module is loaded, at the head of its file: those inside functions are of what is slow to
import or optional, and belong to whoever calls the function.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT

PACKAGE = ROOT / "custom_llm"

# folder → the folders it may import
ALLOWED = {
    "common": "",
    "cli": "common",
    "config": "common cli",
    "tokenizer": "common",
    "data": "common tokenizer",
    "model": "common config tokenizer",
    "training": "common config tokenizer data model",
    "llamacpp": "common config",
    "export": "common config tokenizer model llamacpp",
    "base": "common config tokenizer model export",
    "inference": "common cli config tokenizer model export llamacpp",
    "server": "common cli config inference llamacpp",
    "evaluation": "common config tokenizer data model export inference llamacpp",
    "commands": "common cli config tokenizer data model training llamacpp export base inference server evaluation",
}
FILES = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
FILES = {name.removesuffix(".__init__"): path for name, path in FILES.items()}


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All that runs when a module is loaded, and what a type checker looks at."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from statements(child)


def imported(name: str) -> set[str]:
    """The modules of the package that a module imports at its head."""
    found = set()
    for node in statements(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} & {node.module, *FILES}
    return {module for module in found if module.startswith("custom_llm.")} - {name}


def test_the_package_holds_folders_only():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}
    assert {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()} == set(ALLOWED)


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_it_may(folder):
    for name in FILES:
        if name.split(".")[1:2] == [folder]:
            folders = {module.split(".")[1] for module in imported(name)}
            assert folders <= {folder, *ALLOWED[folder].split()}, name


@pytest.mark.parametrize("depth", [2, 3, 9], ids=["folders", "folders in them", "files"])
def test_there_is_no_circle(depth):
    graph: dict[str, set[str]] = {}
    for name in FILES:
        node = shortened(name, depth)
        graph.setdefault(node, set()).update(shortened(module, depth) for module in imported(name))
    TopologicalSorter({node: seen - {node} for node, seen in graph.items()}).prepare()  # raises CycleError


def shortened(name: str, depth: int) -> str:
    """A module as its folder of that depth; a package's own names are looked at where they are defined."""
    return ".".join(name.split(".")[:depth])


def test_no_module_imports_a_script_of_the_root():
    scripts = {script.stem for script in ROOT.glob("*.py")}
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not scripts & {module.split(".")[0] for module in modules}, name


def loaded(code: str, cwd: Path = ROOT) -> set[str]:
    """The modules that are loaded after some code."""
    code = f"import sys\n{code}\nprint('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("loaded")[2].split())


@pytest.mark.parametrize("module", ["custom_llm.inference.engine", "inference_gguf", "serve_gguf", "custom_llm.config"])
def test_running_a_gguf_needs_no_torch(module):
    assert not {"torch", "transformers"} & loaded(f"import {module}")


@pytest.mark.parametrize("folder", ["inference", "server", "config", "cli", "common"])
def test_no_module_of_a_part_that_runs_ggufs_needs_torch(folder):
    names = [name for name in FILES if name.startswith(f"custom_llm.{folder}") and not name.endswith("torch_engine")]
    assert not {"torch", "transformers"} & loaded(f"import {', '.join(names)}")


@pytest.mark.parametrize("script", sorted(path.stem for path in ROOT.glob("*.py")))
def test_help_needs_no_torch(script):
    code = f"import {script}\ntry: {script}.main(['--help'])\nexcept SystemExit: pass"
    assert not {"torch", "transformers"} & loaded(code)
