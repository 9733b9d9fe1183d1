"""What every request and answer passes: host and origin checks, and the security headers."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Only files of this console: no inline script, no inline style, no eval, no frame, no plug-in.
#: `data:` images are the small SVG pictures in Tabler's style sheet (arrows, check marks).
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Forms are short; only a proof file is pasted whole (at most nodes.anchoring.bundle.MAX_BYTES, and
#: a form writes line ends and signs of base64 as three characters).
MAX_BODY_BYTES = 16_384
MAX_PROOF_BYTES = 3 * 65_536


class Gate:
    """ASGI middleware around the whole console."""

    def __init__(self, app: ASGIApp, hosts: list[str], secure: bool) -> None:
        self._app = app
        self._hosts = frozenset(hosts)
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                if self._secure:
                    headers["Strict-Transport-Security"] = "max-age=31536000"
                if not scope["path"].startswith("/static/"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        refusal = self._refusal(scope)
        if refusal:
            status, text = refusal
            await PlainTextResponse(text, status)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        # Another name that was made to point here (DNS rebinding) gets nothing.
        if _hostname(host) not in self._hosts:
            return 421, "This host name isn't served here."
        if scope["method"] in _SAFE_METHODS:
            return None
        length = headers.get("content-length", "")
        if not length.isdigit():
            return 411, "The request's length is missing."
        most = MAX_PROOF_BYTES if scope["path"].endswith("/proofs") else MAX_BODY_BYTES
        if int(length) > most:
            return 413, "The request is too large."
        if not self._own_origin(headers, host):
            return 403, "This request comes from another site."
        return None

    def _own_origin(self, headers: Headers, host: str) -> bool:
        """Browsers send Origin with every state-changing request; without it, nothing changes."""
        parts = urlsplit(headers.get("origin", ""))
        schemes = {"https"} if self._secure else {"http", "https"}
        return parts.scheme in schemes and parts.netloc == host


def _hostname(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""
