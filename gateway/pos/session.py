"""One frame in, one step out: what a terminal's message leads to. Pure; no sockets, no waiting.

The order of the checks is part of the contract (docs/iso8583.md, Order of checks): frame, header,
message format, answer MTI, MTI, terminal, MAC, merchant, elements, values. Nothing that can
change a state is reached before the MAC is good.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from gateway.iso8583 import codec, wire
from gateway.iso8583.codec import MAC_LENGTH, Message
from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.errors import FormatError
from gateway.iso8583.spec import REQUEST_ELEMENTS
from gateway.pos import framing, services, translate
from gateway.pos.cover import uncover
from gateway.pos.framing import FrameError, Header
from gateway.pos.response_codes import APPROVED, CODE_OF_REFUSAL, Refusal
from gateway.pos.translate import Policy, Refused
from gateway.terminal_keys import sign_on, tlv
from gateway.terminal_keys.model import KeyManagement, TerminalRecord
from gateway.terminal_keys.ring import STATIC_EPOCH, KeyRing, WorkingKeys
from gateway.terminal_keys.sign_on import SignOnFlaw
from nodes.authorization.model import TerminalAnswer, TerminalRequest
from nodes.authorization.services import ServiceAnswer, ServiceRequest
from nodes.crypto.hsm import Hsm, KeyUnavailable

_NO_MAC = bytes(MAC_LENGTH)


class Close(msgspec.Struct, frozen=True, gc=False):
    """Close the connection without an answer; `reason` is a metric's label."""

    reason: str


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Do nothing and go on reading."""

    reason: str


class Reply(msgspec.Struct, frozen=True, gc=False):
    """Answer at once with these bytes; `refusal` None: sign-on or echo."""

    frame: bytes
    mti: str
    code: str
    terminal_id: str
    refusal: Refusal | None = None


class Address(msgspec.Struct, frozen=True, gc=False):
    """How to answer one request: `mac_key` None where its MAC was not verified."""

    header: Header
    mti: str
    echo: Mapping[int, str]
    mac_key: str | None
    request_mac: bytes


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Ask the node, and answer to `address` what it decides."""

    request: TerminalRequest | ServiceRequest
    address: Address


Step = Close | Drop | Reply | Forward


