#!/bin/sh
# Prints one line about the first thing this machine lacks for an installation, or nothing. Plain sh, because it
# runs before there is a Python to rely on. PYTHON names the interpreter to use.
python=${PYTHON:-python3}

starts() { "$@" >/dev/null 2>&1; }

starts "$python" -c '' ||
    { echo "$python not found: install Python 3.10 or newer, or name one with make PYTHON=/path/to/python3"; exit; }
starts "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    { echo "$("$python" -c 'import platform; print("Python " + platform.python_version())') is too old:" \
           "name a Python of 3.10 or newer, for example make PYTHON=python3.12"; exit; }
starts "$python" -c 'import ensurepip, venv' ||
    { echo "$python cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)"; exit; }
