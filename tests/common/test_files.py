"""What a killed process has left is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys

from custom_llm.common.files import remove_abandoned, write_bytes


def test_what_killed_processes_have_left_is_removed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    dead, alive = process.pid, os.getppid()
    (tmp_path / f".converting-{dead}").mkdir()
    (tmp_path / f".converting-{dead}" / "config.json").touch()
    (tmp_path / f".converting-{alive}").mkdir()
    for name in (f".m.{dead}.tmp.gguf", f".m.{alive}.tmp.gguf", ".m.x.tmp.gguf", f".n.{dead}.tmp.gguf", f"m.{dead}"):
        (tmp_path / name).touch()
    write_bytes(tmp_path / "m.gguf", b"GGUF")
    remove_abandoned(tmp_path, ".converting-")
    assert {path.name for path in tmp_path.iterdir()} == {
        "m.gguf", f".converting-{alive}", f".m.{alive}.tmp.gguf", ".m.x.tmp.gguf", f".n.{dead}.tmp.gguf", f"m.{dead}",
    }  # fmt: skip
