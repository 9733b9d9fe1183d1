"""The page that docs/ holds is the page that a node serves."""

from pathlib import Path

from nodes.api.verify_page import verify_page

FILE = Path(__file__).parents[3] / "docs" / "verify.html"


def test_the_committed_file_is_what_its_parts_make() -> None:
    assert FILE.read_text(encoding="utf-8") == verify_page()[0]


def test_the_page_needs_nothing_beside_itself() -> None:
    page, policy = verify_page()
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy in page
    assert "{{" not in page
    for reference in ("src=", "@import", "url(", '<link rel="stylesheet'):
        assert reference not in page
