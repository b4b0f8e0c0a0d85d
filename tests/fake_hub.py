"""A Hub on this machine: enough of the protocol for huggingface_hub's own client, with the accidents that happen.

    with FakeHub() as hub:
        hub.add("me/model", {"a.safetensors": b"..."})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)

Files of 1 kB and more are "large": they are answered with a redirect to another address, as the Hub does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 1000


class FakeHub:
    """Repositories by name ("owner/name", or "datasets/owner/name"), and what shall go wrong."""

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, str] = {}  # repository -> the token it asks for
        self.cut_once: set[str] = set()  # files whose first download breaks off half way
        self.ranges: list[str] = []  # that were asked for
        self.seen: list[str] = []  # "GET /path"
        self.uploads: dict[str, bytes] = {}  # by hash
        handler = type("Handler", (Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, repository, files):
        self.repositories[repository] = dict(files)
        return self

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    # ---- routes

    def answer(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.path = unquote(self.path)
        self.hub.seen.append(f"{self.command} {self.path}")
        path = urlsplit(self.path).path.lstrip("/")
        if path.startswith("large/"):
            return self.send_file(self.hub.uploads[path.split("/")[1]], path.split("/", 2)[2])
        if path.startswith("upload/"):
            self.hub.uploads[path.split("/")[1]] = self.body
            return self.send(200, b"")
        if path == "api/repos/create":
            given = json.loads(self.body)
            name = "/".join(filter(None, (given.get("organization"), given["name"])))
            if self.token() == "":
                return self.fail(401, "")
            self.hub.repositories.setdefault(name, {})
            return self.send_json({"url": f"{self.hub.url}/{name}", "id": name})
        if path == "api/validate-yaml":
            good = json.loads(self.body)["content"].startswith("---\n")
            return self.send_json({"warnings": [], "errors": [] if good else [{"message": "no front matter"}]})
        kind = ""
        for prefix in ("api/models/", "api/datasets/", "datasets/"):
            if path.startswith(prefix):
                kind, path = prefix, path.removeprefix(prefix)
        parts = path.split("/")
        name, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
        repository = f"datasets/{name}" if "datasets" in kind else name
        if repository not in self.hub.repositories:
            return self.fail(404, "RepoNotFound")
        if self.hub.private.get(repository, self.token()) != self.token():
            return self.fail(401, "RepoNotFound")
        files = self.hub.repositories[repository]
        if rest[:1] in (["resolve"], ["revision"], ["tree"]) and rest[1] not in ("main", COMMIT):
            return self.fail(404, "RevisionNotFound")
        if rest[:1] == ["resolve"]:
            return self.resolve(files, "/".join(rest[2:]))
        if rest[:1] == ["tree"]:
            return self.send_json([self.described(one, data) for one, data in files.items()])
        if rest[:1] in (["preupload"], ["commit"]) and not self.token():
            return self.fail(401, "")
        if rest[:1] == ["preupload"]:
            wanted = json.loads(self.body)["files"]
            return self.send_json(
                {"files": [{"path": one["path"], "uploadMode": mode(one), "shouldIgnore": False} for one in wanted]}
            )
        if rest[:3] == ["info", "lfs", "objects"]:
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/upload/{one['oid']}"}}}
                for one in json.loads(self.body)["objects"]
            ]
            return self.send_json({"objects": objects, "transfer": "basic"})
        if rest[:1] == ["commit"]:
            return self.commit(files, repository)
        info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": one} for one in files], "private": False}
        return self.send_json(info)

    def resolve(self, files, name):
        if name not in files:
            return self.fail(404, "EntryNotFound")
        data = files[name]
        if len(data) < LARGE:
            return self.send_file(data, name)
        digest = hashlib.sha256(data).hexdigest()
        self.hub.uploads[digest] = data
        self.send_response(302)
        for key, value in {
            "Location": f"{self.hub.url}/large/{digest}/{name}",
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(data)),
            "Content-Length": "0",
        }.items():
            self.send_header(key, value)
        self.end_headers()
        return None

    def commit(self, files, repository):
        for line in self.body.decode().splitlines():
            one = json.loads(line)
            if one["key"] == "file":
                files[one["value"]["path"]] = base64.b64decode(one["value"]["content"])
            if one["key"] == "lfsFile":
                files[one["value"]["path"]] = self.hub.uploads[one["value"]["oid"]]
        address = f"{self.hub.url}/{repository}/commit/{COMMIT}"
        return self.send_json({"commitUrl": address, "commitOid": COMMIT, "success": True})

    # ---- answers

    def token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def described(self, name, data):
        digest = hashlib.sha256(data).hexdigest()
        found = {"type": "file", "path": name, "size": len(data), "oid": digest[:40]}
        return found | {"lfs": {"oid": digest, "size": len(data), "pointerSize": 130}} if len(data) >= LARGE else found

    def send_file(self, data, name):
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        asked = self.headers.get("Range")
        start = 0
        if asked:
            self.hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if asked else 200)
        self.send_header("ETag", etag)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if name in self.hub.cut_once and not asked:
            self.hub.cut_once.remove(name)
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(data[start:])

    def send_json(self, value):
        self.send(200, json.dumps(value).encode(), "application/json")

    def fail(self, status, code):
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", "so it is")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, status, body, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def mode(file):
    """How a file is to be uploaded."""
    return "lfs" if file["size"] >= LARGE else "regular"
