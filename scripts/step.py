"""Run one long command quietly: a line with its title and time on the terminal, its output in a log file.

    python scripts/step.py .venv/install.log "installing requirements.txt" pip install -r requirements.txt

On a terminal the line also shows what the command said last. When the command fails, the end of the log follows
and the exit status is the command's.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

TAIL = 25  # lines of the log shown after a failure


def main(log_path: str, title: str, *command: str) -> int:
    log = Path(log_path)
    start = time.monotonic()
    if sys.stdout.isatty():
        show = _status_line
    else:
        print(f"{title} ...", flush=True)
        show = _nothing
    with log.open("a", encoding="utf-8", errors="replace") as out:
        print(f"$ {' '.join(command)}", file=out, flush=True)
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                show(title, time.monotonic() - start, log)
                try:
                    process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    continue
        except KeyboardInterrupt:  # the command got it too; let it clean up
            process.wait()
            print(f"\n{title}: interrupted", file=sys.stderr)
            return 130
    seconds = time.monotonic() - start
    if sys.stdout.isatty():
        print("\r\x1b[K", end="")
    if process.returncode:
        print(f"{title}: failed after {seconds:.0f} s; the end of {log}:", file=sys.stderr)
        print(*_lines(log)[-TAIL:], sep="\n", file=sys.stderr)
    else:
        print(f"{title}: {seconds:.0f} s", flush=True)
    return process.returncode


def _status_line(title: str, seconds: float, log: Path) -> None:
    said = [text.strip() for text in _lines(log)[-5:] if text.strip()]
    line = f"{title}: {seconds:.0f} s  {said[-1] if said else ''}"
    print(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)


def _nothing(title: str, seconds: float, log: Path) -> None:
    pass


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
