"""What messages tell a person to type: every flag and every command in them is there."""

from __future__ import annotations

import ast
import re
import shutil
from importlib import import_module

import pytest
from conftest import ROOT, STORY, configure, run_script

from custom_llm.common.steps import STEPS

FILES = sorted((ROOT / "custom_llm").rglob("*.py"))
FLAG = re.compile(r"(?<![\w-])--([a-z]\w+)")
# Of other programs: torchrun, pip, git and llama.cpp's.
OTHERS = {"nproc", "python", "standalone", "logdir", "no_", "version", "metadata", "outfile", "outtype", "merge"}


@pytest.fixture(scope="module")
def flags() -> dict[str, set[str]]:
    """Step → its flags."""
    parsers = {script: import_module(f"custom_llm.commands.{module}").make_parser() for script, module in STEPS.items()}
    return {
        script: {flag[2:] for action in parser._actions for flag in action.option_strings if flag.startswith("--")}
        for script, parser in parsers.items()
    }


def texts(path):
    """(line, text) of every string of a module that is no docstring; of an f-string its fixed parts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.lineno, node.value


def test_every_flag_in_a_message_is_one_of_a_step(flags):
    known = set().union(*flags.values()) | OTHERS
    wrong = [
        f"{path}, line {line}: --{flag}"
        for path in FILES for line, text in texts(path) for flag in FLAG.findall(text) if flag not in known
    ]  # fmt: skip
    assert not wrong


def test_a_command_in_a_message_has_the_flags_it_is_shown_with(flags):
    wrong = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("command", "next_step")):
                continue
            words = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            if words and words[0] in STEPS:
                found = {flag for word in words[1:] for flag in FLAG.findall(word)}
                wrong += [f"{path}, line {node.lineno}: {words[0]} --{flag}" for flag in found - flags[words[0]]]
    assert not wrong


def commands_in(text):
    """(script, its flags and their values) of every command that a message tells to type."""
    for script, rest in re.findall(r"python (\w+\.py)([^\n]*)", text):
        words, is_flag = [], False
        for word in rest.split() if not rest.startswith((";", ",", ".", ")")) else []:
            if not (word.startswith("--") or is_flag):
                break
            is_flag = word.startswith("--")
            words.append(word.rstrip(";,.)"))
            if word != words[-1]:
                break
        yield script, words


# What was done in a folder with a text, a model or nothing → what went wrong there.
SITUATIONS = {
    "no model to train": ("text", "train_llm.py", "--dataset_path input.txt"),
    "not trained": ("model", "convert_to_gguf.py", ""),
}
LONGER = {
    "nothing to write with": ("text", "inference_gguf.py", "--query a"),
    "model too large": ("model", "train_llm.py", "--max_epochs 1"),
    "no model to convert": ("text", "convert_to_gguf.py", ""),
    "nothing to serve": ("text", "serve_gguf.py", ""),
    "diverged": ("model", "train_llm.py", "--learning_rate 9 --grad_clip 0 --optimizer adamw --max_epochs 30"),
    "not enough training": ("model", "train_llm.py", "--max_iters 4"),
}
SHORT = {"quickstart.py": ["--minutes", "0.01"], "train_llm.py": ["--max_iters", "3"], "serve_gguf.py": ["--help"]}


@pytest.mark.parametrize("situation", [*SITUATIONS, *(pytest.param(each, marks=pytest.mark.slow) for each in LONGER)])
def test_what_a_message_says_to_type_works(situation, tmp_path):
    there, script, flags = (SITUATIONS | LONGER)[situation]
    (tmp_path / "input.txt").write_text(STORY * 8, encoding="utf-8")
    if there == "model":
        configure(tmp_path, n_embd=64, n_head=2, n_layer=2, block_size=16, dropout=0.0)
    done = run_script(script, *flags.split(), cwd=tmp_path)
    commands = list(commands_in(done.stderr))
    assert commands, done.stderr
    for number, (script, words) in enumerate(commands):  # each is one of several that one may choose among
        words = [*SHORT.get(script, []), *words] if "--resume" not in words else words
        folder = tmp_path.with_name(f"{tmp_path.name}-{number}")
        shutil.copytree(tmp_path, folder)
        followed = run_script(script, *words, cwd=folder)
        assert followed.status == 0, f"{done.stderr}\n{script} {words}\n{followed.stderr}"
