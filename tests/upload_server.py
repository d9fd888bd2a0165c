"""The hub of hub_server.py, which also takes models: what `create_repo` and `create_commit` ask of the real one.

Files of 1 kB and more go the way of large files (Git LFS: a batch of addresses, a PUT each), smaller ones in the
commit. A commit writes FOLDER/models/owner/name/…, which the same server then sends to whoever downloads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from hub_server import Hub, _handler, commit

LARGE = 1000  # bytes
TOKEN = "hf_of_a_test"
WRITE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit)/main")
BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")


class UploadHub(Hub):
    """A running server. Beside the attributes of `Hub`:

    refusals: part of a path → status of the answers to requests for it.
    cuts: part of a path → how many of its requests get no answer, with their bodies half read.
    private: of each repository that was made here.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.refusals: dict[str, int] = {}
        self.cuts: Counter[str] = Counter()
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}  # by SHA-256
        self._server.RequestHandlerClass = _writing_handler(self)

    def environment(self, home: Path) -> dict[str, str]:
        return {**super().environment(home), "HF_TOKEN": TOKEN}


def _writing_handler(hub: UploadHub) -> type[BaseHTTPRequestHandler]:
    class Handler(_handler(hub)):
        def do_PUT(self) -> None:
            if self._goes_on():
                body = self._body()
                hub.large[hashlib.sha256(body).hexdigest()] = body
                self._send_json({})

        def do_POST(self) -> None:
            if not self._goes_on():
                return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._send(401, b'{"error": "Invalid credentials in Authorization header"}')
            elif self.path == "/api/repos/create":
                self._create(json.loads(self._body()))
            elif self.path == "/api/validate-yaml":
                self._body()
                self._send_json({"errors": [], "warnings": []})
            elif match := WRITE.fullmatch(self.path):
                self._send_json((self._modes if match["what"] == "preupload" else self._commit)(match["repo"]))
            elif match := BATCH.fullmatch(self.path):
                self._send_json({"transfer": "basic", "objects": self._addresses(match["repo"])})
            else:
                super().do_POST()

        def _goes_on(self) -> bool:
            """Whether the request is to be answered as usual."""
            for part in hub.cuts:
                if part in self.path and hub.cuts[part] > 0:
                    hub.cuts[part] -= 1
                    self.rfile.read(int(self.headers["Content-Length"]) // 2)
                    self.close_connection = True
                    self.connection.close()
                    return False
            for part, status in hub.refusals.items():
                if part in self.path:
                    self._body()
                    self._send(status, b'{"error": "as the test wants it"}')
                    return False
            return True

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _json(self) -> Any:
            return json.loads(self._body())

        def _create(self, wanted: dict[str, Any]) -> None:
            repo = f"{wanted['organization'] or 'mia'}/{wanted['name']}"
            folder = hub.folder / "models" / repo
            address = json.dumps({"url": f"{hub.endpoint}/{repo}"}).encode()
            if folder.is_dir():
                self._send(409, address)
                return
            folder.mkdir(parents=True)
            hub.private[repo] = wanted.get("visibility") == "private"
            self._send(200, address)

        def _api(self, match: re.Match[str], *query: Any) -> Any:
            answer = super()._api(match, *query)
            if isinstance(answer, dict):
                answer["private"] = hub.private.get(match["repo"], False)
            return answer

        def _modes(self, repo: str) -> dict[str, Any]:
            return {"files": [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] >= LARGE else "regular",
                 "shouldIgnore": False}
                for file in self._json()["files"]
            ]}  # fmt: skip

        def _addresses(self, repo: str) -> list[dict[str, Any]]:
            address = f"{hub.endpoint}/{repo}.git/large"
            return [
                {**wanted, "actions": {"upload": {"href": f"{address}/{wanted['oid']}"}}}
                for wanted in self._json()["objects"]
            ]

        def _commit(self, repo: str) -> dict[str, str]:
            folder = hub.folder / "models" / repo
            for line in map(json.loads, self._body().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
                elif line["key"] == "lfsFile":
                    (folder / value["path"]).write_bytes(hub.large[value["oid"]])
            sha = commit(folder)
            return {"commitUrl": f"{hub.endpoint}/{repo}/commit/{sha}", "commitOid": sha}

    return Handler
