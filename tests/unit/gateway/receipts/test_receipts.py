"""Receipts: what stands on them, how wide, and that the printed code leads to the proof."""

from __future__ import annotations

import hashlib
import itertools
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.receipts import columns
from gateway.receipts.escpos import code_image, to_escpos
from gateway.receipts.fonts import CHINESE, runs
from gateway.receipts.layout import Code, Pair, compose, lines_of
from gateway.receipts.model import (
    Chip,
    Copy,
    Cvm,
    Language,
    ReceiptContent,
    ReceiptRefused,
    Wanted,
    content_of,
)
from gateway.receipts.rendering import Form, render, to_text
from gateway.receipts.wording import COPIES, CVMS, ENTRIES, KINDS, LABELS, REASONS
from nodes.authorization.entry_modes import EntryMode
from nodes.authorization.model import Outcome
from tests.factories.qr_reading import level_of, matrix_of, read_matrix, read_png, version_of

HERE = Path(__file__).parent
LINK = "https://node.meridian.example/r#" + "aZ09-_" * 43
CHINA = timezone(timedelta(hours=8))
EVERY = [
    Wanted(copy, language, width, duplicate)
    for copy, language, width, duplicate in itertools.product(
        Copy, Language, (58, 80), (False, True)
    )
]


def content(**changes: Any) -> ReceiptContent:
    made = ReceiptContent(
        txid="ab" * 32,
        kind="purchase",
        approved=True,
        outcome="approved",
        amount=12_850,
        currency="CNY",
        merchant_id="HARBOR000000001",
        merchant_name="海港商店 Harbor Stores",
        terminal_id="HRB00001",
        acquirer="Meridian Acquiring",
        issuer="Aurora Bank",
        pan_masked="622300******1234",
        entry_mode="051",
        batch="000012",
        stan="000345",
        rrn="000000001234",
        local_time=datetime(2026, 11, 23, 10, 30, 5, tzinfo=CHINA),
        store="三号码头",
        approval_code="A12345",
        cvm=Cvm.SIGNATURE,
        chip=Chip(aid="a000000333010101", label="CS DEBIT", cryptogram="1122334455667788", atc=18),
        proof_url=LINK,
        promised_by=datetime(2026, 11, 24, 2, 30, tzinfo=UTC),
    )
    return msgspec.structs.replace(made, **changes)


@pytest.mark.parametrize("wanted", EVERY, ids=str)
def test_no_line_is_wider_than_the_paper(wanted: Wanted) -> None:
    long = content(merchant_name="港" * 60, store="A street of many words " * 5)
    for made in (content(), long, content(chip=None, proof_url=None, approved=False)):
        for part in compose(made, wanted):
            for line in lines_of(part, wanted.columns):
                assert columns.width(line) <= {58: 32, 80: 48}[wanted.width_mm]
                assert line.isprintable()


@pytest.mark.parametrize("wanted", EVERY, ids=str)
def test_everything_that_belongs_on_a_receipt_is_there(wanted: Wanted) -> None:
    text = to_text(content(), wanted)
    for shown in (
        *("海港商店", "三号码头", "HARBOR000000001", "HRB00001", "622300******1234"),
        *("128.50 CNY", "000012", "000345", "000000001234", "A12345", "2026-11-23 10:30:05"),
        *("A000000333010101", "1122334455667788", "ARQC", "0012", "2026-11-24 10:30"),
        COPIES[wanted.copy][wanted.language],
        CVMS[Cvm.SIGNATURE][wanted.language],
        ENTRIES[EntryMode.CHIP][wanted.language],
    ):
        assert shown in text
    assert (LABELS["duplicate"][wanted.language] in text) is wanted.duplicate
    signed = f"{LABELS['signature'][wanted.language]}:"
    assert (signed in text) is (wanted.copy is Copy.MERCHANT)
    other = next(each for each in Language if each is not wanted.language)
    assert LABELS["amount"][other] not in text


def test_only_what_the_shop_keeps_is_signed_and_only_where_it_was_asked_for() -> None:
    for cvm in (Cvm.PIN, Cvm.NONE, None):
        text = to_text(content(cvm=cvm), Wanted(Copy.MERCHANT, Language.ENGLISH))
        assert "Signature" not in text
    assert "Verified by" in text
    assert "PIN" in text, "DE22 051: with a PIN"


