"""A small web server for a browser viewer: its files, and the PACS's DICOMweb behind the same origin."""

import base64
import contextlib
import http.client
import http.server
import mimetypes
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.servers import Running

DICOMWEB = "/dicom-web"
_ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
"""What a page needs for SharedArrayBuffer, which the decoders use."""
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}
mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("text/javascript", ".mjs")


@contextlib.contextmanager
def serve(folder: Path, pacs: Running, texts: Mapping[str, str]) -> Iterator[str]:
    """Serve on a free loopback port; yields the URL without a slash at its end.

    `texts`: path -> what is served there instead of a file. A path that is neither is answered with index.html, as a
    single-page application needs it.
    """

    class Handler(_Handler):
        files, orthanc, instead = folder, pacs, dict(texts)

    with _Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its connections is no error."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: Path
    orthanc: Running
    instead: Mapping[str, str]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        """Silent."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if path.startswith(DICOMWEB):
                self._forward()
            elif path in self.instead:
                self._send(200, self.instead[path].encode(), {"Content-Type": mimetypes.guess_type(path)[0] or ""})
            else:
                self._send_file(path)

    def _send_file(self, path: str) -> None:
        file = (self.files / path.lstrip("/")).resolve()
        if not file.is_file() or not file.is_relative_to(self.files.resolve()):
            if Path(path).suffix:
                return self._send(404, b"", {})
            file = self.files / "index.html"
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._send(200, file.read_bytes(), {"Content-Type": kind})

    def _forward(self) -> None:
        """To Orthanc, with its password."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        secret = base64.b64encode(f"{self.orthanc.username}:{self.orthanc.password}".encode()).decode()
        headers = {key: value for key, value in self.headers.items() if key in ("Accept", "Content-Type")}
        pacs = http.client.HTTPConnection(self.orthanc.host, self.orthanc.http_port, timeout=60)
        with contextlib.closing(pacs):
            pacs.request(self.command, self.path, body, headers | {"Authorization": f"Basic {secret}"})
            answer = pacs.getresponse()
            kept = {key: value for key, value in answer.getheaders() if key.lower() not in _HOP_BY_HOP}
            self._send(answer.status, answer.read(), kept)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, **_ISOLATION, "Cross-Origin-Resource-Policy": "same-origin"}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
