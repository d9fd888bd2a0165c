"""The file of all options beside an output, which repeats its run (`--config trained_model.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from custom_llm.cli.parser import StepParser
from custom_llm.common.errors import UserError, describe_os_error
from custom_llm.common.files import beside, check_target, write_bytes
from custom_llm.common.notes import note
from custom_llm.common.steps import command, portable
from custom_llm.common.text import shown

MARK = "# Written by custom-llm-scripts"  # how a file that may be written anew begins


def check_run_file(path: str | Path) -> None:
    """Raise UserError when `path` cannot be written, or holds something that `write_run_file` did not write."""
    path = check_target(path)
    if path.exists():
        with path.open("rb") as file:
            is_ours = file.read(len(MARK)) == MARK.encode()
        if not is_ours:
            raise UserError(f"{path} is there and was not written by this program; move it away or give another name")


def write_run_file(path: str | Path, parser: StepParser, values: Mapping[str, Any]) -> None:
    """Write all options of a run, in the order of --help, as a file that repeats it.

    UserError as by `check_run_file`, and where the disk is full or a text cannot be written as UTF-8.

    Args:
        values: attribute → final value, for every option of the step; others are left out.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """YAML in which a text is read back as it is: without quotes NEL and U+2028, which end lines, are spaces."""

        def represent_str(self, text: str) -> yaml.Node:
            return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"')

    Dumper.add_representer(str, Dumper.represent_str)
    check_run_file(path)
    options = {dest: _plain(dest, values[dest]) for dest in parser.options()}
    content = yaml.dump(
        {parser.script: options}, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    again = portable(command(parser.script, "--config", str(path)))
    again = "".join(c if c.isprintable() else "?" for c in again)  # a line break would end the comment
    header = f"{MARK}, anew for every run: copy it before you change it. The same run again:\n#     {again}\n"
    write_bytes(path, (header + content).encode())


def write_beside(output: str | Path, parser: StepParser, values: Mapping[str, Any]) -> None:
    """`write_run_file` beside what a run has made: `model.yaml` for `model.pth`, else its name with `.yaml` after it.

    What cannot be written, or would replace a file of the person's own, is a note on stderr: the output is there.
    """
    try:
        write_run_file(beside(output, ".yaml"), parser, values)
    except (UserError, OSError) as error:
        reason = describe_os_error(error) if isinstance(error, OSError) else error
        note(f"the options of this run are not kept: {reason}")


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
