"""Fill llama.cpp/ with the sources of the installed runtime, and build llama.cpp's command-line tools in it.

    python scripts/get_llama_cpp.py llama-quantize [llama-bench]

llama-cpp-python's source distribution carries the very llama.cpp that the installed package was compiled from,
so that converter, quantizer and runtime are of one commit. And because pip has compiled the library already, a
tool needs no second build of llama.cpp: its own few sources are compiled and linked with the installed
libllama, seconds instead of minutes, and llama-quantize gives the same bytes as quantizing in-process.

Sources and tools are kept in ~/.cache/custom-llm-scripts, so that a second checkout neither downloads nor
compiles. A llama.cpp/ of your own is left as it is, but for a tool it lacks.
"""

from __future__ import annotations

import filecmp
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from install_llama_cpp import PACKAGE, find_compiler

CHECKOUT = Path(__file__).resolve().parent.parent / "llama.cpp"
MARKER = ".from-llama-cpp-python"  # holds the version; tells our llama.cpp/ from one a person placed there

# A tool's own sources, and those of llama.cpp's `common` that it calls. Of the latter only what is reached stays
# in the program (--gc-sections), so the rest of `common` need not be compiled.
SOURCES = {
    "llama-quantize": [
        *("tools/quantize/main.cpp", "tools/quantize/quantize.cpp"),
        *("common/common.cpp", "common/imatrix-loader.cpp", "common/json.cpp", "common/log.cpp"),
    ],
    "llama-bench": [
        *("tools/llama-bench/main.cpp", "tools/llama-bench/llama-bench.cpp"),
        *("common/arg.cpp", "common/common.cpp", "common/download.cpp", "common/fit.cpp", "common/hf-cache.cpp"),
        *("common/json.cpp", "common/log.cpp", "common/preset.cpp", "common/speculative.cpp"),
        "vendor/cpp-httplib/httplib.cpp",
    ],
}
INCLUDE = ["common", "include", "ggml/include", "ggml/src", "vendor"]


def main(tools: Sequence[str]) -> None:
    for tool in tools:
        if tool not in SOURCES:
            sys.exit(f"error: {tool}: this script builds {' and '.join(SOURCES)}")
    try:
        version = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        sys.exit(f"error: {PACKAGE} is not installed, so there is nothing to build the tools for (docs/install.md)")
    if CHECKOUT.exists() and not (CHECKOUT / MARKER).exists():
        complete_clone(version, tools)
    else:
        fill(version, tools)
    print(f"ready in {CHECKOUT.name}/: {', '.join(tools)}")


def fill(version: str, tools: Sequence[str]) -> None:
    """Make llama.cpp/ a copy of the cached sources of `version` and of the tools built from them."""
    if CHECKOUT.exists() and (CHECKOUT / MARKER).read_text().strip() != version:
        shutil.rmtree(CHECKOUT)
    if CHECKOUT.exists() and all(starts(program(CHECKOUT, tool)) for tool in tools):
        return
    source = cached_source(version)
    link_runtime(source)
    beside_the_tool = "@loader_path" if sys.platform == "darwin" else "$ORIGIN"
    for tool in tools:
        if not starts(program(source, tool)):
            build(source, tool, version, runtime=beside_the_tool)
    if not CHECKOUT.exists():
        with tempfile.TemporaryDirectory(dir=CHECKOUT.parent, prefix=".llama.cpp-") as scratch:
            copy = shutil.copytree(source, Path(scratch) / "llama.cpp", symlinks=True)
            (copy / MARKER).write_text(f"{version}\n")
            copy.rename(CHECKOUT)
    link_runtime(CHECKOUT)
    for tool in tools:
        replace_with_copy(program(source, tool), program(CHECKOUT, tool))


def complete_clone(version: str, tools: Sequence[str]) -> None:
    """Build what a person's own llama.cpp/ lacks, if its library is the installed one."""
    missing = [tool for tool in tools if not any(path.exists() for path in (program(CHECKOUT, tool), CHECKOUT / tool))]
    if not missing:
        return
    headers = ["include/llama.h", "ggml/include/ggml.h", "ggml/include/gguf.h"]
    source = cached_source(version)
    if filecmp.cmpfiles(CHECKOUT, source, headers, shallow=False)[0] != headers:
        sys.exit(
            f"error: llama.cpp/ is another version than the installed {PACKAGE} {version}; build its tools with: "
            f"cmake -S llama.cpp -B llama.cpp/build && cmake --build llama.cpp/build --target {' '.join(missing)}"
        )
    for tool in missing:
        build(CHECKOUT, tool, version, runtime=str(library_folder()))