def test_other_outcomes_are_said() -> None:
    english = Wanted(language=Language.ENGLISH)
    assert "DECLINED: not enough funds" in to_text(
        content(approved=False, outcome="insufficient_funds", amount=0), english
    )
    assert "DECLINED: A0" in to_text(content(approved=False, outcome="A0", amount=0), english)
    partial = to_text(content(requested=20_000), english)
    assert "PARTLY APPROVED" in partial
    assert "200.00 CNY" in partial
    refund = to_text(content(kind="refund", original_rrn="000000000999"), english)
    assert "-128.50 CNY" in refund
    assert "000000000999" in refund
    assert "Taken offline" in to_text(content(offline=True), english)
    assert "12,850 JPY" in to_text(content(currency="JPY"), english)
    assert "no proof" in to_text(content(proof_url=None, promised_by=None), english)


def test_each_decline_has_words_and_none_betrays_a_report() -> None:
    assert set(REASONS) == set(Outcome) - {Outcome.APPROVED}
    for outcome, by_language in REASONS.items():
        assert set(by_language) == set(Language)
        for language in Language:
            declined = content(approved=False, outcome=outcome.value, amount=0)
            text = to_text(declined, Wanted(language=language))
            assert by_language[language] in " ".join(text.split())
            assert outcome.value not in text
            assert not re.search("lost|stolen|clone|blocked|挂失|被盗", text)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pan_masked": "6223001234561234"}, "masked"),
        ({"pan_masked": "62230012***1234"}, "masked"),
        ({"pan_masked": "622300*****01234"}, "masked"),
        ({"currency": "XXX"}, "currency"),
        ({"local_time": datetime(2026, 11, 23, 10, 30)}, "zone"),
    ],
)
def test_what_must_not_be_printed_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ReceiptRefused, match=why) as refused:
        to_text(content(**changes), Wanted())
    assert "6223" not in str(refused.value)


def test_paper_of_another_width_and_documents_that_are_none_are_refused() -> None:
    with pytest.raises(ReceiptRefused, match="58 or 80"):
        Wanted(width_mm=72)
    with pytest.raises(ReceiptRefused, match="txid"):
        content_of({"kind": "purchase"})
    same = content_of(msgspec.json.decode(render(content(), Wanted(), Form.JSON)))
    assert same == content()


@pytest.mark.parametrize("width", [58, 80])
@pytest.mark.parametrize("language", list(Language))
def test_the_code_in_the_picture_is_the_promise(width: int, language: Language) -> None:
    picture = render(content(), Wanted(Copy.CUSTOMER, language, width), Form.PNG)
    assert read_png(picture) == LINK


@pytest.mark.parametrize("dots", [384, 576])
@pytest.mark.parametrize("length", [30, 280, 331, 504])
def test_codes_to_version_17_fit_the_paper_at_level_m(dots: int, length: int) -> None:
    text = "x" * length
    image = code_image(text, dots)
    matrix = matrix_of(image)
    assert read_matrix(matrix) == text
    assert level_of(matrix) == 0
    assert version_of(matrix) <= 17
    assert image.width == dots
    # Half a millimetre a module, and four modules of white on each side.
    assert image.height // (len(matrix) + 8) >= 4
    with pytest.raises(ValueError, match="505 bytes"):
        code_image("x" * 505, dots)


def raster(data: bytes) -> tuple[int, int, bytes]:
    """The one raster image (GS v 0) of an ESC/POS stream: bytes a line, lines, content."""
    at = data.index(b"\x1dv0")
    wide, high = (int.from_bytes(data[at + n : at + n + 2], "little") for n in (4, 6))
    return wide, high, data[at + 8 : at + 8 + wide * high]


