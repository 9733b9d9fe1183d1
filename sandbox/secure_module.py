"""A terminal's secure module: everything that a simulated terminal does with keys (docs/keys.md).

module = SecureModule("T0000001", TerminalKeys(Suite.SM, KeyManagement.SM2, tmk, ...))
message.binary[62] = module.sign_on(message.text[11])      # 0800, sealed with epoch=0
module.accept(answer.binary[62])                           # 0810
module.protect(message, pin="123456", pan=card.pan)
frame = module.seal(message, tpdu)
answer = module.verify(frame, response)
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from gateway.iso8583 import codec, wire
from gateway.iso8583.codec import MAC_LENGTH, Message
from gateway.iso8583.dialect import BCD_TPDU, Dialect
from gateway.iso8583.spec import Suite
from gateway.pos import framing
from gateway.pos.cover import associated, uncover
from gateway.pos.framing import Header
from gateway.terminal_keys import sign_on, tlv
from gateway.terminal_keys.model import KeyManagement
from gateway.terminal_keys.ring import ALGORITHMS, GRANT_LENGTH, STATIC_EPOCH, USES, static_label
from nodes.crypto import sm2
from nodes.crypto.hsm import CHECK_VALUE_LENGTH, KeyUse, SoftwareHsm, WrappedKeyInvalid, dukpt

_USES = {"mac": KeyUse.MAC, "pin": KeyUse.PIN, "data": KeyUse.DATA}
_COVERED = (2, 14, 35)
_BLOCKS = {"mac": tlv.MAC_BLOCK, "pin": tlv.PIN_BLOCK, "data": tlv.DATA_BLOCK}


class NotAuthentic(Exception):
    """What came isn't the gateway's."""


class GrantRefused(NotAuthentic):
    """A sign-on answer's keys aren't the gateway's: signature, check value or form is wrong."""


class AnswerForged(NotAuthentic):
    """An answer's MAC is wrong: it is not the gateway's answer to this request."""


@dataclass(frozen=True, slots=True)
class TerminalKeys:
    """What enrolment put into a terminal.

    `key`: the terminal master key, or the initial key of DUKPT (whose id is `key_id`), 16 bytes.
    The SM2 fields are for a sign-on by certificate.
    """

    suite: Suite
    management: KeyManagement
    key: bytes = field(repr=False)
    key_id: bytes = b""
    sm2_private: bytes = field(default=b"", repr=False)
    certificate: bytes = b""
    gateway_public_key: bytes = b""

    @classmethod
    def from_components(
        cls,
        suite: Suite,
        management: KeyManagement,
        components: tuple[bytes, bytes],
        check_value: bytes,
        key_id: bytes = b"",
    ) -> TerminalKeys:
        """The keys that two custodians entered. WrappedKeyInvalid if the check value differs."""
        first, second = components
        key = bytes(a ^ b for a, b in zip(first, second, strict=True))
        if SoftwareHsm({"key": key}, {"key": ALGORITHMS[suite]}).check_value("key") != check_value:
            raise WrappedKeyInvalid("the check value is of another key")
        return cls(suite, management, key, key_id)


