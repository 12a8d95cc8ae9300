"""What each format's loader makes of a file: text, blocks, headings, title; and what it refuses."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from indexers.loaders import Found, formats, load
from rag.settings import Settings
from rag.types import Document, FileFailure

Loader = Callable[[str, bytes | str], Document]
Refused = Callable[[str, bytes | str], FileFailure]


@pytest.fixture
def read(tmp_path: Path, settings: Settings) -> Loader:
    def read_one(name: str, content: bytes | str) -> Document:
        [item] = _load(tmp_path / name, content, settings)
        assert isinstance(item, Document), item
        return item
    return read_one


@pytest.fixture
def refused(tmp_path: Path, settings: Settings) -> Refused:
    def read_one(name: str, content: bytes | str) -> FileFailure:
        [item] = _load(tmp_path / name, content, settings)
        assert isinstance(item, FileFailure), item
        return item
    return read_one


def _load(path: Path, content: bytes | str, settings: Settings) -> list[Document | FileFailure]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(load(Found(path, f"docs/{path.name}", path.stat().st_size), settings=settings))


def outline(document: Document) -> list[tuple[str, str]]:
    return [(block.heading, document.text[slice(*block.span)]) for block in document.blocks]


def units(document: Document, block: int) -> list[str]:
    return [document.text[slice(*unit)] for unit in document.blocks[block].units]


# Text

def test_text_is_kept_as_it_stands(read: Loader, tmp_path: Path) -> None:
    document = read("price_list-2024.txt", b"\xef\xbb\xbf Two  years.\r\n\r\nNo more.\n")
    assert document.text == " Two  years.\r\n\r\nNo more.\n"
    assert outline(document) == [("", "Two  years.\r\n\r\nNo more.")]
    assert (document.title, document.source, document.uri) == ("Price list 2024", "docs/price_list-2024.txt",
                                                               str(tmp_path / "price_list-2024.txt"))


def test_an_id_is_the_place_and_the_hash_is_the_content(read: Loader) -> None:
    first, second, other = read("a.txt", "One."), read("a.txt", "Two."), read("b.txt", "One.")
    assert first.id == second.id != other.id
    assert len(first.id) == 16
    assert first.content_hash == other.content_hash != second.content_hash


def test_a_name_without_extension_is_text(read: Loader) -> None:
    assert read("LICENSE", "Terms.").title == "LICENSE"


# Markdown

MARKDOWN = """---
title: "Lamp handbook"
author: Ann
tags: [a, b]
---
Before any heading.

# Lamp handbook

Some *text*.

## Warranty

Two years.

### Exceptions

| Item | Months |
|------|-------:|
| Lamp | 6      |
| Cord | 12     |

```python
x = 1

def f(): pass
```

Setext
------

Body.