@pytest.mark.parametrize("wanted", EVERY, ids=str)
def test_the_printers_bytes(wanted: Wanted) -> None:
    data = to_escpos(content(), wanted)
    assert data.startswith(b"\x1b@\x1c&"), "initialize, then Chinese mode"
    assert data.endswith(b"\x1c.\x1bd\x06\x1dV\x01"), "Chinese mode off, feed, cut in part"
    wide, high, dots = raster(data)
    assert wide == wanted.dots // 8
    assert len(dots) == wide * high
    from PIL import Image

    image = Image.frombytes("1", (wide * 8, high), bytes(255 - byte for byte in dots))
    assert read_matrix(matrix_of(image)) == LINK
    assert "海港商店".encode("gb18030") in data
    assert LABELS["card"][wanted.language].encode("gb18030") in data


def text_lines(data: bytes) -> list[str]:
    """The lines of an ESC/POS stream without commands and image."""
    at = data.index(b"\x1dv0")
    _, _, dots = raster(data)
    bare = data[:at] + data[at + 8 + len(dots) :]
    bare = re.sub(
        rb"\x1b@|\x1c[&.]|\x1b[!E].|\x1d!.|\x1bd.|\x1dV.|\x1b[Ma].", b"", bare, flags=re.S
    )
    return bare.decode("gb18030").splitlines()


@pytest.mark.parametrize("wanted", EVERY, ids=str)
def test_the_printer_gets_the_lines_of_the_layout_and_no_others(wanted: Wanted) -> None:
    expected = to_text(content(), wanted).splitlines()
    assert [line.rstrip() for line in text_lines(to_escpos(content(), wanted))] == expected


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("width", [58, 80])
def test_the_bytes_stay_as_they_were_looked_at(width: int, language: Language) -> None:
    """A change of a receipt is meant: then `receipts.sha256` is written anew and looked at."""
    data = to_escpos(content(), Wanted(Copy.MERCHANT, language, width, True))
    known = dict(line.split() for line in (HERE / "receipts.sha256").read_text().splitlines())
    assert hashlib.sha256(data).hexdigest() == known[f"{language.value}-{width}"]


def test_characters_that_printers_or_fonts_lack_become_question_marks() -> None:
    strange = content(merchant_name="Żółw 🐢 店")
    data = to_escpos(strange, Wanted())
    assert "店".encode("gb18030") in data
    assert "🐢".encode("gb18030") not in data
    assert [run for chinese, run in runs("a🐢店") if chinese] == ["店"]
    assert "?" in "".join(run for _, run in runs("a🐢店"))
    for form in (Form.PDF, Form.PNG):
        assert render(strange, Wanted(), form)


def test_every_word_has_its_glyphs() -> None:
    tables: list[Any] = [COPIES, CVMS, ENTRIES, KINDS, LABELS]
    words = [word for table in tables for both in table.values() for word in both.values()]
    assert len(words) > 90
    for word in words:
        assert "".join(run for _, run in runs(word)) == word
        word.encode("gb2312")


def test_the_document_is_the_same_each_time_and_embeds_its_fonts() -> None:
    wanted = Wanted(Copy.CUSTOMER, Language.CHINESE, 80)
    first = render(content(), wanted, Form.PDF)
    assert first == render(content(), wanted, Form.PDF)
    assert first.startswith(b"%PDF-1.")
    assert first.count(b"/FontFile2") == 3
    box = re.search(rb"/MediaBox \[ 0 0 ([0-9.]+) ([0-9.]+) \]", first)
    assert box is not None
    assert abs(float(box[1]) - 80 / 25.4 * 72) < 0.01


def test_the_shipped_font_is_the_one_that_its_notice_names() -> None:
    notice = CHINESE.with_name("NOTICE").read_text()
    assert hashlib.sha256(CHINESE.read_bytes()).hexdigest() in notice


def test_texts_break_at_blanks_and_else_where_they_must() -> None:
    assert columns.wrapped("one two three", 7) == ["one two", "three"]
    assert columns.wrapped("港口商店", 5) == ["港口", "商店"]
    assert columns.paired("金额", "1.00", 9) == ["金额 1.00"]
    assert columns.paired("Amount", "1.00 CNY", 10) == ["Amount", "  1.00 CNY"]
    parts = compose(content(), Wanted())
    assert sum(isinstance(part, Code) for part in parts) == 1
    assert any(isinstance(part, Pair) and part.large for part in parts)
