"""The package as it is installed: its wheel, the command `custom-llm`, the requirements, and what is compiled."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, ROOT, STORY, Result

from custom_llm import __version__
from custom_llm.commands.__main__ import COMMANDS
from custom_llm.common.steps import STEPS

CPUINFO = Path("/proc/cpuinfo")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built without a network from a copy, since setuptools leaves folders where it builds."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for path in [*ROOT.glob("*.toml"), *ROOT.glob("*.txt"), ROOT / "README.md", ROOT / "LICENSE"]:
        shutil.copy(path, source)
    shutil.copytree(ROOT / "custom_llm", source / "custom_llm", ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, target], cwd=source, check=True, capture_output=True)
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The `custom-llm` of an environment that has the wheel, and beside it what this Python has."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    scheme = dict(scheme="nt" if os.name == "nt" else "posix_prefix", vars={"base": folder, "platbase": folder})
    site = Path(sysconfig.get_path("purelib", **scheme))
    (site / "beside.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    python = Path(sysconfig.get_path("scripts", **scheme)) / f"python{sysconfig.get_config_var('EXE')}"
    command = [python, "-m", "pip", "--quiet", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(command, check=True, env={**ENVIRONMENT, "PYTHONPATH": ""})
    return python.with_name(f"custom-llm{sysconfig.get_config_var('EXE')}")


def start(program: Path, *words: str, cwd: Path) -> Result:
    path = os.pathsep.join([str(program.parent), ENVIRONMENT["PATH"]])
    environment = {**ENVIRONMENT, "PYTHONPATH": "", "PATH": path}
    done = subprocess.run(
        [program, *words], cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return Result(done.returncode, done.stdout, done.stderr)


def test_the_wheel_holds_every_file_of_the_package(wheel):
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "custom_llm").rglob("*") if path.is_file()}
    there = {path for path in there if "__pycache__" not in path}
    with zipfile.ZipFile(wheel) as file:
        assert {name for name in file.namelist() if ".dist-info/" not in name} == there


def test_the_installed_command_goes_all_the_way(installed, tmp_path):
    """In a folder without the checkout; what it prints to be typed works there."""
    (tmp_path / "notes.txt").write_text(STORY * 20, encoding="utf-8")
    done = start(installed, "quickstart", "notes.txt", "--minutes", "0.02", cwd=tmp_path)
    assert done.status == 0, done.stderr
    assert "python " not in done.stdout
    commands = done.stdout.split("The four commands that repeat it:\n")[1].splitlines()
    assert [command.split()[:2] for command in commands] == [
        ["custom-llm", name] for name in ("model", "train", "convert", "write")
    ]
    done = start(installed, "model", "--help", cwd=tmp_path)
    assert done.stdout.startswith("usage: custom-llm model ")
    assert "    custom-llm model --n_embd 128" in done.stdout
    assert "python llm_model.py" not in done.stdout
    done = start(installed, "evaluate", "--model", "nothing.gguf", "--text_path", "notes.txt", cwd=tmp_path)
    assert "custom-llm convert" in done.stderr and ".py" not in done.stderr


def test_no_help_names_a_file_of_the_checkout(installed, tmp_path):
    for name in COMMANDS:
        done = start(installed, name, "--help", cwd=tmp_path)
        assert done.stdout.startswith(f"usage: custom-llm {name} ")
        own = done.stdout.replace("convert_hf_to_gguf.py", "")  # which is llama.cpp's
        assert not re.search(r"docs/|requirements|\w+\.py\b", own)


def test_what_is_missing_is_added_by_the_line_that_says_so(installed, tmp_path):
    """Of what is installed pip knows the extras, and asks nobody about the package itself."""
    absent = tmp_path / "absent"
    absent.mkdir()
    (absent / "fastapi.py").write_text("raise ModuleNotFoundError(name='fastapi')", encoding="utf-8")
    code = "import sys; sys.argv[0] = 'custom-llm'; from custom_llm.commands.__main__ import start; sys.exit(start())"
    python = installed.with_name(f"python{sysconfig.get_config_var('EXE')}")
    environment = {**ENVIRONMENT, "PYTHONPATH": str(absent)}
    done = subprocess.run([python, "-c", code, "serve"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    hint = re.fullmatch(
        r'error: fastapi is missing: (.*) -m (pip install "custom-llm-scripts\[serve\]")\n', done.stderr
    )
    assert hint, done.stderr
    line = [*shlex.split(hint[1]), "-m", *shlex.split(hint[2]), "--no-index"]
    done = subprocess.run(line, env={**ENVIRONMENT, "PYTHONPATH": ""}, capture_output=True, text=True)
    assert done.returncode == 0 and "uvicorn" in done.stdout, done.stderr


def test_version_and_commands(installed, tmp_path):
    assert set(COMMANDS) == set(STEPS.values())
    assert start(installed, "--version", cwd=tmp_path) == Result(0, f"custom-llm {__version__}\n", "")
    alone, asked = start(installed, cwd=tmp_path), start(installed, "--help", cwd=tmp_path)
    assert alone == asked and alone.status == 0
    assert all(f"\n  {name} " in alone.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("typed", "meant"), [("trian", "train"), ("train_llm.py", "train"), ("inference_gguf", "write"), ("xyz", "")]
)
def test_an_unknown_command_is_one_line_with_the_nearest(installed, tmp_path, typed, meant):
    meant = meant and f"; did you mean {meant}?"
    expected = f"error: {typed}: no such command{meant} (see custom-llm --help)\n"
    assert start(installed, typed, cwd=tmp_path) == Result(2, "", expected)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["quickstart", "--help"], ["serve", "--help"]])
def test_help_needs_no_torch(words):
    command = [sys.executable, "-X", "importtime", "-m", "custom_llm.commands", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.startswith("usage: python -m custom_llm.commands ")
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "llama_cpp"}


def test_every_requirement_names_one_version():
    """In one place, too: another file of requirements points there."""
    (builder,) = re.findall(r'requires = \["(.*)"\]', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"{builder}; python" in (ROOT / "requirements-core.txt").read_text(encoding="utf-8")
    seen = {}
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            line = line.partition("#")[0].strip()
            if line and not line.startswith(("-", "llama-cpp-python \\")):
                assert re.fullmatch(r'[\w-]+==[\d.]+(; python_version (>=|<) "3\.\d+")?', line), f"{path.name}: {line}"
                assert seen.setdefault(line, path.name) == path.name, line


def test_the_core_needs_no_compiler():
    """What pip would have to compile is an extra; a package without a wheel (GPUtil) is of Python alone."""
    assert "llama" not in (ROOT / "requirements-core.txt").read_text(encoding="utf-8").split("torch==")[1]


def test_without_a_compiler_one_line_says_so(tmp_path):
    """Without packages, too, so that llama.cpp is not there yet; `make` goes on at this status."""
    script, environment = ROOT / "scripts/install_llama_cpp.py", {**ENVIRONMENT, "PATH": str(tmp_path), "CXX": ""}
    done = subprocess.run([sys.executable, "-S", "-E", script], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "")
    assert re.fullmatch("note: no C[+][+] compiler found, so llama.cpp is left out: .*\n", done.stdout)


@pytest.mark.parametrize(
    ("macros", "spoils"),
    [
        ("#define __GNUC__ 12", True),
        ("#define __GNUC__ 13", False),
        ("#define __clang__ 1\n#define __GNUC__ 4", False),
        ("", False),
    ],
    ids=["GCC 12", "GCC 13", "clang", "another"],
)
def test_only_old_gcc_compiles_without_amx(tmp_path, monkeypatch, macros, spoils):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import install_llama_cpp

    compiler = tmp_path / "compiler.py"
    compiler.write_text(f"print({macros!r})", encoding="utf-8")
    assert install_llama_cpp.spoils_amx([sys.executable, str(compiler)]) is spoils


@pytest.mark.skipif(shutil.which("g++") is None or platform.machine() != "x86_64", reason="no GCC for x86-64")
def test_the_flag_that_leaves_amx_out_wins_over_the_processors():
    command = ["g++", "-U__AMX_INT8__", "-march=sapphirerapids", "-dM", "-E", "-x", "c++", os.devnull]
    macros = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "__AVX512VNNI__" in macros and "__AMX_TILE__" in macros and "__AMX_INT8__" not in macros


def library_compiler() -> str:
    """What compiled llama.cpp's kernels, as compilers write it into a library: "GCC: (Debian 12.2.0-14) 12.2.0"."""
    spec = find_spec("llama_cpp")
    library = Path(spec.origin).with_name("lib") / "libggml-cpu.so" if spec else Path("nothing")
    found = re.search(rb"GCC: \([^)]*\) \d+\.\d+\.\d+", library.read_bytes()) if library.exists() else None
    return found[0].decode() if found else ""


def test_other_programs_write_text_from_our_files_with_the_bindings_defaults(trained, tmp_path):
    """Compiled by GCC 12, llama.cpp's kernels for AMX end the process; scripts/install_llama_cpp.py leaves them out."""
    if not CPUINFO.exists() or "amx_int8" not in CPUINFO.read_text(encoding="utf-8", errors="replace"):
        pytest.skip("this processor has no AMX")
    if not re.match(r"GCC: .* (\d|1[0-2])\.\d", compiler := library_compiler()):
        pytest.skip(f"llama.cpp was not compiled by GCC 12 or older here ({compiler or 'another compiler, or none'})")
    for path in ("trained_model.pth", "model_config.pth"):
        shutil.copy(trained.folder / path, tmp_path)
    script = [sys.executable, ROOT / "convert_to_gguf.py", "--quant_type", "Q8_0", "--llama_cpp_path", "none"]
    subprocess.run(script, cwd=tmp_path, env=ENVIRONMENT, check=True, capture_output=True)
    code = "from llama_cpp import Llama; print(Llama(model_path='model.gguf.Q8_0.gguf')('Mia')['choices'][0]['text'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout.strip()
