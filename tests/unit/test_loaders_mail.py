"""Mail: subject, people and date, body and attachments; and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rag.settings import Settings
from rag.types import Document, FileFailure, Skipped
from tests.loading import document, failure, items, outline, zipped
from tests.sample_files import message


def test_subject_people_date_and_text(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "a.eml", message(html="<p>The same in HTML.</p>").as_bytes(), settings)
    assert (made.title, made.media_type) == ("Broken lamp", "message/rfc822")
    assert made.metadata == {"from": "ann@example.org", "from_name": "Lee, Ann", "date": "2024-03-05",
                             "to": ("bo@example.org", "shop@example.org", "cy@example.org")}
    assert outline(made) == [
        ("", "From: Lee, Ann <ann@example.org>\nTo: bo@example.org, shop@example.org, cy@example.org\nDate: 2024-03-05"),
        ("", "The lamp is broken.\n\nPlease send another.")]


def test_html_is_read_where_there_is_no_plain_text(tmp_path: Path, settings: Settings) -> None:
    mail = message("", html="<h2>Order</h2><p>One <b>lamp</b>.</p><style>p {}</style>")
    made = document(tmp_path / "a.eml", mail.as_bytes(), settings)
    assert outline(made)[1:] == [("Order", "One lamp.")]


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-2", "no-such-charset"])
def test_any_encoding_of_the_body(tmp_path: Path, settings: Settings, encoding: str, charset: str) -> None:
    import base64
    import quopri

    body = "Zażółć gęślą jaźń".encode("utf-8" if charset.startswith("no") else charset)
    coded = {"8bit": body, "base64": base64.encodebytes(body), "quoted-printable": quopri.encodestring(body)}[encoding]
    raw = (f"From: a@b.c\nSubject: =?iso-8859-2?q?Za=BF=F3=B3=E6?=\nContent-Type: text/plain; charset={charset}\n"
           f"Content-Transfer-Encoding: {encoding}\n\n").encode() + coded
    made = document(tmp_path / "a.eml", raw, settings)
    assert made.title == "Zażółć"
    assert made.text.endswith("Zażółć gęślą jaźń")


def test_attachments_are_documents_named_after_the_mail(tmp_path: Path, settings: Settings) -> None:
    mail = message()
    mail.add_attachment(b"a,b\n1,2\n", maintype="text", subtype="csv", filename="prices.csv")
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png", filename="logo.png")
    mail.add_attachment(b"%PDF-1.7 broken", maintype="application", subtype="pdf", filename="../../etc/guide.pdf")
    mail.add_attachment(gzip.compress(b"Squeezed words."), maintype="application", subtype="gzip", filename="notes.txt.gz")
    mail.add_attachment(zipped({"in/deep.txt": "Deep words."}), maintype="application", subtype="zip", filename="all.zip")
    mail.add_attachment("Second.", filename="notes.txt")
    mail.add_attachment("Third.", filename="notes.txt")
    mail.add_attachment(b"Nameless words.", maintype="text", subtype="plain")
    loaded = items(tmp_path / "m.eml", mail.as_bytes(), settings)
    assert [(type(item).__name__, item.source.removeprefix("docs/m.eml")) for item in loaded] == [
        ("Document", ""), ("Document", "#attachment/prices.csv"), ("Skipped", "#attachment/logo.png"),
        ("FileFailure", "#attachment/guide.pdf"), ("Document", "#attachment/notes.txt.gz"),
        ("Document", "#attachment/all.zip#in/deep.txt"), ("Document", "#attachment/notes.txt"),
        ("Document", "#attachment/notes-7.txt"), ("Document", "#attachment/8.txt")]
    table = loaded[1]
    assert isinstance(table, Document)
    assert (table.title, table.text, table.uri) == ("Prices", "a: 1; b: 2", f"{tmp_path / 'm.eml'}#attachment/prices.csv")
    assert len({item.id for item in loaded if isinstance(item, Document)}) == 7


def test_an_attached_mail_is_a_document_of_its_own(tmp_path: Path, settings: Settings) -> None:
    outer = message(subject="Fwd")
    outer.add_attachment(message("Inner words.", subject="Inside"))
    first, second = items(tmp_path / "m.eml", outer.as_bytes(), settings)
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert "Inner words." not in first.text
    assert (second.source, second.title) == ("docs/m.eml#attachment/1.eml", "Inside")


def test_mails_nested_a_hundred_deep_end_with_a_reason(tmp_path: Path, settings: Settings) -> None:
    mail = message("Innermost words.")
    for _ in range(100):
        outer = message("Outer words.")
        outer.add_attachment(mail)
        mail = outer
    loaded = items(tmp_path / "m.eml", mail.as_bytes(), settings)
    assert [type(item).__name__ for item in loaded] == ["Document"] * 4 + ["FileFailure"]
    assert isinstance(loaded[-1], FileFailure)
    assert loaded[-1].code == "file_nested"


@pytest.mark.parametrize("depth", [30, 3000])
def test_parts_nested_too_deeply_are_told(tmp_path: Path, settings: Settings, depth: int) -> None:
    parts = "".join(f'Content-Type: multipart/mixed; boundary="b{n}"\n\n--b{n}\n' for n in range(depth))
    assert "nested" in failure(tmp_path / "m.eml", f"From: a@b.c\n{parts}\nwords\n", settings).message


@pytest.mark.parametrize("raw", ["only words", "no: header\n\nof mail", "\n\n\n"])
def test_what_is_no_mail_is_told(tmp_path: Path, settings: Settings, raw: str) -> None:
    assert failure(tmp_path / "m.eml", raw, settings).code in {"file_corrupt", "file_empty"}


@pytest.mark.parametrize("headers", [
    "Date: yesterday", "Date: Tue, 99 Foo 2024", "From: @@<<>>,,", "To: ;:;", "Content-Type: ;;;",
    "Content-Type: text/plain; charset=\"", "Content-Transfer-Encoding: nonsense",
    "Content-Disposition: attachment; filename*=x'y'%ff", "From: =?utf-8?b?////?=",
    "Content-Type: multipart/mixed", "Content-Type: message/rfc822"])
def test_bad_headers_do_not_cost_the_mail(tmp_path: Path, settings: Settings, headers: str) -> None:
    loaded = items(tmp_path / "m.eml", f"Subject: Lamps\nFrom: a@b.c\n{headers}\n\nThe words.\n", settings)
    made = loaded[0]
    assert isinstance(made, Document), made
    assert made.title == "Lamps"
    str(made).encode()


def test_pictures_do_not_make_a_failure_of_a_mail(tmp_path: Path, settings: Settings) -> None:
    mail = message()
    mail.add_attachment(b"\x89PNG", maintype="image", subtype="png")
    [_, picture] = items(tmp_path / "m.eml", mail.as_bytes(), settings)
    assert isinstance(picture, Skipped)
    assert picture.code == "file_skipped"
