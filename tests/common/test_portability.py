"""Systems without what POSIX has: names taken away, files as strict as on Windows, and a look at the source."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import urllib.request
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, STORY

from custom_llm.common import errors, machine, signals, steps

AS_ON_WINDOWS = Path(__file__).parent / "as_on_windows"
PROC = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="which files are in use is read from /proc")

# What not every system has, by module; with None the module itself.
POSIX_ONLY = {
    "os": set(
        "EX_USAGE EX_OK O_DIRECTORY O_NOFOLLOW chown chroot fchmod fchown fork forkpty getegid geteuid getgid "
        "getgroups getloadavg getpgid getpgrp getsid getuid killpg lchown mkfifo mknod nice openpty pipe2 "
        "posix_fadvise posix_fallocate posix_spawn sched_getaffinity sched_setaffinity sendfile setpgid setsid statvfs "
        "sync sysconf tcgetpgrp uname wait wait3 wait4 waitid".split()
    ),
    "signal": set(
        "SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIGWINCH alarm "
        "pthread_kill pthread_sigmask setitimer sigwait".split()
    ),
    "mmap": {"MADV_DONTNEED", "MADV_SEQUENTIAL", "MAP_PRIVATE", "MAP_SHARED", "PROT_READ"},
    "socket": {"AF_UNIX", "SO_REUSEPORT"},
    "time": {"tzset"},
}
POSIX_MODULES = set("curses fcntl grp posix pty pwd readline resource spwd syslog termios tty".split())


def as_on_windows() -> dict[str, str]:
    path = os.pathsep.join([str(AS_ON_WINDOWS), ENVIRONMENT["PYTHONPATH"]])
    return {**ENVIRONMENT, "PYTHONPATH": path, "USERNAME": "mia"}  # which Windows sets, and torch asks for


@PROC
def test_the_simulation_refuses_what_windows_does(tmp_path):
    code = """if True:
        import os, signal
        from pathlib import Path
        assert not hasattr(signal, "SIGHUP") and not hasattr(os, "sched_getaffinity")
        Path("a").write_text("1"); Path("b").write_text("2")
        file = open("a")
        for act in (Path("b").replace, os.remove):
            try: act("a")
            except PermissionError: pass
            else: raise AssertionError(act)
        file.close()
        Path("b").replace("a")
        try: Path("a:b").write_text("1")
        except OSError: pass
        else: raise AssertionError("a:b")
    """
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=as_on_windows(), check=True)


MODEL = ("--gguf_path", "model.gguf.Q8_0.gguf")
ROAD = [  # to be gone in one process, where what one step leaves open is in the way of the next
    ["quickstart", "notes.txt", "--output_dir", ".", "--minutes", "0.01", "--quant_type", "Q8_0,Q4_0"],
    # over the files that are there, and by the converter of llama.cpp, too
    ["train_llm", "--dataset_path", "notes.txt", "--resume", "--minutes", "0.02"],
    ["convert_to_gguf", "--quant_type", "Q8_0", "--llama_cpp_path", str(ROOT / "llama.cpp")],
    ["inference_gguf", *MODEL, "--prompts", "prompts.txt", "--json"],
    ["inference_gguf", *MODEL, "--stats", "--logprobs"],
    ["evaluate_llm", "--quantization_report", "Q8_0", "--samples", "2", "--sample_tokens", "20", "--dataset_path",
     "notes.txt"],
]  # fmt: skip
GO = """if True:
    import json, sys
    from importlib import import_module
    from custom_llm.common.errors import run
    for script, *words in json.loads(sys.argv[1]):
        print(f"--- {script}", flush=True)
        if status := run(import_module(script).main, words):
            sys.exit(f"{script} ended with {status}")