## Contact
## Last
"""


def test_markdown_headings_tables_and_code(read: Loader) -> None:
    document = read("guide.md", MARKDOWN)
    assert document.text == MARKDOWN
    assert (document.title, document.metadata) == ("Lamp handbook", {"author": "Ann", "tags": ("a", "b")})
    assert outline(document) == [
        ("", "Before any heading."),
        ("", "Some *text*."),
        ("Warranty", "Two years."),
        ("Warranty > Exceptions > Item | Months", "| Lamp | 6      |\n| Cord | 12     |"),
        ("Warranty > Exceptions", "```python\nx = 1\n\ndef f(): pass\n```"),
        ("Setext", "Body."),
        ("", "## Contact"),
        ("", "## Last"),
    ]
    assert units(document, 3) == ["| Lamp | 6      |", "| Cord | 12     |"]
    assert units(document, 4) == ["```python\nx = 1", "def f(): pass\n```"]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_markdown_spans_are_exact_with_any_line_ends(read: Loader, newline: str) -> None:
    assert outline(read("a.md", newline.join(["# T", "", "## A", "one", "## B", "two"]))) == [("A", "one"), ("B", "two")]


def test_a_title_that_says_more_than_the_heading_is_not_repeated(read: Loader) -> None:
    document = read("a.html", "<title>Command line - The Handbook</title><main><h1>Command line</h1><p>Use it.</p></main>")
    assert outline(document) == [("", "Use it.")]


def test_a_heading_that_only_begins_like_the_title_stays(read: Loader) -> None:
    assert outline(read("a.md", "---\ntitle: Warranty\n---\n# War\n\nText.")) == [("War", "Text.")]


def test_markup_in_a_heading_is_not_carried(read: Loader) -> None:
    assert outline(read("a.md", "# T\n\n## The **big** [link](http://x)\n\nText.")) == [("The big link", "Text.")]


def test_a_rule_in_the_text_is_no_front_matter(read: Loader) -> None:
    assert "title: not this" in read("a.md", "Words first.\n\n---\ntitle: not this\n---\n").text
    assert read("a.md", "Words first.\n\n---\ntitle: not this\n---\n").title == "A"


def test_lists_of_the_front_matter_are_tuples_and_what_is_nested_is_left_out(read: Loader) -> None:
    front = ("---\ntags:\n  - lamps\n  - 'two words'\nteam: [ann, \"bo\"]\nnone: []\nempty:\nmap: {a: 1}\ndeep:\n  - a: 1\n"
             "year: 2024\n---\n")
    assert read("a.md", front + "Text.").metadata == {"tags": ("lamps", "two words"), "team": ("ann", "bo"), "year": "2024"}


def test_an_unfinished_fence_ends_with_the_file(read: Loader) -> None:
    assert units(read("a.md", "Run:\n\n```\none\ntwo"), 1) == ["```\none", "two"]


# HTML

HTML = """<html><head><title>Widget guide</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><header>ACME</header>
<main><h1>Widget guide</h1><p>Widgets are <b>small</b>.<br>They last.</p>
<h2>Warranty ¶</h2><ul><li>Water damage</li><li>Fire<ul><li>also smoke</li></ul></li></ul>
<table><caption>Prices today</caption><tr><th>Model</th><th>Price</th></tr>
<tr><td>A1</td><td>10</td></tr><tr><td>B2</td><td></td></tr></table>
<table><tr><th>Height</th><td>10 cm</td></tr><tr><th>Width</th><td>20 cm</td></tr></table>
<table><tr><td><h2>Layout</h2><p>In a table.</p></td></tr></table>
<pre>x = 1
  y = 2</pre><p hidden>ignore me</p><p style="display: none">and me</p></main>
