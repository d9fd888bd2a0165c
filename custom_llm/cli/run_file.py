"""Options from a YAML file (`--config run.yaml`), and the file of all options beside an output, which repeats its run.

    train_llm:                  # a section for each script; or, without sections, the options of one script
      learning_rate: 1e-4
      dataset: tinystories

A value is read as the text that a person would type after the flag, and checked by the code that checks the flag.
Scripts import this module, and yaml with it, only when there is such a file to read or to write.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol

import yaml

from custom_llm.cli.fields import YES_OR_NO
from custom_llm.cli.yaml_file import Node, read_yaml
from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import beside, check_target, write_bytes
from custom_llm.common.notes import note
from custom_llm.common.steps import STEPS, command
from custom_llm.common.text import shown

DEPTH = 3  # the file, a section, a list
MARK = "# Written by custom-llm-scripts"  # how a file that may be written anew begins
UNASKED = ("help", "config")  # flags that are no options of a run


class Step(Protocol):
    """What is needed of `cli.StepParser`, which imports this module when there is a file."""

    script: str
    lists: Sequence[str]
    checks: dict[str, Callable[[str], Any]]
    _actions: list[argparse.Action]


def read_options(path: str, parser: Step, is_part: bool = False) -> dict[str, Any]:
    """The options that a file gives to the script of `parser`, as its flags would: attribute → value.

    Args:
        is_part: `parser` has only some of the script's options, and the others are passed over.

    Raises:
        UserError: the file cannot be read, is not such a file, or a key or value of it is wrong, by name.
    """
    actions = _actions(parser)
    names = _names(parser)
    values: dict[str, Any] = {}
    for key, node in _section(path, parser.script).items():
        if key not in names:
            if is_part:
                continue
            raise UserError(f"{path}, line {node.line}: {_no_option(key, names, parser.script)}")
        if node.value is None:
            continue
        dest = names[key]
        if dest in values:
            raise UserError(f"{path}, line {node.line}: {key} is an option of the lines above, too; give {dest} once")
        try:
            values[dest] = _value(key, node, actions[dest], parser)
        except (ValueError, UserError) as error:
            raise UserError(f"{path}: {str(error).removeprefix('--')}") from None
        except argparse.ArgumentTypeError as error:  # its message has no name in it
            raise UserError(f"{path}: {key} {error}") from None
    return values


def check_run_file(path: str | Path) -> None:
    """Raise UserError when `path` cannot be written, or holds something that `write_run_file` did not write."""
    path = check_target(path)
    if path.exists():
        with path.open("rb") as file:
            is_ours = file.read(len(MARK)) == MARK.encode()
        if not is_ours:
            raise UserError(f"{path} is there and was not written by this program; move it away or give another name")


def write_run_file(path: str | Path, parser: Step, values: Mapping[str, Any]) -> None:
    """Write all options of a run, in the order of --help, as a file that repeats it.

    Args:
        values: attribute → final value, for every option of the script; others are left out.

    Raises:
        UserError: see `check_run_file`; or the disk is full, or a text is none that YAML can hold.
    """
    check_run_file(path)
    options = {dest: _plain(dest, values[dest]) for dest in _actions(parser)}
    content = yaml.dump(
        {parser.script: options}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    again = command(parser.script, "--config", str(path))
    again = "".join(c if c.isprintable() else "?" for c in again)  # a line break would end the comment
    header = f"{MARK}, anew for every run: copy it before you change it. The same run again:\n#     {again}\n"
    write_bytes(path, (header + content).encode())


def write_beside(output: str | Path, parser: Step, values: Mapping[str, Any]) -> None:
    """`write_run_file` beside what a run has made: `model.yaml` for `model.pth`, else its name with `.yaml` after it.

    What cannot be written, or would replace a file of the person's own, is a note on stderr: the output is there.
    """
    path = beside(output, ".yaml")
    try:
        write_run_file(path, parser, values)
    except (UserError, OSError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else error
        note(f"the options of this run are not kept: {reason}")


def _actions(parser: Step) -> dict[str, argparse.Action]:
    """Attribute → the action of it, in the order of --help; where there are two, that of the flag of the same name."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        if action.dest not in UNASKED and (action.dest not in found or f"--{action.dest}" in action.option_strings):
            found[action.dest] = action
    return found


