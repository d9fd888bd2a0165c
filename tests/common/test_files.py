"""Several processes at one file: who is killed leaves nothing, and nobody takes what another one writes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ENVIRONMENT

from custom_llm.common import files
from custom_llm.common.errors import UserError
from custom_llm.common.files import locked, remove_abandoned, replacing, scratch_folder, write_bytes

WRITES = """if True:
    import sys, time
    from custom_llm.common.files import replacing, scratch_folder
    from pathlib import Path
    with replacing("m.gguf") as path, scratch_folder(Path(), ".converting-") as folder:
        path.write_bytes(b"half")
        (folder / "config.json").touch()
        print("inside", flush=True)
        sys.stdin.read()
"""
LOCKS = """if True:
    import sys
    from custom_llm.common.files import locked
    with locked(sys.argv[1], "give another name"):
        print("inside", flush=True)
        sys.stdin.read()
"""


def inside(code: str, *arguments: str, cwd: Path) -> subprocess.Popen:
    """A process that has come to the place where it waits for its input to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=cwd, env=ENVIRONMENT, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "inside\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_a_killed_process_has_left_is_removed_and_nothing_that_another_one_writes(tmp_path):
    killed, writing = (inside(WRITES, cwd=tmp_path) for _ in range(2))
    with killed:
        killed.kill()
    others = [".m.x.tmp.gguf", ".n.12ab.tmp.gguf", "m.12ab"]
    for name in others:
        (tmp_path / name).touch()
    assert len(names(tmp_path)) == 2 + 2 + 3
    write_bytes(tmp_path / "m.gguf", b"GGUF")
    remove_abandoned(tmp_path, ".converting-")
    left = set(names(tmp_path)) - {*others, "m.gguf"}
    assert len(left) == 2 and {name[:3] for name in left} == {".m.", ".co"}, "those of the one that still writes"
    writing.communicate()
    assert writing.returncode == 0
    assert (tmp_path / "m.gguf").read_bytes() == b"half", "who ends last has the name"
    assert names(tmp_path) == sorted([*others, "m.gguf"])


def test_names_do_not_go_by_the_number_of_the_process(tmp_path):
    """Two containers number alike."""
    with replacing(tmp_path / "a.npy") as first, replacing(tmp_path / "a.npy") as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert (tmp_path / "a.npy").read_bytes() == b"1"
    with scratch_folder(tmp_path, ".c-") as first, scratch_folder(tmp_path, ".c-") as second:
        assert first != second and first.is_dir() and second.is_dir()
    assert names(tmp_path) == ["a.npy"]


def test_without_locks_age_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    old, fresh = tmp_path / ".m.12ab.tmp.pth", tmp_path / ".m.34cd.tmp.pth"
    for path in (old, fresh):
        path.touch()
    os.utime(old, (time.time() - 2 * files.ABANDONED,) * 2)
    write_bytes(tmp_path / "m.pth", b"PK")
    with locked(tmp_path / "m.pth", "wait"):
        pass
    assert names(tmp_path) == [fresh.name, "m.pth"]


@pytest.mark.parametrize("name", ["m.pth", "folder"])
def test_only_one_process_is_inside_and_the_other_is_told(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(name)
    with inside(LOCKS, name, cwd=tmp_path) as process:
        for path in (tmp_path / name, tmp_path / "link"):
            with pytest.raises(UserError) as caught, locked(path, "give another name"):
                pytest.fail("two are inside")
            assert str(path) in str(caught.value) and str(caught.value).endswith("); give another name")
            assert f"process {process.pid} on " in str(caught.value)
        with locked(tmp_path / "other", "give another name"):
            pass
        process.send_signal(signal.SIGKILL)
    with locked(tmp_path / name, "give another name"):
        pass
    assert names(tmp_path) == ["folder", "link"] and not names(tmp_path / "folder")


def test_an_error_inside_is_that_error(tmp_path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "m", ""):
        (tmp_path / "nothing").read_bytes()
    with pytest.raises(UserError, match="does not exist; make it first"), locked(tmp_path / "no" / "m", ""):
        pass