def cached_source(version: str) -> Path:
    """The unpacked vendor/llama.cpp of the source distribution, downloaded the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "custom-llm-scripts"
    # The tools are built inside, hence the machine in the name.
    folder = cache / f"llama.cpp-{version}-{sys.platform}-{platform.machine()}"
    if folder.exists():
        return folder
    print(f"llama.cpp: downloading the sources of {PACKAGE} {version} (75 MB)", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        run([*download, "--no-binary", PACKAGE, f"{PACKAGE}=={version}"])
        (archive,) = Path(scratch).glob("*.tar.gz")
        prefix = f"{archive.name.removesuffix('.tar.gz')}/vendor/llama.cpp/"
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
            members = [member for member in tar if member.name.startswith(prefix)]
            tar.extractall(scratch, members=members)
        try:
            (Path(scratch) / prefix).rename(folder)  # whole or not at all
        except OSError:
            if not folder.exists():  # else another make was faster
                raise
    return folder


def link_runtime(source: Path) -> None:
    """Put links to the installed libraries beside the tools, where the tools look for them."""
    folder = source / "build" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for library in library_folder().glob("lib*"):
        link = folder / library.name
        link.unlink(missing_ok=True)
        link.symlink_to(library)


def library_folder() -> Path:
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "lib"


def build(source: Path, tool: str, version: str, runtime: str) -> None:
    """Compile `tool` from the tree `source`, linked with the installed libllama and looking for it in `runtime`."""
    print(f"llama.cpp: building {tool}", flush=True)
    compiler = find_compiler() or sys.exit("error: no C++ compiler found; install g++ or clang++, or name one in CXX")
    flags = ["-std=c++17", "-O1", "-pthread", "-ffunction-sections", "-fdata-sections"]
    flags += [f"-I{source / folder}" for folder in INCLUDE]
    drop_unused = "-Wl,-dead_strip" if sys.platform == "darwin" else "-Wl,--gc-sections"
    target = program(source, tool)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=source / "build") as scratch:
        build_info = Path(scratch) / "build-info.cpp"
        build_info.write_text(fill_in_build_info((source / "common/build-info.cpp.in").read_text(), version))
        sources = [source / path for path in SOURCES[tool]] + [build_info]
        objects = [str(Path(scratch) / f"{number}.o") for number in range(len(sources))]
        commands = [[*compiler, *flags, "-c", str(path), "-o", out] for path, out in zip(sources, objects, strict=True)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, commands))
        linked = Path(scratch) / tool
        libraries = [f"-L{library_folder()}", "-lllama", "-lggml", "-lggml-base"]
        link = ["-pthread", drop_unused, *libraries, f"-Wl,-rpath,{runtime}"]
        run([*compiler, *objects, *link, "-o", str(linked)])
        linked.replace(target)


def fill_in_build_info(template: str, version: str) -> str:
    """llama.cpp's build-info.cpp.in as CMake would configure it, with the package as the commit."""
    values = {"LLAMA_BUILD_NUMBER": "0", "LLAMA_BUILD_COMMIT": f"{PACKAGE}-{version}"}
    return re.sub(r"@(\w+)@", lambda match: values.get(match[1], "unknown"), template)


def run(command: Sequence[str]) -> None:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if result.returncode:
        output = (result.stdout + result.stderr).strip().splitlines()
        print(*output[-25:], sep="\n", file=sys.stderr)
        sys.exit(f"error: this command failed: {' '.join(command)}")


def program(source: Path, tool: str) -> Path:
    return source / "build" / "bin" / tool


def starts(path: Path) -> bool:
    """Whether the program is there and finds its libraries (a .venv may have gone, a cache may be shared)."""
    try:
        # Both tools print their usage; llama-quantize then exits with 1.
        return subprocess.run([path, "--help"], stdin=subprocess.DEVNULL, capture_output=True).returncode in (0, 1)
    except OSError:
        return False


def replace_with_copy(source: Path, target: Path) -> None:
    beside = target.with_name(f"{target.name}.new")
    shutil.copy2(source, beside)
    beside.replace(target)


if __name__ == "__main__":
    main(sys.argv[1:])