<footer>All rights reserved.</footer><script>alert("no")</script></body></html>"""


def test_html_keeps_the_content_and_its_shape(read: Loader) -> None:
    document = read("a.html", HTML)
    assert document.title == "Widget guide"
    assert outline(document) == [
        ("", "Widgets are small.\nThey last."),
        ("Warranty", "- Water damage\n- Fire\n- also smoke\n\nPrices today"),
        ("Warranty", "Model: A1; Price: 10\nModel: B2"),
        ("Warranty", "Height: 10 cm\nWidth: 20 cm"),
        ("Layout", "In a table."),
        ("Layout", "x = 1\n  y = 2"),
    ]
    assert units(document, 2) == ["Model: A1; Price: 10", "Model: B2"]
    for noise in ("Home", "ACME", "rights", "alert", "red", "ignore me", "and me"):
        assert noise not in document.text


def test_a_page_without_marks_loses_its_navigation_not_its_words(read: Loader) -> None:
    sentences = "".join(f"<p>Sentence number {n} of the article tells something about lamps in the house.</p>" for n in range(20))
    menu = "".join(f'<li><a href="/{n}">Menu entry {n}</a></li>' for n in range(30))
    document = read("a.html", f"<html><body><div><ul>{menu}</ul></div><div><h1>Lamps</h1>{sentences}</div></body></html>")
    assert document.text.count("Sentence number") == 20
    assert "Menu entry" not in document.text


def test_listings_that_trafilatura_drops_are_kept(read: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    from indexers.loaders import html
    from indexers.loaders.outline import Page

    poor = Page()
    poor.paragraph("Only this.")
    monkeypatch.setattr(html, "_extracted", lambda text: poor)
    assert "Every option" in read("a.html", "<body><p>Only this.</p><pre>--all  Every option that there is.</pre></body>").text


def test_only_navigation_is_better_than_nothing(read: Loader) -> None:
    assert read("a.html", "<body><nav><p>Opening hours: 9 to 5.</p></nav></body>").text == "Opening hours: 9 to 5."


def test_html_in_its_declared_encoding(read: Loader) -> None:
    page = '<html><head><meta charset="iso-8859-2"></head><body><main><p>Zażółć gęślą jaźń</p></main></body></html>'
    assert read("a.html", page.encode("iso8859-2")).text == "Zażółć gęślą jaźń"


def test_html_states_its_author_date_and_language(read: Loader) -> None:
    page = ('<html lang="pl"><head><meta name="author" content=" Ann  Lee"><meta property="article:published_time" '
            'content="2024-03-05T10:00:00Z"></head><body><main><p>Zażółć gęślą jaźń</p></main></body></html>')
    document = read("a.html", page)
    assert document.metadata == {"author": "Ann Lee", "date": "2024-03-05"}
    assert document.language == "pl"


def test_xhtml_with_a_prologue_is_read(read: Loader) -> None:
    page = '<?xml version="1.0" encoding="utf-8"?><html><body><main><p>Words.</p></main></body></html>'
    assert read("a.xhtml", page).text == "Words."


def test_external_entities_of_html_are_not_read(read: Loader) -> None:
    page = '<!DOCTYPE html [<!ENTITY e SYSTEM "file:///etc/passwd">]><body><main><p>Safe &e; words</p></main></body>'
    assert "root:" not in read("a.html", page).text


def test_deep_html_keeps_its_words_or_says_why_not(read: Loader, refused: Refused) -> None:
    assert read("a.html", "<div>" * 1000 + "<p>deep words</p>").text == "deep words"
    assert "nested too deeply" in refused("a.html", "<div>" * 50_000 + "<p>deep words</p>").message


# DOCX

def docx_bytes(build: Callable[[object], None], title: str = "") -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.title = title
    build(document)
    data = io.BytesIO()
    document.save(data)
    return data.getvalue()


def rewritten(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The package with its main part changed."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, "w") as out:
        for name in source.namelist():
            out.writestr(name, change(source.read(name)) if name == "word/document.xml" else source.read(name))
    return target.getvalue()


def report(document: object) -> None:
    document.add_heading("Report", 0)  # type: ignore[attr-defined]
    document.add_paragraph("Intro text.")  # type: ignore[attr-defined]
    document.add_heading("Part one", 1)  # type: ignore[attr-defined]
    document.add_paragraph("item a", style="List Bullet")  # type: ignore[attr-defined]
    document.add_paragraph("item b", style="List Bullet")  # type: ignore[attr-defined]
    table = document.add_table(rows=3, cols=2)  # type: ignore[attr-defined]
    for row, cells in enumerate([("City", "People"), ("Rotterdam", "630,383"), ("Oxford", "")]):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text


def test_docx_headings_lists_and_tables(read: Loader) -> None:
    document = read("a.docx", docx_bytes(report))
    assert document.title == "Report"
    assert outline(document) == [("", "Intro text."), ("Part one", "- item a\n- item b"),
                                 ("Part one", "City: Rotterdam; People: 630,383\nCity: Oxford")]
    assert units(document, 2) == ["City: Rotterdam; People: 630,383", "City: Oxford"]


def test_docx_title_is_the_property_if_there_is_one(read: Loader) -> None:
    document = read("a.docx", docx_bytes(report, title="Annual report"))
    assert document.title == "Annual report"
    assert document.blocks[0].heading == "Report"
    assert document.metadata["created"] == "2013-12-23"     # of the library's template


def test_docx_insertions_are_read_and_deletions_are_not(read: Loader) -> None:
    data = rewritten(docx_bytes(lambda document: document.add_paragraph("MARK")),  # type: ignore[attr-defined]
                     lambda xml: xml.replace(b"<w:r><w:t>MARK</w:t></w:r>",
                                             b"<w:r><w:t>It costs </w:t></w:r><w:del><w:r><w:delText>ten</w:delText></w:r></w:del>"
                                             b"<w:ins><w:r><w:t>twenty</w:t></w:r></w:ins>"))
    assert read("a.docx", data).text == "It costs twenty"


def test_docx_content_controls_are_read(read: Loader) -> None:
    control = b"<w:sdt><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>"
    data = rewritten(docx_bytes(lambda document: document.add_paragraph("MARK")),  # type: ignore[attr-defined]
                     lambda xml: xml.replace(b"<w:p><w:r><w:t>MARK</w:t></w:r></w:p>", control))
    assert read("a.docx", data).text == "In a control."


def test_docx_with_entities_of_its_own_is_refused(refused: Refused) -> None:
    entity = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><w:document'
    data = rewritten(docx_bytes(lambda document: document.add_paragraph("Safe words")),  # type: ignore[attr-defined]
                     lambda xml: xml.replace(b"<w:document", entity, 1).replace(b"Safe", b"Safe &e;"))
    failure = refused("a.docx", data)
    assert failure.code == "file_corrupt"
    assert "document type" in failure.message


def test_a_docx_bomb_is_refused_unopened(tmp_path: Path, settings: Settings) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b" " * 3_000_000)
    [failure] = _load(tmp_path / "a.docx", data.getvalue(), replace(settings, max_file_mb=2))
    assert isinstance(failure, FileFailure)
    assert failure.code == "file_too_large"
    assert "Unpacked, it has 3 MB" in failure.message
    assert "max_file_mb" in failure.hint


# Tables

def test_csv_rows_name_their_columns(read: Loader) -> None:
    table = 'Prices of 2024\n\nName,Symbol,"Melts, at"\nTin,Sn,231.9\n"Lead, soft",Pb,\n\nGold,Au,1064,extra\n'
    document = read("metals.csv", table)
    assert outline(document) == [("", "Prices of 2024"),
                                 ("", "Name: Tin; Symbol: Sn; Melts, at: 231.9\nName: Lead, soft; Symbol: Pb\n"
                                      "Name: Gold; Symbol: Au; Melts, at: 1064; extra")]
    assert len(document.blocks[1].units) == 3
    assert (document.title, document.metadata, document.language) == ("Metals", {"rows": 3}, "en")


@pytest.mark.parametrize(("name", "content"), [
    ("a.csv", "x;y\n1,5;b\n2,5;c\n"), ("a.tsv", "x\ty\n1,5\tb\n2,5\tc\n"), ("a.csv", "x|y\n1,5|b\n2,5|c\n"),
    ("a.csv", b"\xff\xfe" + "x;y\n1,5;b\n2,5;c\n".encode("utf-16-le")), ("a.csv", '"x";"y"\r\n"1,5";"b"\r\n"2,5";"c"\r\n')])
def test_the_delimiter_is_found(read: Loader, name: str, content: bytes | str) -> None:
    assert read(name, content).text == "x: 1,5; y: b\nx: 2,5; y: c"


def test_numbers_in_the_first_row_are_no_header(read: Loader) -> None:
    assert read("iris.csv", "5.1,3.5,setosa\n4.9,3.0,virginica\n").text == "5.1 | 3.5 | setosa\n4.9 | 3.0 | virginica"


def test_a_line_break_in_a_cell_does_not_end_the_row(read: Loader) -> None:
    assert read("a.csv", 'a,b\n"one\ntwo",3\n').text == "a: one two; b: 3"


def test_sloppy_quotes_are_forgiven(read: Loader) -> None:
    assert read("a.csv", 'a,b\n"big" one,2\n').text == "a: big one; b: 2"


def test_a_quotation_mark_without_end_is_told_with_its_line(refused: Refused) -> None:
    failure = refused("a.csv", 'a,b\n1,2\n3,"never closed\n' + "4,5\n" * 50)
    assert failure.code == "file_corrupt"
    assert "begins at line 3" in failure.message


# What is refused

@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.csv", "a.html", "a.jsonl", "a.pdf", "a.docx"])
@pytest.mark.parametrize("content", [b"", b" \n\t\r\n"])
def test_empty_files_are_told(refused: Refused, name: str, content: bytes) -> None:
    expected = {"file_empty", "file_unsupported"} if content and name in {"a.pdf", "a.docx"} else {"file_empty"}
    assert refused(name, content).code in expected


@pytest.mark.parametrize(("name", "content", "names"), [
    ("a.txt", b"%PDF-1.7\n...", ("plain text", "a PDF document")),
    ("a.md", b"\x89PNG\r\n\x1a\n\0\0", ("Markdown", "a PNG image")),
    ("a.md", bytes(range(256)), ("Markdown", "binary data")),
    ("a.pdf", b"only words", ("a PDF document", "text")),
    ("a.docx", b"PK\x05\x06" + b"\0" * 18, ("a DOCX document", "a zip archive")),
    ("a.jsonl", b"\x7fELF\0\0\0", ("JSON Lines", "a program")),
    ("a.txt.gz", b"only words", ("gzip data", "text")),
])
def test_a_wrong_name_is_told_with_what_it_holds(refused: Refused, name: str, content: bytes, names: tuple[str, str]) -> None:
    failure = refused(name, content)
    assert failure.code == "file_unsupported"
    assert failure.source == f"docs/{name}"
    assert all(part in failure.message for part in names)
    assert failure.hint


def test_a_zip_named_docx_is_told(refused: Refused) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.txt", "x")
    assert "a zip archive" in refused("a.docx", data.getvalue()).message


def test_a_cut_docx_is_damaged(refused: Refused) -> None:
    assert refused("a.docx", docx_bytes(report)[:5000]).code == "file_corrupt"


def test_a_protected_docx_is_told(refused: Refused) -> None:
    failure = refused("a.docx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"))
    assert failure.code == "file_encrypted"


@pytest.mark.parametrize("name", ["a.xyz", "a.doc", "a.tar"])
def test_an_unknown_extension_is_told_with_what_is_known(refused: Refused, name: str) -> None:
    failure = refused(name, "words")
    assert failure.code == "file_unsupported"
    assert ".jsonl" in failure.hint


def test_a_parser_that_breaks_costs_one_file(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, *, name: str, settings: Settings) -> None:
        raise LookupError("secret words of the document")

    monkeypatch.setattr(formats, "_parser", lambda format_: broken)
    failure = refused("a.md", "secret words of the document")
    assert failure.code == "file_corrupt"
    assert "LookupError" in failure.message
    assert "secret" not in failure.message


def test_an_interrupt_goes_through(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(data: bytes, *, name: str, settings: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "_parser", lambda format_: interrupted)
    with pytest.raises(KeyboardInterrupt):
        _load(tmp_path / "a.md", "words", settings)


def test_a_hundred_megabytes_in_one_line_are_read(tmp_path: Path, settings: Settings) -> None:
    [document] = _load(tmp_path / "a.txt", b"x" * 100_000_000, settings)
    assert isinstance(document, Document)
    assert len(document.text) == 100_000_000
