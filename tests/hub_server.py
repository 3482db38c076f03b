"""A server on this machine that speaks the routes of the Hugging Face Hub for files, and a repository like TEDDY's."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import unquote

import cells

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

TEDDY = "Merck/TEDDY"
SIZES = ("70M", "160M", "400M")
MODELS, TOKENIZER = "teddy/models/teddy_g", "teddy/tokenizer/gene_freq_tokenizer"
MEDIANS = "teddy/data_processing/utils/medians/data/teddy_gene_medians.json"
MAPPINGS = "teddy/data_processing/utils/bio_annotations/data/mappings/all_filtered_{}_mapping.json"
#: Variables that would lead huggingface_hub elsewhere.
FOREIGN = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def teddy_files(tokens: list[str] | None = None) -> dict[str, bytes]:
    """List the files of a repository laid out like TEDDY's, whose vocabulary fits `cells.make_cells`."""
    text = "".join(f"{token}\n" for token in (cells.TOKENS if tokens is None else tokens)).encode()
    special = {f"{role}_token": f"<{role}>" for role in ("pad", "unk", "cls", "mask")}
    vocabulary = {
        "vocab.txt": text,
        "added_tokens.json": json.dumps({"<eos>": 100}).encode(),
        "special_tokens_map.json": json.dumps(special).encode(),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "GeneTokenizer"}).encode(),
    }
    files = {"README.md": b"# TEDDY\n", MEDIANS: json.dumps(dict.fromkeys(cells.KEPT, 2.0)).encode()}
    for folder in [*(f"{MODELS}/{size}" for size in SIZES), TOKENIZER]:
        files |= {f"{folder}/{name}": content for name, content in vocabulary.items()}
        files |= {f"{folder}/model.safetensors": b"\0" * 1000, f"{folder}/vocab.pkl": b"never read"}
    for size in SIZES:  # so that each size can be told from the others
        files[f"{MODELS}/{size}/added_tokens.json"] = json.dumps({"<eos>": 100 + SIZES.index(size)}).encode()
    for kind, labels in {"disease": "disease", "tissue": "tissue", "cell": "cell_type", "sex": "sex"}.items():
        mapping = {label: label for label in cells.LABELS[labels]}
        files[MAPPINGS.format(kind)] = json.dumps(mapping).encode()
    return files


class HubServer(ThreadingHTTPServer):
    """Repositories on this machine, and the requests for their files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.refs: dict[str, dict[str, str]] = {}
        self.gated: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, files: dict[str, bytes], repository: str = TEDDY, ref: str = "main") -> str:
        """Make a commit of all files of a repository, the newest of a branch, or that of a tag."""
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits.setdefault(repository, {})[commit] = files
        self.refs.setdefault(repository, {})[ref] = commit
        return commit

    def asked_files(self) -> set[str]:
        """List the files that were sent since the last time."""
        files = {path.split("/", 5)[-1] for method, path in self.asked if method == "GET" and "/resolve/" in path}
        self.asked.clear()
        return files


class _Handler(BaseHTTPRequestHandler):
    """Answers HEAD and GET of ``/<owner>/<name>/resolve/<revision>/<file>``."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_HEAD  # noqa: N815 -- the name that http.server calls

    def _answer(self) -> None:
        self.server.asked.append((self.command, self.path))
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        if found is None:
            return self._send(404, b"", {})
        repository, revision, file = (unquote(part) for part in found.groups())
        commits = self.server.commits.get(repository)
        if commits is None:
            return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if repository in self.server.gated:
            return self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        commit = self.server.refs[repository].get(revision, revision)
        if commit not in commits:
            return self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        content = commits[commit].get(file)
        if content is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        return self._send(200, content, headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def serving() -> Iterator[HubServer]:
    """Run a server for the block."""
    with HubServer() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, url: str, home: Path, *, offline: bool = False) -> None:
    """Set the server that huggingface_hub asks: it reads these variables when it is imported."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("HF_HOME", str(home))
    if offline:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in [name for name in sys.modules if name.partition(".")[0] == "huggingface_hub"]:
        monkeypatch.delitem(sys.modules, name)