class SecureModule:
    """One terminal's keys, by epoch or by transaction, and what is computed with them."""

    def __init__(self, terminal_id: str, keys: TerminalKeys) -> None:
        self.terminal_id = terminal_id
        self.suite = keys.suite
        self.epoch = STATIC_EPOCH
        self._keys = keys
        self._dukpt = keys.management is KeyManagement.DUKPT
        algorithm = ALGORITHMS[keys.suite]
        #: Keys by name: "master"; by epoch or transaction "mac:E", "pin:E", "data:E".
        self.hsm = SoftwareHsm({"master": keys.key}, {"master": algorithm})
        if not self._dukpt:
            for use in _USES:
                self.hsm.derive("master", static_label(use), f"{use}:0", algorithm)
        self._used = 0
        self._until = 0.0
        self._counter = 0
        self._request = b""
        self._ephemeral = b""

    def __repr__(self) -> str:
        return f"SecureModule({self.terminal_id!r}, {self.suite.name})"

    # Sign-on

    @property
    def signs_on(self) -> bool:
        """Whether this terminal gets keys by sign-on at all."""
        return not self._dukpt

    @property
    def due(self) -> bool:
        """Whether to sign on before the next message: no keys, used up, or their day is over."""
        spent = self._used >= USES or time.monotonic() >= self._until
        return self.signs_on and (self.epoch == STATIC_EPOCH or spent)

    def sign_on(self, stan: str) -> bytes:
        """DE62 of an 0800 sign-on with this DE11. ValueError under DUKPT."""
        if not self.signs_on:
            raise ValueError("a DUKPT terminal signs on to nothing")
        values = {tlv.NONCE: secrets.token_bytes(16)}
        if self.epoch != STATIC_EPOCH:
            claim = self.epoch.to_bytes(2, "big") + self._used.to_bytes(4, "big")
            values[tlv.CLAIM] = claim
        if self._keys.management is KeyManagement.SM2:
            self._ephemeral, public = sm2.provider().generate()
            values[tlv.EPHEMERAL] = public
            values[tlv.CERTIFICATE] = self._keys.certificate
        request = tlv.write(values)
        if self._keys.management is KeyManagement.SM2:
            text = sign_on.signed_request(self.terminal_id, stan, request)
            signature = sm2.provider().sign(self._keys.sm2_private, text)
            request += tlv.write({tlv.TERMINAL_SIGNATURE: signature})
        self._request = request
        return request

    def accept(self, grant: bytes) -> None:
        """Take the keys of the 0810's DE62 and use them from now on. GrantRefused."""
        if len(grant) == GRANT_LENGTH:
            self._accept_bare(grant)
            return
        values = tlv.read(grant)
        head = values.get(tlv.EPOCH, b"") if values is not None else b""
        checks = values.get(tlv.CHECK_VALUES, b"") if values is not None else b""
        if values is None or len(head) != 6 or len(checks) != CHECK_VALUE_LENGTH * len(_USES):
            raise GrantRefused("a sign-on answer of a wrong form")
        epoch = int.from_bytes(head[:2], "big")
        wanted = {
            f"{use}:{epoch}": checks[CHECK_VALUE_LENGTH * i : CHECK_VALUE_LENGTH * (i + 1)]
            for i, use in enumerate(_USES)
        }
        try:
            if self._keys.management is KeyManagement.SM2:
                self._accept_certified(grant, values, wanted)
            elif self.suite is Suite.SM:
                self._accept_wrapped(values, wanted)
            else:
                self._accept_blocks(values, wanted)
        except WrappedKeyInvalid as error:
            raise GrantRefused(str(error)) from None
        self._adopt(epoch, int.from_bytes(head[2:], "big"))

    def _accept_bare(self, grant: bytes) -> None:
        """The answer to a bare nonce: MAC and PIN key under the TMK."""
        epoch, part = int.from_bytes(grant[:2], "big"), 16 + CHECK_VALUE_LENGTH
        try:
            for use, start in (("mac", 6), ("pin", 6 + part)):
                wrapped, check = grant[start : start + 16], grant[start + 16 : start + part]
                self.hsm.unwrap("master", wrapped, check, f"{use}:{epoch}")
        except WrappedKeyInvalid as error:
            raise GrantRefused(str(error)) from None
        self._adopt(epoch, int.from_bytes(grant[2:6], "big"))

    def _accept_certified(
        self, grant: bytes, values: dict[int, bytes], wanted: dict[str, bytes]
    ) -> None:
        signature = values.get(tlv.GATEWAY_SIGNATURE, b"")
        signed = grant[: -(3 + sm2.SIGNATURE_LENGTH)]
        text = sign_on.signed_grant(self.terminal_id, self._request, signed)
        last = [*values][-1] == tlv.GATEWAY_SIGNATURE
        public = self._keys.gateway_public_key
        if not last or not sm2.provider().verify(public, text, signature):
            raise GrantRefused("the gateway's signature is wrong")
        opener = SoftwareHsm({"ephemeral": self._ephemeral})
        # Once only: what was said under these keys can't be read with anything the terminal keeps.
        self._ephemeral = b""
        opener.unwrap_sm2("ephemeral", values.get(tlv.ENVELOPE, b""), wanted)
        self.hsm.take_over(opener, wanted)

    def _accept_wrapped(self, values: dict[int, bytes], wanted: dict[str, bytes]) -> None:
        wrapped = values.get(tlv.WRAPPED_KEYS, b"")
        for position, (name, check) in enumerate(wanted.items()):
            part = wrapped[16 * position : 16 * (position + 1)]
            self.hsm.unwrap("master", part, check, name)

    def _accept_blocks(self, values: dict[int, bytes], wanted: dict[str, bytes]) -> None:
        for (use, kind), (name, check) in zip(_USES.items(), wanted.items(), strict=True):
            block = values.get(_BLOCKS[use], b"").decode("ascii", "replace")
            self.hsm.unwrap_block("master", block, kind, name)
            if self.hsm.check_value(name) != check:
                raise GrantRefused("the check value is of another key")

    def _adopt(self, epoch: int, seconds: int) -> None:
        self.epoch = epoch
        self._used = 0
        self._until = time.monotonic() + seconds

    # Messages

    def protect(
        self, message: Message, *, pin: str | None = None, pan: str = "", cover: bool = False
    ) -> None:
        """Add the PIN block; with `cover` move DE2, DE14 and DE35 into DE62.

        Under DUKPT every message gets the next key serial number, so call this for each.
        """
        values: dict[int, bytes] = {}
        suffix = str(self.epoch)
        if self._dukpt:
            self._counter = dukpt.next_counter(self._counter)
            serial = self._keys.key_id + self._counter.to_bytes(4, "big")
            values[tlv.KEY_SERIAL] = serial
            suffix = self._transaction(serial)
        if pin is not None:
            message.text[26] = f"{len(pin):02d}"
            message.binary[52] = self.hsm.seal_pin(f"pin:{suffix}", pin, pan)
        if cover:
            plain = {n: message.text.pop(n).encode() for n in _COVERED if n in message.text}
            sealed = self.hsm.cover(f"data:{suffix}", tlv.write(plain), associated(message))
            values[tlv.COVER] = sealed
        if values:
            message.binary[62] = tlv.write(values)

    def seal(
        self,
        message: Message,
        tpdu: bytes,
        dialect: Dialect = BCD_TPDU,
        *,
        epoch: int | None = None,
        mac: bool = True,
        wrong: bool = False,
    ) -> bytes:
        """The frame of a message, with its MAC; without `mac` none, with `wrong` another one."""
        epoch = self.epoch if epoch is None else epoch
        header = Header(tpdu if dialect.tpdu else b"", self.suite, epoch, dialect=dialect)
        if not mac:
            return framing.frame(header, codec.encode(message, self.suite, dialect))
        complete = Message.of(message.mti, message.text, {**message.binary, 64: bytes(MAC_LENGTH)})
        body = codec.encode(complete, self.suite, dialect)[: -dialect.mac_width]
        key = f"mac:{self._suffix(message, epoch)}"
        code = self.hsm.mac(key, header.bytes_without_tpdu() + body)
        if wrong:
            code = bytes((code[0] ^ 1,)) + code[1:]
        self._used += 1
        return framing.frame(header, body + wire.write_bytes(code, dialect.hex_bytes, dialect))

    def verify(self, request: bytes, response: bytes, dialect: Dialect = BCD_TPDU) -> Message:
        """The message in an answer's frame; AnswerForged if its MAC is wrong.

        An answer without DE64 proves nothing: `64 not in message.binary`.
        """
        content = response[framing.LENGTH_BYTES :]
        header = framing.parse_header(content, dialect)
        message = codec.decode(content[dialect.message_start :], header.suite, dialect)
        if 64 in message.binary:
            sent = self._decode(request, dialect)
            covered = sent.binary.get(64, b"") + content[dialect.header_start : -dialect.mac_width]
            use = "answer_mac" if self._dukpt else "mac"
            key = f"{use}:{self._suffix(sent, header.epoch)}"
            if not self.hsm.verify_mac(key, covered, message.binary[64]):
                raise AnswerForged(f"answer {message.mti}: wrong MAC")
        return message

    def open(self, request: bytes, dialect: Dialect = BCD_TPDU) -> Message:
        """The message of a frame that this module sealed, its card data uncovered."""
        epoch = framing.parse_header(request[framing.LENGTH_BYTES :], dialect).epoch
        message = self._decode(request, dialect)
        if message.mti != "0800" and 62 in message.binary:
            uncover(message, f"data:{self._suffix(message, epoch)}", self.hsm)
        return message

    def _decode(self, frame: bytes, dialect: Dialect) -> Message:
        body = frame[framing.LENGTH_BYTES + dialect.message_start :]
        return codec.decode(body, self.suite, dialect)

    def _suffix(self, message: Message, epoch: int) -> str:
        """What the names of this message's keys end in."""
        if not self._dukpt:
            return str(epoch)
        values = tlv.read(message.binary.get(62, b"")) or {}
        return self._transaction(values[tlv.KEY_SERIAL])

    def _transaction(self, serial: bytes) -> str:
        """Make the keys of a DUKPT transaction."""
        suffix = serial.hex()
        names = {use: f"{use}:{suffix}" for use in (*_USES.values(), KeyUse.ANSWER_MAC)}
        self.hsm.derive_transaction("master", serial, names)
        return suffix
