"""The hosted page of an order: what is to be paid, the code, the state. HTML without script."""

from __future__ import annotations

import base64
import hashlib
import html
import io

import segno

from gateway.http.bodies import OrderAnswer
from nodes.money import Money

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:24rem;margin:2rem auto;padding:0 1rem;"
    "text-align:center;color:#111;background:#fff}img{width:100%;image-rendering:pixelated}"
    ".amount{font-size:2rem;font-weight:700}.state{font-weight:700}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; img-src data:; style-src 'sha256-{_STYLE_HASH}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STATES = {
    "open": ("Scan to pay", "扫码支付"),
    "paying": ("Being paid", "支付中"),
    "paid": ("Paid", "已支付"),
    "expired": ("Expired", "已过期"),
}
#: While it may still change, the page loads itself again after so many seconds.
_REFRESH_S = 3


def order_page(order: OrderAnswer, merchant: str) -> str:
    """The page, in English and Chinese."""
    english, chinese = _STATES[order.state]
    waiting = order.state in ("open", "paying")
    refresh = f'<meta http-equiv="refresh" content="{_REFRESH_S}">' if waiting else ""
    code = f'<img alt="{english}" src="{_image(order.qr)}">' if order.state == "open" else ""
    reference = f"<p>{html.escape(order.reference)}</p>" if order.reference else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{refresh}'
        f'<meta name="viewport" content="width=device-width"><title>{english}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{html.escape(merchant)}</h1>{reference}"
        f'<p class="amount">{html.escape(str(Money(order.amount, order.currency)))}</p>{code}'
        f'<p class="state">{english} <span lang="zh">{chinese}</span></p></body></html>'
    )


def _image(text: str) -> str:
    drawn = io.BytesIO()
    segno.make_qr(text, error="m").save(drawn, kind="png", scale=4, border=4)
    return "data:image/png;base64," + base64.b64encode(drawn.getvalue()).decode("ascii")
