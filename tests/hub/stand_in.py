"""A stand-in for the hub on loopback: what `huggingface_hub` asks of one, over real HTTP; keeps everything in memory.

Repositories have branches and commits, large files go through the LFS protocol, private and gated ones want a token.
It answers no more than the client needs, and strictly: what it does not know is a 404 that the tests would see.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = r"(?P<repo>[\w.\-]+(?:/[\w.\-]+)?)"


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str = "") -> str:
        sha = hashlib.sha1(f"{len(self.commits)}{sorted(files)}{message}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        self.messages.append(message)
        return sha

    def files(self, revision: str) -> dict[str, bytes] | None:
        return self.commits.get(self.branches.get(revision, revision))


class StandInHub:
    """A hub with one account, "me", and one valid token."""

    token = "hf_stand_in"

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.closed = False
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, repo_id: str, files: dict[str, bytes], *, revision: str = "main", **kind: bool) -> str:
        """Puts a commit with exactly these files on a branch; returns its sha."""
        repository = self.repositories.setdefault(repo_id, Repository(**kind))
        return repository.commit(revision, files)

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repositories[repo_id].files(revision)
        assert found is not None, revision
        return found

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        self.hub.requests.append((self.command, unquote(self.path)))

    def _answer(self, status: int, body: bytes | Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        if not isinstance(body, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        self._answer(status, {"error": message or code}, X_Error_Code=code, X_Error_Message=message or code)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _authorized(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def _dispatch(self) -> None:
        if self.hub.closed:
            # A connection that the client kept open.
            self.close_connection = True
            return None
        path = unquote(urlsplit(self.path).path)
        body = self._body()
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if method == ("GET" if self.command == "HEAD" else self.command) and match:
                found = match.groupdict()
                if "repo" not in found:
                    return answer(self, body, **found)
                repository = self._visible(found.pop("repo"))
                return None if repository is None else answer(self, body, *repository, **found)
        return self._refuse(404, "RepoNotFound", f"no route for {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = _dispatch  # noqa: N815 - the names that http.server calls

    def _visible(self, name: str) -> tuple[str, Repository] | None:
        repository = self.hub.repositories.get(name)
        if self.headers.get("Authorization") and not self._authorized():
            self._answer(401, {"error": "Invalid credentials in Authorization header"})
        elif repository is None or (repository.private and not self._authorized()):
            self._refuse(401 if not self._authorized() else 404, "RepoNotFound", "Repository not found")
        elif repository.gated and not self._authorized() and "/resolve/" in self.path:
            self._refuse(403, "GatedRepo", "Access to the repository is restricted")
        else:
            return name, repository
        return None

    # --- reading ---

    def resolve(self, body: bytes, name: str, repository: Repository, revision: str, path: str) -> None:
        files = repository.files(revision)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        sha = repository.branches.get(revision, revision)
        if path not in files:
            return self._answer(404, b"", X_Error_Code="EntryNotFound", X_Repo_Commit=sha)
        data = files[path]
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"ETag": etag, "X_Repo_Commit": sha, "X_Linked_Size": str(len(data)), "Accept_Ranges": "bytes"}
        start = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", ""))
        if start:
            first = int(start[1])
            span = f"bytes {first}-{len(data) - 1}/{len(data)}"
            return self._answer(206, data[first:], Content_Range=span, **headers)
        return self._answer(200, data, **headers)

    def info(self, body: bytes, name: str, repository: Repository, revision: str | None) -> None:
        files = repository.files(revision or "main")
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        return self._answer(
            200,
            {
                "id": name,
                "modelId": name,
                "sha": repository.branches.get(revision or "main", revision),
                "private": repository.private,
                "siblings": [{"rfilename": path} for path in files],
                "tags": [],
                "downloads": 0,
                "likes": 0,
            },
        )

    def tree(self, body: bytes, name: str, repository: Repository, revision: str) -> None:
        files = repository.files(revision)
        if files is None:
            return self._refuse(404, "RevisionNotFound")
        entries = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in files.items()
        ]
        return self._answer(200, entries)

    def whoami(self, body: bytes) -> None:
        if not self._authorized():
            return self._answer(401, {"error": "Invalid user token."})
        return self._answer(200, {"type": "user", "name": "me", "auth": {"accessToken": {"role": "write"}}})

    # --- writing ---

    def create(self, body: bytes) -> None:
        if not self._authorized():
            return self._answer(401, {"error": "Invalid username or password."})
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if name.split("/")[0] != "me":
            return self._answer(403, {"error": "You have no right to create a model under that namespace"})
        taken = name in self.hub.repositories
        if not taken:
            self.hub.add(name, {".gitattributes": b""}, private=bool(asked.get("private")))
        return self._answer(409 if taken else 200, {"url": f"{self.hub.endpoint}/{name}", "name": name, "id": name})

    def branch(self, body: bytes, name: str, repository: Repository, branch: str) -> None:
        taken = branch in repository.branches
        if not taken:
            repository.branches[branch] = repository.branches["main"]
        return self._answer(409 if taken else 200, {})

    def preupload(self, body: bytes, name: str, repository: Repository, revision: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return self._answer(200, {"files": files})

    def lfs_batch(self, body: bytes, name: str, repository: Repository) -> None:
        objects = [
            {**asked, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{asked['oid']}"}}}
            for asked in json.loads(body)["objects"]
        ]
        return self._answer(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self._answer(400, {"error": "these are not the bytes that were promised"})
        self.hub.blobs[oid] = body
        return self._answer(200)

    def commit(self, body: bytes, name: str, repository: Repository, revision: str) -> None:
        if not self._authorized():
            return self._answer(403, {"error": "This token cannot write"})
        files = dict(repository.files(revision) or {})
        message = ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.blobs[value["oid"]]
            else:
                return self._answer(400, {"error": f"unknown operation {item['key']}"})
        proposed = "create_pr" in urlsplit(self.path).query
        sha = repository.commit("refs/pr/1" if proposed else revision, files, message)
        answer = {"commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}", "commitOid": sha}
        if proposed:
            answer["pullRequestUrl"] = f"{self.hub.endpoint}/{name}/discussions/1"
        return self._answer(200, answer)


_ROUTES = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", rf"/api/models/{REPO}/branch/(?P<branch>.+)", _Handler.branch),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>.+)", _Handler.commit),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", _Handler.lfs_put),
    ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)", _Handler.tree),
    ("GET", rf"/api/models/{REPO}(?:/revision/(?P<revision>.+))?", _Handler.info),
    ("GET", rf"/{REPO}/resolve/(?P<revision>refs/pr/\d+|[^/]+)/(?P<path>.+)", _Handler.resolve),
]