def _names(parser: Step) -> dict[str, str]:
    """Key → attribute: flags without their dashes, but for those that are another one's no."""
    names = {dest: dest for dest in _actions(parser)}
    for action in parser._actions:
        flags = [flag.removeprefix("--") for flag in action.option_strings if action.dest in names]
        names.update({name: action.dest for name in flags if name != f"no_{action.dest}"})
    return names


def _value(key: str, node: Node, action: argparse.Action, parser: Step) -> Any:
    """What the option is if this is typed after its flag, by the code that reads what is typed.

    Raises:
        ValueError, UserError: it is not such a value; the message begins with the key or its flag.
        argparse.ArgumentTypeError: the same; the message begins with the value.
    """
    check = parser.checks.get(action.dest) or action.type or str
    is_repeatable = isinstance(action.default, tuple)
    if isinstance(node.value, list):
        if not is_repeatable and action.dest not in parser.lists:
            raise ValueError(f"{key} is a list; give one value, in quotes if it is one")
        texts = [_text(f"{key} has an item that", item) for item in node.value]
        if is_repeatable:
            return [check(text) for text in texts]
        for text in texts:
            if "," in text:
                raise ValueError(f"{key} has an item with a comma, {shown(text)}; commas divide items")
        return check(",".join(texts))
    text = _text(key, node)
    if action.nargs == 0:  # flags without a value
        if text.lower() not in YES_OR_NO:
            raise ValueError(f"{key} {shown(text)} is not yes or no")
        return YES_OR_NO[text.lower()]
    return [check(text)] if is_repeatable else check(text)


def _text(what: str, node: Node) -> str:
    if not isinstance(node.value, str):
        found = {dict: "a mapping", list: "a list"}.get(type(node.value), "null")
        raise ValueError(f"{what} is {found} (line {node.line}); give one value")
    return node.value


def _section(path: str, script: str) -> dict[str, Node]:
    """What a file says to a script: the section of it, or all where there are no sections."""
    content = read_yaml(path, DEPTH)
    if not any(key in STEPS or isinstance(node.value, dict) for key, node in content.items()):
        return content
    for key, node in content.items():
        if key not in STEPS:
            wrong = "there is no section" if isinstance(node.value, dict) else "outside of the sections stands"
            raise UserError(f"{path}, line {node.line}: {wrong} {shown(key)[1:-1]}; {_nearest(key, STEPS)}")
        if node.value is not None and not isinstance(node.value, dict):
            raise UserError(f"{path}, line {node.line}: {key} is a section; give its options, one a line, indented")
    return (script in content and content[script].value) or {}


def _no_option(key: str, names: Iterable[str], script: str) -> str:
    if key.startswith("no_") and key.removeprefix("no_") in names:
        return f"there is no option {key}; write {key.removeprefix('no_')}: no"
    return f"{script} has no option {shown(key)[1:-1]}; {_nearest(key, names, f'see python {script}.py --help')}"


def _nearest(key: str, names: Iterable[str], otherwise: str = "") -> str:
    names = list(names)
    close = get_close_matches(key[:99], names, n=1)  # its time grows with the square of the length
    return f"did you mean {close[0]}?" if close else otherwise or f"there are {', '.join(names)}"


class _Dumper(yaml.SafeDumper):
    """YAML in which every text is read back as it is: without quotes NEL and U+2028, which end lines, are spaces."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def _plain(name: str, value: Any) -> Any:
    """`value` as YAML can hold it."""
    if isinstance(value, (list, tuple)):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    try:
        return str(value).encode().decode()
    except UnicodeEncodeError:
        raise UserError(f"{name} {shown(value)} is not UTF-8 text") from None
