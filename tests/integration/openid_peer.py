"""An OpenID provider on loopback that says whatever a test wants: what a well-behaved one does not do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

CLIENT = "footbridge"


class Peer:
    """The provider. ``claims`` win over those of a good token; the other two replace its signature's."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.named_issuer = issuer
        self.claims: dict[str, Any] = {"sub": "7", "preferred_username": "alice"}
        self.algorithm, self.sign_with = "ES256", None
        self.nonce = ""
        self.forms: list[dict[str, list[str]]] = []
        self.key_requests = 0
        self.more: dict[str, Any] = {}  # of the document
        self.rotate("one")

    def rotate(self, kid: str) -> None:
        """A new key in place of the old one."""
        self.kid, self.key = kid, ec.generate_private_key(ec.SECP256R1())

    def document(self) -> dict[str, Any]:
        names = {"authorization_endpoint": "auth", "token_endpoint": "token", "jwks_uri": "keys"}
        addresses = {name: f"{self.issuer}/{path}" for name, path in names.items()}
        return {"issuer": self.named_issuer} | addresses | self.more

    def keys(self) -> dict[str, Any]:
        self.key_requests += 1
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [public | {"kid": self.kid, "use": "sig"}]}

    def token(self) -> dict[str, Any]:
        at = int(time.time())
        good = {"iss": self.issuer, "aud": CLIENT, "iat": at, "exp": at + 300, "nonce": self.nonce}
        key: Any = self.key if self.sign_with is None else self.sign_with
        said = {name: value for name, value in (good | self.claims).items() if value is not None}
        return {"id_token": jwt.encode(said, key, self.algorithm, headers={"kid": self.kid})}


@contextmanager
def running_peer() -> Iterator[Peer]:
    """A provider that runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(peer.keys() if self.path == "/keys" else peer.document())

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            peer.forms.append(form)
            self._say(peer.token())

        def _say(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    peer = Peer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
