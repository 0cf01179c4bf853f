"""An OpenID Connect issuer: a real HTTP server on loopback with keys, which signs tokens, and fails as a test wants."""

import json
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.servers import free_port

AUDIENCE = "onesource"
_MAKE: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
_JWK: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}


class Issuer:
    """Answers with its description and its keys; `start` and `stop` can be called again and again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/realm"
        self.jwks_url = f"{self.url}/keys"
        self.private: dict[str, tuple[str, Any]] = {}
        self.keys: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.description: Any = {"issuer": self.url, "jwks_uri": self.jwks_url}
        self.body: bytes | None = None
        self.status = 200
        self.drip_seconds = 0.0
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> "Issuer":
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def add_key(self, kid: str = "one", algorithm: str = "RS256", **fields: Any) -> Any:
        """Make a key, publish it with these fields, and return the private key."""
        private = _MAKE[algorithm]()
        self.private[kid] = (algorithm, private)
        self.keys.append(self.public(private, algorithm) | {"kid": kid, "use": "sig"} | fields)
        return private

    def remove_key(self, kid: str) -> None:
        self.keys = [key for key in self.keys if key["kid"] != kid]

    @staticmethod
    def public(private: Any, algorithm: str) -> dict[str, Any]:
        public: dict[str, Any] = json.loads(_JWK[algorithm].to_jwk(private.public_key()))
        return public

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return what a good token says; None leaves a claim out."""
        now = int(time.time())
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 300,
                "scope": "openid ask read delete export"} | changed  # fmt: skip
        return {name: value for name, value in said.items() if value is not None}

    def token(self, kid: str = "one", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        algorithm, private = self.private[kid]
        return jwt.encode(self.claims(**claims), private, algorithm, headers={"kid": kid} | (headers or {}))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                described = self.path.endswith("/.well-known/openid-configuration")
                body = json.dumps(issuer.description if described else {"keys": issuer.keys}).encode()
                if issuer.body is not None and not described:
                    body = issuer.body
                self.send_response(issuer.status)
                self.send_header("Location", issuer.jwks_url)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with suppress(OSError):  # the client has had enough
                    self._send(body)

            def _send(self, body: bytes) -> None:
                if not issuer.drip_seconds:
                    self.wfile.write(body)
                    return
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(issuer.drip_seconds)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler
