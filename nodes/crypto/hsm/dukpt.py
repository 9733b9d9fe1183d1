"""AES DUKPT with AES-128 keys: the host's and a terminal's derivation (ANSI X9.24-3-2017).

Derivation data (section 6.3, 16 bytes): version 01, block counter 01, usage (2), algorithm 0002
(AES-128), length 0080 (bits), then the initial key id (8), or its right half and the counter.
No I/O; `encrypt` is AES-ECB of whole blocks under a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nodes.crypto.hsm.model import BLOCK, KeyUse

Encrypt = Callable[[bytes, bytes], bytes]

SERIAL_LENGTH = 12
KEY_ID_LENGTH = 8
#: The highest counter has no more than 16 one bits (section 6.3, "DUKPT transaction counter").
MAX_ONES = 16
_INITIAL_KEY, _KEY_DERIVATION = 0x8001, 0x8000

#: Key usages as a terminal names them: it generates MACs of requests and verifies those of answers.
USAGES: Mapping[KeyUse, int] = {
    KeyUse.PIN: 0x1000,
    KeyUse.MAC: 0x2000,
    KeyUse.ANSWER_MAC: 0x2001,
    KeyUse.DATA: 0x3000,
}


def _derivation_data(usage: int, rest: bytes) -> bytes:
    return b"\x01\x01" + usage.to_bytes(2, "big") + b"\x00\x02\x00\x80" + rest


def initial_key_data(key_id: bytes) -> bytes:
    """What the base derivation key encrypts to give a terminal's initial key."""
    if len(key_id) != KEY_ID_LENGTH:
        raise ValueError("an initial key id is 8 bytes")
    return _derivation_data(_INITIAL_KEY, key_id)


def check_serial(serial_number: bytes) -> int:
    """The counter of a key serial number. ValueError if there is no such transaction."""
    counter = int.from_bytes(serial_number[KEY_ID_LENGTH:], "big")
    if len(serial_number) != SERIAL_LENGTH or counter == 0 or counter.bit_count() > MAX_ONES:
        raise ValueError("a key serial number is 12 bytes, its counter 1 to 16 one bits")
    return counter


class Derivation:
    """From a terminal's initial key (`key_id`: 8 bytes) to the keys of its transactions.

    A counter's key follows from that of the counter without its lowest one bit. The keys on the
    way to the last transaction are kept, so a terminal that counts on needs one or two blocks a
    transaction instead of one for every one bit.
    """

    __slots__ = ("_half", "_way", "key_id")

    def __init__(self, key_id: bytes, initial_key: bytes) -> None:
        self.key_id = key_id
        self._half = key_id[KEY_ID_LENGTH // 2 :]
        self._way = [(0, initial_key)]

    def transaction_key(self, encrypt: Encrypt, serial_number: bytes) -> bytes:
        """The derivation key of a transaction. ValueError if there is no such transaction."""
        counter = check_serial(serial_number)
        if serial_number[:KEY_ID_LENGTH] != self.key_id:
            raise ValueError("the key serial number is another terminal's")
        way = self._way
        # Off the way is what has a one bit that the counter lacks, or lacks a higher one of its.
        while (counter & -(way[-1][0] & -way[-1][0])) != way[-1][0]:
            way.pop()
        reached, key = way[-1]
        while reached != counter:
            reached |= 1 << ((counter ^ reached).bit_length() - 1)
            data = _derivation_data(_KEY_DERIVATION, self._half + reached.to_bytes(4, "big"))
            key = encrypt(key, data)
            way.append((reached, key))
        return key


def transaction_key(encrypt: Encrypt, initial_key: bytes, serial_number: bytes) -> bytes:
    """The derivation key of a transaction, from the terminal's initial key."""
    derivation = Derivation(serial_number[:KEY_ID_LENGTH], initial_key)
    return derivation.transaction_key(encrypt, serial_number)


def working_keys(
    encrypt: Encrypt, derivation_key: bytes, serial_number: bytes, uses: Iterable[KeyUse]
) -> list[bytes]:
    """The keys of these uses in a transaction, from its derivation key."""
    rest = serial_number[KEY_ID_LENGTH // 2 :]
    data = b"".join([_derivation_data(USAGES[use], rest) for use in uses])
    keys = encrypt(derivation_key, data)
    return [keys[start : start + BLOCK] for start in range(0, len(keys), BLOCK)]


def next_counter(counter: int) -> int:
    """The counter of the next transaction: the next number with at most 16 one bits."""
    counter += 1
    while counter.bit_count() > MAX_ONES:
        # Adding the lowest one bit carries it away: the next candidate has fewer ones.
        counter += counter & -counter
    return counter
