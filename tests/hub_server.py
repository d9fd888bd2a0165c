"""A small Hugging Face hub on 127.0.0.1, for tests without the internet; by hand: python tests/hub_server.py FOLDER.

Speaks what `datasets`, `huggingface_hub` and transformers' `from_pretrained` ask when HF_ENDPOINT points here:

    FOLDER/datasets/owner/name/…               the files of a dataset
    FOLDER/models/owner/name/…                 the files of a model
    FOLDER/datasets/owner/name@refs%2Fx/…      the same on the branch refs/x

A commit is a hash of the files' names, sizes and times: changing a file makes a new one.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
API = re.compile(rf"/api/(?P<kind>datasets|models)/{REPO}(?:/(?P<what>revision|tree|paths-info)/(?P<rest>.*))?")
FILE = re.compile(rf"/(?P<kind>datasets/)?{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.*)")
NOT_THERE = {"RepoNotFound": 401, "RevisionNotFound": 404, "EntryNotFound": 404, "GatedRepo": 401}


class Hub:
    """A running server. Its attributes may be changed at any time.

    endpoint: what HF_ENDPOINT has to be.
    gated: repos of whose files nobody gets more than README.md.
    breaks: part of a file's path → how many of its transfers end in the middle.
    status: if not 0, the status of every answer.
    answers: method, status and path of every answer so far → how often.
    bytes_sent: of all answers together, without their headers.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.gated: set[str] = set()
        self.breaks: Counter[str] = Counter()
        self.status = 0
        self.answers: Counter[tuple[str, int, str]] = Counter()
        self.bytes_sent = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path) -> dict[str, str]:
        """What a process needs in its environment to ask this hub, with all it caches below `home`."""
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}


def commit(folder: Path) -> str:
    """The 40 hex digits of the state a repo is in."""
    files = [(path.relative_to(folder).as_posix(), *_state(path)) for path in sorted(folder.rglob("*"))]
    return hashlib.sha1(json.dumps(files).encode()).hexdigest()


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return (status.st_size, status.st_mtime_ns) if path.is_file() else (0, 0)


class _Missing(Exception):
    """Carries the hub's word for it."""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            try:
                if hub.status:
                    self._send(hub.status, b"{}")
                elif match := API.fullmatch(url.path):
                    self._send_json(self._api(match, parse_qs(url.query), parse_qs(body.decode())))
                elif match := FILE.fullmatch(url.path):
                    self._send_file(match)
                else:
                    raise _Missing("EntryNotFound")
            except _Missing as missing:
                word = str(missing)
                self._send(NOT_THERE[word], json.dumps({"error": word}).encode(), {"X-Error-Code": word})
            except BrokenPipeError:  # a reader that has enough
                self.close_connection = True

        do_HEAD = do_POST = do_GET

        def _api(self, match: re.Match[str], query: dict[str, list[str]], form: dict[str, list[str]]) -> Any:
            what, rest = match["what"], match["rest"] or ""
            revision, _, path = rest.partition("/")
            folder, sha = self._folder(match["kind"], match["repo"], revision)
            if what == "tree":
                return _tree(folder, unquote(path), "true" in str(query.get("recursive", "")).lower())
            if what == "paths-info":
                paths = [folder / name for name in form.get("paths", [])]
                return [_entry(folder, path) for path in paths if path.exists()]
            files = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
            return {
                "_id": "0", "id": match["repo"], "sha": sha, "private": False, "disabled": False,
                "gated": "manual" if match["repo"] in hub.gated else False, "downloads": 0, "likes": 0, "tags": [],
                "siblings": [{"rfilename": name} for name in files],
            }  # fmt: skip

        def _folder(self, kind: str, repo: str, revision: str) -> tuple[Path, str]:
            parent = (hub.folder / kind / repo).parent
            name = Path(repo).name
            if not (parent / name).is_dir():
                raise _Missing("RepoNotFound")
            revision = unquote(revision) or "main"
            for folder in (parent / name, *parent.glob(f"{name}@*")):
                branch = unquote(folder.name.partition("@")[2]) or "main"
                sha = commit(folder)
                if revision in (branch, sha):
                    return folder, sha
            raise _Missing("RevisionNotFound")

        def _send_file(self, match: re.Match[str]) -> None:
            folder, sha = self._folder("datasets" if match["kind"] else "models", match["repo"], match["revision"])
            if match["repo"] in hub.gated and match["path"] != "README.md":
                raise _Missing("GatedRepo")
            path = folder / unquote(match["path"])
            if not path.is_file():
                raise _Missing("EntryNotFound")
            content = path.read_bytes()
            headers = {"ETag": f'"{_entry(folder, path)["oid"]}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
            status = 200
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
                headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
                status, content = 206, content[start : end + 1]
            broken = next((part for part in hub.breaks if part in match["path"] and hub.breaks[part] > 0), None)
            if broken is not None and self.command == "GET":
                hub.breaks[broken] -= 1
            else:
                broken = None
            self._send(status, content, headers, n_sent=len(content) // 2 if broken is not None else None)

        def _send_json(self, value: Any) -> None:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send(self, status: int, body: bytes, headers: dict[str, str] = {}, n_sent: int | None = None) -> None:  # noqa: B006
            """Answer, with only the first `n_sent` bytes of the body and a closed connection if that is given."""
            hub.answers[self.command, status, self.path] += 1
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                hub.bytes_sent += len(body[:n_sent])
                self.wfile.write(body[:n_sent])
            if n_sent is not None:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _tree(folder: Path, path: str, recursive: bool) -> list[dict[str, Any]]:
    start = folder / path
    if not start.is_dir():
        raise _Missing("EntryNotFound")
    return [_entry(folder, found) for found in sorted(start.rglob("*") if recursive else start.iterdir())]


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    oid = hashlib.sha1(json.dumps([name, *_state(path)]).encode()).hexdigest()
    return {"type": "file" if path.is_file() else "directory", "oid": oid, "size": _state(path)[0], "path": name}


def branch_folder(repo: Path, branch: str) -> Path:
    """Where the files of another branch of a repo are."""
    return repo.with_name(f"{repo.name}@{quote(branch, safe='')}")


if __name__ == "__main__":
    with Hub(Path(sys.argv[1]), port=8000) as served:
        print(f"HF_ENDPOINT={served.endpoint}", flush=True)
        threading.Event().wait()
