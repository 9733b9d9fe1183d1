"""A merchant's server or a smart terminal as a client of the HTTP API: signs, retries, reads."""

from __future__ import annotations

import secrets
import time
from typing import Any

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.http.signatures import HEADER, Claims, sign
from nodes.crypto.sm2 import provider


class Signer:
    """A key pair of one algorithm; `public_key` in hex is what is enrolled."""

    def __init__(self, key_id: str, algorithm: str = "ES256") -> None:
        self.key_id = key_id
        self.algorithm = algorithm
        if algorithm == "SM2":
            self._sm2, public = provider().generate()
        else:
            self._ec = ec.generate_private_key(ec.SECP256R1())
            encoded = self._ec.public_key().public_bytes(
                Encoding.X962, PublicFormat.UncompressedPoint
            )
            public = encoded[1:]
        self.public_key = public.hex()

    def raw(self, content: bytes) -> bytes:
        """r || s, 64 bytes."""
        if self.algorithm == "SM2":
            return provider().sign(self._sm2, content)
        r, s = decode_dss_signature(self._ec.sign(content, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class MerchantClient:
    """Calls of one key. Async, over a real connection."""

    def __init__(self, base_url: str, signer: Signer) -> None:
        self.signer = signer
        self._http = httpx.AsyncClient(base_url=base_url, timeout=20, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def headers(
        self, method: str, path: str, body: bytes, key: str | None, **changes: Any
    ) -> dict[str, str]:
        """The signed headers of a request; `changes` replace claims."""
        fields: dict[str, Any] = {
            "alg": self.signer.algorithm,
            "kid": self.signer.key_id,
            "iat": int(time.time()),
            "jti": secrets.token_hex(12),
            "htm": method,
            "htu": path,
            "idk": key,
        }
        made = {HEADER: sign(Claims(**fields | changes), body, self.signer.raw)}
        if body:
            made["Content-Type"] = "application/json"
        if key is not None:
            made["Idempotency-Key"] = key
        return made

    async def post(self, path: str, content: dict[str, Any], key: str) -> httpx.Response:
        """A signed POST."""
        body = msgspec.json.encode(content)
        headers = self.headers("POST", path, body, key)
        return await self._http.post(path, content=body, headers=headers)

    async def get(self, path: str) -> httpx.Response:
        """A signed GET."""
        return await self._http.get(path, headers=self.headers("GET", path, b"", None))