class Session:
    """The gateway's side of the POS link, the same for every connection: it has no state."""

    def __init__(self, hsm: Hsm, ring: KeyRing, policy: Policy) -> None:
        self._hsm = hsm
        self._ring = ring
        self._policy = policy

    def receive(self, content: bytes, now_ms: int, dialect: Dialect = BCD_TPDU) -> Step:
        """What the content of one frame leads to. Never raises for anything a peer can send."""
        try:
            header, answer_header = framing.parse_headers(content, dialect)
        except FrameError as error:
            return Close(f"frame_{error.flaw.value}")
        try:
            message = codec.decode(content[dialect.message_start :], header.suite, dialect)
        except FormatError as error:
            return self._unreadable(answer_header, error)
        mti = message.mti
        if translate.is_answer(mti):
            return Drop("answer_unasked")
        text = message.text
        if 11 not in text or 41 not in text:
            return Close("no_address")
        terminal, keys = self._parties(message, header, now_ms)
        genuine = keys is not None and self._genuine(content, message, keys, dialect)
        address = Address(
            answer_header,
            mti,
            message.echo(),
            keys.answer_mac if keys is not None and genuine else None,
            message.binary.get(64, b""),
        )
        try:
            if mti not in translate.BASE:
                raise Refused(Refusal.MTI_UNKNOWN)
            if terminal is None:
                raise Refused(Refusal.TERMINAL_UNKNOWN, 41)
            if keys is None or not genuine:
                if keys is not None and terminal.management is KeyManagement.DUKPT:
                    self._ring.refused(terminal, keys, _serial(message) or b"")
                raise Refused(Refusal.MAC, 64)
            self._ring.verified(terminal, keys, now_ms)
            return self._accepted(message, header, terminal, keys, address, now_ms)
        except Refused as refused:
            return self.refuse(address, refused.refusal)

    def refuse(self, address: Address, refusal: Refusal) -> Reply:
        """The answer for what the gateway refuses by itself."""
        return self._reply(address, CODE_OF_REFUSAL[refusal], refusal)

    def answer(
        self,
        request: TerminalRequest | ServiceRequest,
        address: Address,
        answer: TerminalAnswer | ServiceAnswer,
    ) -> Reply:
        """The answer for a node's decision: equal bytes for an equal request and decision."""
        if isinstance(answer, ServiceAnswer) or isinstance(request, ServiceRequest):
            assert isinstance(answer, ServiceAnswer)
            message = services.to_message(address.mti, address.echo, answer)
        else:
            message = translate.to_answer(address.mti, address.echo, request, answer)
        code = message.text[39]
        return Reply(self._seal(address, message), message.mti, code, request.terminal_id)

    def _parties(
        self, message: Message, header: Header, now_ms: int
    ) -> tuple[TerminalRecord | None, WorkingKeys | None]:
        terminal = self._ring.terminal(message.text[41])
        if terminal is None or terminal.suite is not header.suite:
            return None, None
        if terminal.management is KeyManagement.DUKPT:
            serial = _serial(message) if header.epoch == STATIC_EPOCH else None
            if serial is None:
                return terminal, None
            return terminal, self._ring.transaction_keys(terminal, serial)
        signs_on = message.mti == "0800" and message.text.get(3) == "990000"
        return terminal, self._ring.keys(terminal, header.epoch, now_ms, signs_on)

    def _genuine(
        self, content: bytes, message: Message, keys: WorkingKeys, dialect: Dialect
    ) -> bool:
        mac = message.binary.get(64)
        # Over the bytes as they came: header to DE63. DE64 is the last element.
        return mac is not None and self._hsm.verify_mac(
            keys.mac, content[dialect.header_start : -dialect.mac_width], mac
        )

    def _accepted(
        self,
        message: Message,
        header: Header,
        terminal: TerminalRecord,
        keys: WorkingKeys,
        address: Address,
        now_ms: int,
    ) -> Step:
        """A message of a known type whose MAC is good."""
        if header.flags or header.reserved:
            raise Refused(Refusal.FORMAT)
        if not (message.text.keys() <= REQUEST_ELEMENTS >= message.binary.keys()):
            raise Refused(Refusal.ELEMENT_NOT_PERMITTED)
        covered = 62 in message.binary and message.mti != "0800"
        if covered and not uncover(message, keys.data, self._hsm):
            raise Refused(Refusal.FORMAT, 62)
        route = translate.route_of(message)
        if message.text[42] != terminal.merchant_id:
            raise Refused(Refusal.MERCHANT_UNKNOWN, 42)
        if route.kind is not None:
            request = translate.to_request(
                message, route, keys.pin, self._hsm, self._policy, now_ms
            )
            return Forward(request, address)
        if route.service is not None:
            asked = services.to_service_request(
                message, route, keys.pin, self._hsm, self._policy, now_ms
            )
            return Forward(asked, address)
        if route is translate.ECHO:
            return self._reply(address, APPROVED, None)
        stan, material = message.text[11], message.binary[62]
        try:
            grant = sign_on.grant(self._ring, self._hsm, terminal, stan, material, now_ms)
        except KeyUnavailable:
            raise Refused(Refusal.KEYS_UNAVAILABLE) from None
        if grant is SignOnFlaw.SIGNATURE:
            raise Refused(Refusal.MAC, 62)
        if isinstance(grant, SignOnFlaw):
            raise Refused(Refusal.FORMAT, 62)
        return self._reply(address, APPROVED, None, {62: grant})

    def _unreadable(self, answer_header: Header, error: FormatError) -> Step:
        if error.mti is not None and translate.is_answer(error.mti):
            return Drop("answer_unasked")
        if not error.answerable or error.mti is None:
            return Close(f"format_{error.flaw.value}")
        address = Address(answer_header, error.mti, error.echo, None, b"")
        return self.refuse(address, Refusal.FORMAT)

    def _reply(
        self,
        address: Address,
        code: str,
        refusal: Refusal | None,
        binary: Mapping[int, bytes] | None = None,
    ) -> Reply:
        message = translate.refusal_answer(address.mti, address.echo, code)
        message.binary.update(binary or {})
        sealed = self._seal(address, message)
        return Reply(sealed, message.mti, code, address.echo[41], refusal)

    def _seal(self, address: Address, message: Message) -> bytes:
        """The frame of an answer; its MAC covers the request's MAC, then header to DE63."""
        header = address.header
        if address.mac_key is None:
            return framing.frame(header, codec.encode(message, header.suite, header.dialect))
        # Encoded with a place for the MAC, because the bitmap is covered too.
        message.binary[64] = _NO_MAC
        dialect = header.dialect
        body = codec.encode(message, header.suite, dialect)[: -dialect.mac_width]
        covered = address.request_mac + header.bytes_without_tpdu() + body
        mac = self._hsm.mac(address.mac_key, covered)
        return framing.frame(header, body + wire.write_bytes(mac, dialect.hex_bytes, dialect))


def _serial(message: Message) -> bytes | None:
    """The key serial number of a DUKPT terminal's message."""
    values = tlv.read(message.binary.get(62, b""))
    return values.get(tlv.KEY_SERIAL) if values is not None else None