"""


@pytest.mark.slow
@PROC
def test_every_step_on_windows(tmp_path):
    for name, text in {"notes.txt": STORY * 80, "prompts.txt": "Mia\nThe\n"}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    road = [sys.executable, "-c", GO, json.dumps(ROAD)]
    options = dict(cwd=tmp_path, env=as_on_windows())
    done = subprocess.run(road, **options, input="Mia", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = re.split("^--- .*\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(printed) == len(ROAD) and all(text.strip() for text in printed)
    server = [sys.executable, ROOT / "serve_gguf.py", *MODEL, "--port", "0"]
    with subprocess.Popen(server, **options, stdout=subprocess.PIPE, text=True) as child:
        try:
            address = re.search(r"http://\S+", child.stdout.readline())[0]
            body = json.dumps({"prompt": "Mia", "max_tokens": 5}).encode()
            asked = urllib.request.Request(f"{address}/v1/completions", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(asked, timeout=60) as answer:
                assert json.load(answer)["choices"][0]["text"]
        finally:
            child.terminate()


def test_signals_that_a_system_lacks(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with signals.unwinding():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_memory_without_the_module_resource(monkeypatch):
    import psutil  # noqa: F401 (it needs the module itself, here)

    monkeypatch.setitem(sys.modules, "resource", None)
    assert machine.peak_memory() > 1_000_000


def test_a_reader_that_has_gone_on_windows(monkeypatch, capfd):
    """There, a closed pipe is an invalid argument; a file whose name is wrong is one as well, and has a name."""

    def main(argv: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(errors, "ON_WINDOWS", True)
    monkeypatch.setattr(sys.stdout, "fileno", lambda: os.open(os.devnull, os.O_WRONLY), raising=False)
    assert errors.run(main, []) == errors.EXIT_BROKEN_PIPE
    assert "error" not in capfd.readouterr().err

    def wrong_name(argv: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", "a:b")

    assert errors.run(wrong_name, []) == errors.EXIT_USER_ERROR
    assert "error: a:b: invalid argument" in capfd.readouterr().err


def test_a_command_is_quoted_for_the_shell_that_is_there(monkeypatch):
    monkeypatch.setattr(steps, "ON_WINDOWS", False)
    assert steps.command("train_llm", "--dataset_path", "my notes.txt").endswith("--dataset_path 'my notes.txt'")
    monkeypatch.setattr(steps, "ON_WINDOWS", True)
    assert steps.command("train_llm", "--dataset_path", "my notes.txt").endswith('--dataset_path "my notes.txt"')


@pytest.mark.parametrize(
    ("started", "said", "hint"),
    [
        ("train_llm.py", "python train_llm.py --resume", "pip install -r requirements-serve.txt"),
        ("custom-llm", "custom-llm train --resume", 'pip install "custom-llm-scripts[serve]"'),
        (
            "custom_llm/commands/__main__.py",
            "python -m custom_llm.commands train --resume",
            'pip install "custom-llm-scripts[serve]"',
        ),
    ],
)
def test_messages_name_a_step_as_it_was_started(monkeypatch, tmp_path, started, said, hint):
    """By the name of a program where a shell finds that one, else by its path: a .venv need not be active."""
    folder = tmp_path / "with space"
    folder.mkdir()
    for name in ("python", "custom-llm"):
        (folder / f"{name}{sysconfig.get_config_var('EXE')}").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(sys, "argv", [str(folder / started)])
    monkeypatch.setenv("PATH", str(folder))
    assert (steps.command("train_llm", "--resume"), steps.install("serve")) == (said, hint)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.chdir(folder.parent)
    python, program = (steps.quoted(str(Path("with space", name))) for name in ("python", "custom-llm"))
    said = re.sub("^python", lambda _: python, re.sub("^custom-llm", lambda _: program, said))
    assert (steps.command("train_llm", "--resume"), steps.install("serve")) == (said, f"{python} -m {hint}")


def test_where_there_is_no_pip_uv_installs(monkeypatch):
    monkeypatch.setattr(steps, "find_spec", lambda name: None)
    expected = f"uv pip install --python {steps.quoted(sys.executable)} -r requirements-data.txt"
    assert steps.install("data") == expected


def unguarded(tree: ast.AST, is_guarded: bool = False) -> list[str]:
    """Uses of names that only POSIX has, outside of `if hasattr(…)`, `x if hasattr(…) else y`, `try` and `suppress`."""
    found = []
    for child in ast.iter_child_nodes(tree):
        guards = isinstance(child, ast.Try) or (
            (isinstance(child, (ast.If, ast.IfExp)) and re.search("hasattr|platform|os.name", ast.unparse(child.test)))
            or (isinstance(child, ast.With) and "suppress(" in ast.unparse(child.items[0]))
        )
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and not is_guarded:
            if child.attr in POSIX_ONLY.get(child.value.id, ()):
                found.append(f"{child.value.id}.{child.attr}, line {child.lineno}")
        elif isinstance(child, (ast.Import, ast.ImportFrom)) and not is_guarded:
            names = [alias.name for alias in child.names]
            modules = names if isinstance(child, ast.Import) else [child.module]
            found += [f"{name}, line {child.lineno}" for name in modules if name in POSIX_MODULES]
            if isinstance(child, ast.ImportFrom):
                wanted = POSIX_ONLY.get(child.module or "", set())
                found += [f"{child.module}.{name}, line {child.lineno}" for name in names if name in wanted]
        elif isinstance(child, ast.keyword) and child.arg in ("preexec_fn", "start_new_session", "shell"):
            found.append(f"{child.arg}=, line {child.value.lineno}")
        found += unguarded(child, is_guarded or guards)
    return found


@pytest.mark.parametrize("code", ["import fcntl", "os.getuid()", "from os import fork", "run('ls', shell=True)"])
def test_the_look_at_the_source_finds(code):
    assert unguarded(ast.parse(code))
    assert not unguarded(ast.parse("os.getuid() if hasattr(os, 'getuid') else 0"))


def test_nothing_needs_posix():
    sources = [*(ROOT / "custom_llm").rglob("*.py"), *ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]
    found = {path.name: unguarded(ast.parse(path.read_text(encoding="utf-8"))) for path in sources}
    assert not {name: uses for name, uses in found.items() if uses}


def test_text_is_read_and_written_in_one_encoding():
    """Elsewhere it would be that of the system: Windows' is no UTF-8 before Python 3.15."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--preview", "--select", "PLW1514"]
    done = subprocess.run([*command, "custom_llm", "scripts"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
