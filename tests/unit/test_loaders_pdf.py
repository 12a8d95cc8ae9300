"""PDF: pages, headings from type sizes, mended words, dropped running titles, and every refusal."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from indexers.loaders import Found, load
from indexers.loaders.pdf_lines import Line, heading_levels, paragraphs, printed_title, without_furniture
from rag.settings import Settings
from rag.types import Document, FileFailure

Drawn = Sequence[tuple[float, float, str]]     # height on the page, type size, words

PROSE = ["The Baltic Sea is a sea of the Atlantic Ocean and it is", "enclosed by nine countries in the north of Europe and is",
         "known for its brackish water."]


def pdf(*pages: Drawn, title: str = "", encrypt: object = None) -> bytes:
    data = io.BytesIO()
    canvas = Canvas(data, encrypt=encrypt, invariant=1)
    if title:
        canvas.setTitle(title)
    for page in pages:
        for height, size, words in page:
            canvas.setFont("Helvetica", size)
            canvas.drawString(50, height, words)
        canvas.showPage()
    canvas.save()
    return data.getvalue()


def prose(top: float, lines: Sequence[str] = PROSE) -> list[tuple[float, float, str]]:
    return [(top - 14 * at, 11, line) for at, line in enumerate(lines)]


def load_pdf(folder: Path, data: bytes, settings: Settings) -> Document | FileFailure:
    path = folder / "report_1.pdf"
    path.write_bytes(data)
    [item] = load(Found(path, "report_1.pdf", len(data)), settings=settings)
    return item


def document(folder: Path, data: bytes, settings: Settings) -> Document:
    item = load_pdf(folder, data, settings)
    assert isinstance(item, Document), item
    return item


def outline(made: Document) -> list[tuple[int | None, str, str]]:
    return [(block.page, block.heading, made.text[slice(*block.span)]) for block in made.blocks]


def test_pages_headings_and_lines_that_read_on(tmp_path: Path, settings: Settings) -> None:
    data = pdf([(780, 20, "Sea report"), (740, 16, "Geology"), *prose(710), *prose(650)], [(780, 16, "Trade"), *prose(750)])
    made = document(tmp_path, data, settings)
    flow = " ".join(PROSE)
    assert made.title == "Sea report"
    assert outline(made) == [(1, "Geology", f"{flow}\n\n{flow}"), (2, "Trade", flow)]
    assert made.metadata["pages"] == 2


def test_a_heading_goes_on_over_the_page(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path, pdf([(780, 16, "Geology"), *prose(750)], prose(780), title="Seas"), settings)
    assert [(page, heading) for page, heading, _ in outline(made)] == [(1, "Geology"), (2, "Geology")]


def test_the_title_of_the_metadata_counts_if_it_is_one(tmp_path: Path, settings: Settings) -> None:
    body = [(780.0, 20.0, "Printed title"), *prose(740)]
    assert document(tmp_path, pdf(body, title="Named title"), settings).title == "Named title"
    assert document(tmp_path, pdf(body, title="Microsoft Word - draft.docx"), settings).title == "Printed title"
    assert document(tmp_path, pdf(body, title="untitled"), settings).title == "Printed title"
    assert document(tmp_path, pdf(prose(740)), settings).title == "Report 1"


def test_words_broken_at_the_line_end_are_mended(tmp_path: Path, settings: Settings) -> None:
    lines = ["This is a won-", "derful example of a well-", "known word; the well has known words, and the Rhine-",
             "Meuse delta too."]
    made = document(tmp_path, pdf(prose(780, lines)), settings)
    assert made.text == "This is a wonderful example of a well-known word; the well has known words, and the Rhine-Meuse delta too."


def test_running_titles_and_page_numbers_are_dropped(tmp_path: Path, settings: Settings) -> None:
    pages = [[(810.0, 9.0, f"ACME manual, chapter {n}"), *prose(770), (30.0, 9.0, f"Page {n} of 4")] for n in range(1, 5)]
    made = document(tmp_path, pdf(*pages), settings)
    assert "ACME" not in made.text
    assert "Page" not in made.text
    assert made.text.count("brackish") == 4


def test_short_lines_stay_apart(tmp_path: Path, settings: Settings) -> None:
    lines = ["Opening hours of the harbour office in the summer season:", "Monday 9 to 5", "Tuesday 9 to 6"]
    assert document(tmp_path, pdf(prose(780, lines)), settings).text == "\n".join(lines)


def test_a_scan_is_refused_with_the_reason(tmp_path: Path, settings: Settings) -> None:
    failure = load_pdf(tmp_path, pdf([], []), settings)
    assert isinstance(failure, FileFailure)
    assert failure.code == "file_no_text"
    assert "character recognition" in failure.hint


def test_pages_without_text_are_counted(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path, pdf(prose(700), []), settings)
    assert made.metadata == {"pages": 2, "pages_without_text": 1, "created": "2000-01-01"}


def test_a_password_is_told_and_an_owner_password_does_not_matter(tmp_path: Path, settings: Settings) -> None:
    failure = load_pdf(tmp_path, pdf(prose(700), encrypt="secret"), settings)
    assert isinstance(failure, FileFailure)
    assert failure.code == "file_encrypted"
    open_to_read = pdf(prose(700), encrypt=StandardEncryption("", ownerPassword="owner"))
    assert "brackish" in document(tmp_path, open_to_read, settings).text


@pytest.mark.parametrize("data", [b"%PDF-1.7\nnothing of the kind", pdf(prose(700))[:400]])
def test_a_damaged_file_is_told(tmp_path: Path, settings: Settings, data: bytes) -> None:
    failure = load_pdf(tmp_path, data, settings)
    assert isinstance(failure, FileFailure)
    assert failure.code == "file_corrupt"


def test_too_many_pages_are_refused_with_the_setting(tmp_path: Path, settings: Settings) -> None:
    failure = load_pdf(tmp_path, pdf(prose(700), prose(700), prose(700)), replace(settings, max_pages=2))
    assert isinstance(failure, FileFailure)
    assert failure.code == "file_too_large"
    assert "3 pages" in failure.message
    assert "max_pages" in failure.hint


def test_bytes_before_the_header_are_allowed(tmp_path: Path, settings: Settings) -> None:
    assert "brackish" in document(tmp_path, b"junk\n" + pdf(prose(700)), settings).text


# Geometry alone

def line(text: str, y: float, *, size: float = 10, left: float = 50, right: float = 400) -> Line:
    return Line(text, left=left, right=right, first=y, last=y, size=size)


def test_sizes_of_page_one_alone_are_the_title_page_not_headings() -> None:
    pages = [[line("Sea report", 700, size=24), line("by Ann", 650, size=14), line("words " * 9, 600)],
             [line("Geology", 700, size=16), line("words " * 9, 600), line("words " * 9, 500)], [line("words " * 9, 600)] * 9]
    assert heading_levels(pages) == {16: 1}
    assert printed_title(pages) == "Sea report"


def test_time_grows_with_the_lines_not_their_square() -> None:
    pages = [[line(f"words {n} of page {page}", 700 - 12 * n, size=16 if n == 0 else 10) for n in range(50)] for page in range(800)]
    started = time.perf_counter()
    assert heading_levels(without_furniture(pages)) == {16: 1}
    assert time.perf_counter() - started < 8          # the square would take minutes


def test_slides_have_no_headings() -> None:
    assert heading_levels([[line("Big", 700, size=30), line("small words", 600), line("Big too", 500, size=30)]]) == {}


def test_the_next_column_goes_on_with_the_sentence() -> None:
    column = [line("The sea is", 700), line("enclosed by", 688), line("nine countries.", 700, left=300),
              line("It is deep.", 688, left=300)]
    assert [len(paragraph) for paragraph in paragraphs(column, headings={})] == [4]
    column[1] = line("enclosed.", 688)
    column[2] = line("Nine countries.", 700, left=300)
    assert [len(paragraph) for paragraph in paragraphs(column, headings={})] == [2, 2]


def test_a_header_row_at_the_top_of_each_page_is_not_furniture() -> None:
    pages = [[line("Country Tonnes", 700), line(f"China {n}", 688), line("Peru 7", 676), line("Brazil 8", 664)] for n in range(4)]
    assert without_furniture(pages) == pages


def test_numbers_at_the_edge_of_a_table_are_not_furniture() -> None:
    pages = [[line("Year Sum", 700), line(f"{n} 10 20", 600)] for n in range(5)]
    kept = without_furniture([[*page, line("words here", 650)] for page in pages])
    assert [[item.text for item in page if "10" in item.text] for page in kept] == [[f"{n} 10 20"] for n in range(5)]
