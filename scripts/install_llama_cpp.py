"""Compile llama.cpp into this Python's environment; without a C++ compiler, say in one line that it is left out.

    python scripts/install_llama_cpp.py [LOG]

`pip install -r requirements.txt`, which compiles it, and a cure: up to version 12, GCC leaves out most of what
configures Intel's AMX (https://github.com/ggml-org/llama.cpp/issues/20824), and the kernels end every program that
loads a file of Q8_0. Where such a compiler meets such a processor they are not compiled; all others are.

The exit status is 0, LEFT_OUT, or that of pip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import step

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "llama-cpp-python"
LEFT_OUT = 3
LAST_WITHOUT_AMX = 12  # version of GCC
NO_COMPILER = (
    "no C++ compiler found, so llama.cpp is left out: all else works, and PyTorch runs the models instead; "
    "with a compiler, the same command adds it (docs/install.md)"
)


def main(log: str) -> int:
    compiler = find_compiler()
    if not compiler and find_spec("llama_cpp") is None:
        print(f"note: {NO_COMPILER}")
        return LEFT_OUT
    without_amx = has_amx() and spoils_amx(compiler)
    if without_amx:
        # GGML_AMX_INT8=OFF would do nothing, since the flags of this processor (-march=native) define it as well.
        for flags in ("CFLAGS", "CXXFLAGS"):
            os.environ[flags] = f"{os.environ.get(flags, '')} -U__AMX_INT8__".strip()
    pip = [sys.executable, "-m", "pip"]
    install = [*pip, "install", "-r", str(ROOT / "requirements.txt")]
    status = step.main(log, "installing llama.cpp (the first time it is compiled, for some minutes)", *install)
    if status == 0 and without_amx and library_uses_amx():  # an older one, which pip has kept
        subprocess.run([*pip, "--quiet", "cache", "remove", "llama_cpp_python"], stderr=subprocess.DEVNULL)
        step.main(log, "removing a llama.cpp with kernels for AMX", *pip, "uninstall", "--yes", PACKAGE)
        status = step.main(log, "compiling llama.cpp without them", *install)
    if status:
        print(f"{PACKAGE} could not be installed; all else is, and works without it", file=sys.stderr)
    return status


def find_compiler() -> list[str]:
    """The command of a C++ compiler that starts; [] where there is none."""
    for candidate in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        # Started rather than looked up: without Xcode's tools, macOS has a c++ that only asks for them.
        if (command := candidate.split()) and _output(*command, "--version") is not None:
            return command
    # Visual Studio's is on no path; CMake asks this program for it, too.
    folder = os.environ.get("PROGRAMFILES(X86)", "")
    where = Path(folder, "Microsoft Visual Studio", "Installer", "vswhere.exe")
    tools = "Microsoft.VisualStudio.Component.VC.Tools.x86.x64"
    if os.name == "nt" and _output(str(where), "-products", "*", "-requires", tools, "-property", "installationPath"):
        return ["cl"]
    return []


def has_amx() -> bool:
    """Whether this processor multiplies matrices with Intel's AMX."""
    try:
        return "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # neither a Mac nor Windows compiles the kernels
        return False


def spoils_amx(compiler: list[str]) -> bool:
    """Whether a compiler is a GCC of a version that miscompiles the kernels; clang is none, though it says GNUC."""
    macros = (_output(*compiler, "-dM", "-E", "-x", "c++", os.devnull) or "").splitlines()
    values = dict(line.split(" ", 2)[1:] for line in macros if line.count(" ") >= 2)
    return "__clang__" not in values and int(values.get("__GNUC__", LAST_WITHOUT_AMX + 1)) <= LAST_WITHOUT_AMX


def library_uses_amx() -> bool:
    code = "import sys; from llama_cpp._ggml import libggml; sys.exit(libggml.ggml_cpu_has_amx_int8())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 1


def _output(*command: str) -> str | None:
    """What a program prints; None where it does not start, or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else str(Path(tempfile.gettempdir(), "install_llama_cpp.log"))))
