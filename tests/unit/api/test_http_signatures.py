"""RFC 9421 signatures: the RFC's own vector, the package as oracle, and each way to be refused."""

from __future__ import annotations

import base64
import datetime
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_der_private_key
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    algorithms,
)
from hypothesis import given
from hypothesis import strategies as st
from requests.structures import CaseInsensitiveDict

from nodes.crypto.http_signatures import (
    WINDOW_S,
    MacKey,
    MessageMac,
    MessageSigner,
    NonceMemory,
    SignatureFault,
    SignatureRefused,
    check_signature,
    content_digest,
    parse_head,
    shared_key,
    signature_base,
    verify_answer,
    verify_request,
)

SEED = bytes(range(32))
NOW = 1_795_365_555
URI = "http://127.0.0.1:8101/v1/authorizations"
BODY = b'{"requests":[]}'

# RFC 9421, appendix B.1.4 (key) and B.2.6 (message and signature).
RFC_KEY = "MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF"
RFC_PUBLIC_KEY = "MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs="
RFC_PARAMS = (
    '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
RFC_SIGNATURE = (
    "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
)
RFC_COMPONENTS = [
    ('"date"', "Tue, 20 Apr 2021 02:07:55 GMT"),
    ('"@method"', "POST"),
    ('"@path"', "/foo"),
    ('"@authority"', "example.com"),
    ('"content-type"', "application/json"),
    ('"content-length"', "18"),
]


def test_the_vector_of_the_rfc_is_read_and_verified_and_made() -> None:
    head = parse_head(f"sig-b26={RFC_PARAMS}", f"sig-b26=:{RFC_SIGNATURE}:")
    base = signature_base(RFC_COMPONENTS, head.params)
    public = base64.b64decode(RFC_PUBLIC_KEY)[-32:]
    assert (head.key_id, head.created, head.nonce) == ("test-key-ed25519", 1618884473, None)
    check_signature(public, head.signature, base)
    private = load_der_private_key(base64.b64decode(RFC_KEY), None)
    assert isinstance(private, Ed25519PrivateKey)
    assert base64.b64encode(private.sign(base)).decode() == RFC_SIGNATURE
    with pytest.raises(SignatureRefused):
        check_signature(public, head.signature, base.replace(b"POST", b"PUT"))


@dataclass
class Exchange:
    """A signed request, to be altered before it is verified."""

    method: str = "POST"
    uri: str = URI
    body: bytes = BODY
    now: float = NOW
    key: bytes = MessageSigner("meridian", SEED).public_key
    headers: dict[str, str] = field(
        default_factory=lambda: MessageSigner("meridian", SEED).sign_request("POST", URI, BODY, NOW)
    )

    def verify(self) -> None:
        head = parse_head(self.headers["Signature-Input"], self.headers["Signature"])
        verify_request(
            head,
            method=self.method,
            target_uri=self.uri,
            digest=self.headers.get("Content-Digest"),
            body=self.body,
            public_key=self.key,
            now_s=self.now,
        )

    def with_header(self, name: str, change: Callable[[str], str]) -> Exchange:
        return replace(self, headers={**self.headers, name: change(self.headers[name])})


def test_a_signed_request_verifies() -> None:
    Exchange().verify()


ALTERATIONS: dict[str, tuple[Callable[[Exchange], Exchange], SignatureFault]] = {
    "another method": (lambda e: replace(e, method="PUT"), SignatureFault.WRONG),
    "another path": (lambda e: replace(e, uri=URI + "x"), SignatureFault.WRONG),
    "another host": (lambda e: replace(e, uri=URI.replace("8101", "8102")), SignatureFault.WRONG),
    "another body": (lambda e: replace(e, body=BODY + b" "), SignatureFault.DIGEST),
    "body and digest of another": (
        lambda e: replace(e, body=b"{}").with_header(
            "Content-Digest", lambda _: content_digest(b"{}")
        ),
        SignatureFault.WRONG,
    ),
    "another key": (
        lambda e: replace(e, key=MessageSigner("x", bytes(32)).public_key),
        SignatureFault.WRONG,
    ),
    "too old": (lambda e: replace(e, now=NOW + WINDOW_S + 1), SignatureFault.STALE),
    "too far ahead": (lambda e: replace(e, now=NOW - WINDOW_S - 1), SignatureFault.STALE),
    "created moved": (
        lambda e: e.with_header("Signature-Input", lambda v: v.replace(f"={NOW};", f"={NOW + 1};")),
        SignatureFault.WRONG,
    ),
    "key id of another": (
        lambda e: e.with_header("Signature-Input", lambda v: v.replace("meridian", "harbor")),
        SignatureFault.WRONG,
    ),
    "digest not covered": (
        lambda e: e.with_header("Signature-Input", lambda v: v.replace(' "content-digest"', "")),
        SignatureFault.COMPONENTS,
    ),
    "another algorithm": (
        lambda e: e.with_header(
            "Signature-Input", lambda v: v.replace('alg="ed25519"', 'alg="hmac-sha256"')
        ),
        SignatureFault.ALGORITHM,
    ),
    "a parameter twice": (
        lambda e: e.with_header("Signature-Input", lambda v: v + f";created={NOW}"),
        SignatureFault.MALFORMED,
    ),
    "an unknown parameter": (
        lambda e: e.with_header("Signature-Input", lambda v: v + ';tag="x"'),
        SignatureFault.MALFORMED,
    ),
    "two signatures": (
        lambda e: e.with_header("Signature", lambda v: f"{v}, {v}"),
        SignatureFault.MALFORMED,
    ),
    "another label": (
        lambda e: e.with_header("Signature", lambda v: v.replace("sig1", "sig2")),
        SignatureFault.MALFORMED,
    ),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_an_altered_request_is_refused_with_its_reason(name: str) -> None:
    alter, fault = ALTERATIONS[name]
    with pytest.raises(SignatureRefused) as refusal:
        alter(Exchange()).verify()
    assert refusal.value.fault is fault


def test_a_request_without_a_nonce_is_refused() -> None:
    exchange = Exchange().with_header(
        "Signature-Input", lambda v: ";".join(p for p in v.split(";") if "nonce" not in p)
    )
    with pytest.raises(SignatureRefused):
        exchange.verify()


def test_a_bodiless_request_needs_no_digest_but_may_not_smuggle_a_body() -> None:
    headers = MessageSigner("harbor", SEED).sign_request("GET", URI + "?after=1", b"", NOW)
    exchange = Exchange(method="GET", uri=URI + "?after=1", body=b"", headers=headers)
    exchange.verify()
    with pytest.raises(SignatureRefused) as refusal:
        replace(exchange, body=b"x").verify()
    assert refusal.value.fault is SignatureFault.COMPONENTS
    with pytest.raises(SignatureRefused):
        replace(exchange, uri=URI + "?after=0").verify()


def answered(**changes: Any) -> None:
    """Verify a node's answer to a request, with something altered."""
    request = MessageSigner("meridian", SEED).sign_request("POST", URI, BODY, NOW)
    head = parse_head(request["Signature-Input"], request["Signature"])
    issuer = MessageSigner("aurora", bytes(32))
    fields = issuer.sign_answer(200, b'{"answers":[]}', NOW, head)
    arguments: dict[str, Any] = {
        "status": 200,
        "body": b'{"answers":[]}',
        "request_signature": head.field,
        "key_id": "aurora",
        "public_key": issuer.public_key,
        "now_s": NOW,
    }
    headers = {name.lower(): value for name, value in fields.items()}
    headers.update(changes.pop("headers", {}))
    verify_answer({k: v for k, v in headers.items() if v}, **(arguments | changes))


def test_an_answer_verifies_and_only_as_the_answer_to_its_request() -> None:
    answered()
    other = MessageSigner("meridian", SEED).sign_request("POST", URI, BODY, NOW)["Signature"]
    for change in (
        {"status": 503},
        {"body": b"{}"},
        {"request_signature": other.removeprefix("sig1=")},
        {"key_id": "borealis"},
        {"public_key": MessageSigner("x", SEED).public_key},
        {"now_s": NOW + 100},
        {"headers": {"signature": ""}},
    ):
        with pytest.raises(SignatureRefused):
            answered(**change)


class OneKey(HTTPSignatureKeyResolver):
    """The package's way to a key."""

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        return Ed25519PrivateKey.from_private_bytes(SEED).public_key()

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(SEED)


ORACLE = {"signature_algorithm": algorithms.ED25519, "key_resolver": OneKey()}
PATHS = st.from_regex(r"/[a-z0-9._~-]{0,20}(\?[a-z0-9=&%20]{0,20})?", fullmatch=True).filter(
    lambda path: "%" not in path
)


@given(body=st.binary(min_size=1, max_size=200), path=PATHS)
def test_the_package_verifies_what_we_sign(body: bytes, path: str) -> None:
    now = int(datetime.datetime.now().timestamp())
    fields = MessageSigner("meridian", SEED).sign_request(
        "POST", "http://node:8101" + path, body, now
    )
    message = SimpleNamespace(
        method="POST", url="http://node:8101" + path, headers=CaseInsensitiveDict(fields)
    )
    results = HTTPMessageVerifier(**ORACLE).verify(message, body=body)
    assert len(results) == 1
    covered = set(results[0].covered_components)
    assert covered >= {'"@method"', '"@target-uri"', '"content-digest"'}


@given(body=st.binary(min_size=1, max_size=200), path=PATHS)
def test_we_verify_what_the_package_signs(body: bytes, path: str) -> None:
    url = "http://node:8101" + path
    message = SimpleNamespace(
        method="POST",
        url=url,
        headers=CaseInsensitiveDict({"Content-Digest": content_digest(body)}),
    )
    HTTPMessageSigner(**ORACLE).sign(
        message,
        key_id="meridian",
        created=datetime.datetime.fromtimestamp(NOW),
        nonce="0123456789abcdef",
        label="theirs",
        covered_component_ids=("@method", "@target-uri", "content-digest"),
        use_existing_digest=True,
    )
    Exchange(uri=url, body=body, headers=dict(message.headers)).verify()


def test_the_package_verifies_our_answers() -> None:
    now = int(datetime.datetime.now().timestamp())
    signer = MessageSigner("aurora", SEED)
    fields = signer.sign_request("POST", URI, BODY, now)
    head = parse_head(fields["Signature-Input"], fields["Signature"])
    answer = SimpleNamespace(
        status_code=200,
        headers=CaseInsensitiveDict(signer.sign_answer(200, b"{}", now, head)),
        request=SimpleNamespace(method="POST", url=URI, headers=CaseInsensitiveDict(fields)),
    )
    assert HTTPMessageVerifier(**ORACLE).verify(answer, body=b"{}")


@given(first=st.text(max_size=200), second=st.text(max_size=200))
def test_no_header_whatever_raises_anything_but_a_refusal(first: str, second: str) -> None:
    with pytest.raises(SignatureRefused):
        parse_head(first, second)


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_nonce_is_remembered_for_twice_the_window_and_then_forgotten() -> None:
    time = Seconds()
    memory = NonceMemory(time)
    for start in range(0, 60, 7):
        time.now = 1000.0 + start
        assert memory.is_new("aurora", f"n{start}")
    for elapsed in range(0, 2 * WINDOW_S, 9):
        time.now = 1053.0 + elapsed
        assert not memory.is_new("aurora", "n56")
    assert memory.is_new("borealis", "n56"), "nonces are a key's own"
    time.now += 4 * WINDOW_S
    assert memory.is_new("aurora", "n56")


def test_a_key_that_fills_its_memory_is_refused_and_no_other_key_with_it() -> None:
    memory = NonceMemory(Seconds(), per_key=3)
    assert [memory.is_new("aurora", str(n)) for n in range(5)] == [True, True, True, False, False]
    assert memory.is_new("borealis", "0")


def test_no_repr_shows_the_key() -> None:
    shown = repr(MessageSigner("aurora", SEED))
    assert SEED.hex() not in shown
    assert repr(SEED) not in shown


# RFC 9421, appendix B.1.5 (the key) and B.2.5 (the message, the base and the signature).
RFC_SECRET = (
    "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
)
RFC_HMAC = "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="
RFC_HMAC_BASE = (
    b'"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@authority": example.com\n'
    b'"content-type": application/json\n"@signature-params": ("date" "@authority" "content-type")'
    b';created=1618884473;keyid="test-shared-secret"'
)
NODE_SEED = bytes(range(32, 64))
GATEWAY_MAC = MessageMac("gateway:front", SEED, MessageSigner("x", NODE_SEED).public_key)
NODE_MAC = MessageMac("meridian", NODE_SEED, MessageSigner("x", SEED).public_key)


def test_the_hmac_of_the_rfc_is_made_and_read() -> None:
    class Published(MessageMac):
        """With the key of the RFC, which no two Ed25519 keys give."""

        def __init__(self) -> None:
            super().__init__("test-shared-secret", SEED, NODE_MAC.public_key)
            self.mac = MacKey(base64.b64decode(RFC_SECRET))

    assert Published()._sign(RFC_HMAC_BASE.decode()) == f":{RFC_HMAC}:"
    given = (
        '("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
        ';alg="hmac-sha256"'
    )
    head = parse_head(f"sig-b25={given}", f"sig-b25=:{RFC_HMAC}:")
    assert (head.algorithm, base64.b64encode(head.signature).decode()) == ("hmac-sha256", RFC_HMAC)


@given(first=st.binary(min_size=32, max_size=32), second=st.binary(min_size=32, max_size=32))
def test_both_sides_get_the_same_key_and_nobody_else_does(first: bytes, second: bytes) -> None:
    one, other = MessageSigner("a", first).public_key, MessageSigner("b", second).public_key
    shared = shared_key(first, other)
    assert shared == shared_key(second, one)
    third = hashlib.sha256(first + second).digest()
    assert shared_key(third, other) != shared
    assert shared_key(third, one) != shared
    assert shared.key.hex() not in repr(shared)
    assert repr(shared.key) not in repr(shared)


_PRIME = (1 << 255) - 19
#: u of the points of order 8 on Curve25519, from the list at https://cr.yp.to/ecdh.html#validate.
_ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)


@pytest.mark.parametrize("sign", [0, 1 << 255], ids=["even", "odd"])
@pytest.mark.parametrize(
    "y",
    [
        *(1, _PRIME - 1, 0),  # the neutral point, that of order 2, those of order 4
        *((u - 1) * pow(u + 1, -1, _PRIME) % _PRIME for u in _ORDER_8),
        *(_PRIME + 1, _PRIME),  # once more the first and the third, not reduced
    ],
)
def test_a_key_of_small_order_gives_no_shared_key(y: int, sign: int) -> None:
    with pytest.raises(ValueError, match="shared key"):
        shared_key(SEED, (y + sign).to_bytes(32, "little"))


def test_a_key_that_is_not_reduced_gives_a_key_that_nobody_else_has() -> None:
    """19 values of y have a second encoding. The context holds the bytes, so no two keys meet."""
    keys = {shared_key(SEED, y.to_bytes(32, "little")).key for y in (3, _PRIME + 3)}
    assert len(keys) == 2


def test_no_request_is_an_answer_and_no_answer_a_request() -> None:
    """One key for both directions: what a gateway sent can't be sent back to it as the node's."""
    asked = GATEWAY_MAC.sign_request("POST", URI, BODY, NOW)
    head = parse_head(asked["Signature-Input"], asked["Signature"])
    with pytest.raises(SignatureRefused) as refusal:
        verify_answer(
            {name.lower(): value for name, value in asked.items()},
            status=200, body=BODY, request_signature=head.field, key_id=None,
            public_key=NODE_MAC.public_key, now_s=NOW, mac=GATEWAY_MAC.mac,
        )  # fmt: skip
    assert refusal.value.fault is SignatureFault.COMPONENTS
    told = NODE_MAC.sign_answer(200, BODY, NOW, head)
    reflected = parse_head(told["Signature-Input"], told["Signature"])
    for nonce in (None, "0123456789abcdef"):
        with pytest.raises(SignatureRefused):
            verify_request(
                replace(reflected, nonce=nonce), method="POST", target_uri=URI,
                digest=told["Content-Digest"], body=BODY, public_key=GATEWAY_MAC.public_key,
                now_s=NOW, mac=NODE_MAC.mac,
            )  # fmt: skip


def test_one_gateways_key_is_not_anothers() -> None:
    second = MessageMac("gateway:second", bytes(32), NODE_MAC.public_key)
    asked = second.sign_request("POST", URI, BODY, NOW)
    head = parse_head(asked["Signature-Input"].replace("second", "front"), asked["Signature"])
    with pytest.raises(SignatureRefused) as refusal:
        verify_request(
            head, method="POST", target_uri=URI, digest=asked["Content-Digest"], body=BODY,
            public_key=GATEWAY_MAC.public_key, now_s=NOW, mac=NODE_MAC.mac,
        )  # fmt: skip
    assert refusal.value.fault is SignatureFault.WRONG


def macced(**changes: Any) -> None:
    """Verify a gateway's request and the node's answer to it, with something altered."""
    fields = changes.pop("signer", GATEWAY_MAC).sign_request("POST", URI, BODY, NOW)
    head = parse_head(fields["Signature-Input"], fields["Signature"])
    head = replace(head, **changes.pop("head", {}))
    arguments: dict[str, Any] = {
        "method": "POST",
        "target_uri": URI,
        "digest": fields["Content-Digest"],
        "body": BODY,
        "public_key": GATEWAY_MAC.public_key,
        "now_s": NOW,
        "mac": NODE_MAC.mac,
    }
    verify_request(head, **(arguments | changes))


def test_a_request_with_an_hmac_verifies_and_nothing_else_does() -> None:
    macced()
    stranger = MessageMac("gateway:front", bytes(32), NODE_MAC.public_key)
    for change, fault in (
        ({"mac": None}, SignatureFault.ALGORITHM),
        ({"mac": stranger.mac}, SignatureFault.WRONG),
        ({"signer": stranger}, SignatureFault.WRONG),
        ({"method": "PUT"}, SignatureFault.WRONG),
        ({"body": b"{}"}, SignatureFault.DIGEST),
        ({"now_s": NOW + 100}, SignatureFault.STALE),
        # An HMAC isn't taken for a signature, nor a signature for an HMAC.
        ({"head": {"algorithm": "ed25519"}}, SignatureFault.WRONG),
        ({"signer": MessageSigner("gateway:front", SEED), "head": {"algorithm": "hmac-sha256"}},
         SignatureFault.WRONG),
    ):  # fmt: skip
        with pytest.raises(SignatureRefused) as refusal:
            macced(**change)
        assert refusal.value.fault is fault, change


def test_an_answer_with_an_hmac_is_one_to_its_request_alone() -> None:
    sent = GATEWAY_MAC.sign_request("POST", URI, BODY, NOW)
    head = parse_head(sent["Signature-Input"], sent["Signature"])
    fields = NODE_MAC.sign_answer(200, b"{}", NOW, head)
    arguments: dict[str, Any] = {
        "status": 200,
        "body": b"{}",
        "request_signature": head.field,
        "key_id": "meridian",
        "public_key": NODE_MAC.public_key,
        "now_s": NOW,
        "mac": GATEWAY_MAC.mac,
    }
    headers = {name.lower(): value for name, value in fields.items()}
    verify_answer(headers, **arguments)
    other = GATEWAY_MAC.sign_request("POST", URI, BODY, NOW)["Signature"].removeprefix("sig1=")
    for change in ({"request_signature": other}, {"mac": None}, {"status": 503}, {"body": b"x"}):
        with pytest.raises(SignatureRefused):
            verify_answer(headers, **(arguments | change))


@pytest.mark.parametrize(
    ("algorithm", "value"), [("hmac-sha256", "A" * 86 + "=="), ("ed25519", RFC_HMAC)]
)
def test_a_signature_has_the_length_of_its_algorithm(algorithm: str, value: str) -> None:
    given = f'sig1=("@method");created=1;keyid="a";alg="{algorithm}"'
    with pytest.raises(SignatureRefused) as refusal:
        parse_head(given, f"sig1=:{value}:")
    assert refusal.value.fault is SignatureFault.ALGORITHM
