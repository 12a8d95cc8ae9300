"""Ruled tables in PDFs: cells by printed rules, headers carried over pages, and what is left as text."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer, Table

from indexers.loaders import pdf_tables
from indexers.loaders.pdf_tables import Grid, Rule, Word, cells, grids
from rag.settings import Settings
from rag.types import Document
from tests.loading import document

STYLES = getSampleStyleSheet()
GRID = [("GRID", (0, 0), (-1, -1), 0.5, "black")]
ROWS = [["City", "People", "Note"], ["Oslo", "700,000", "by the sea"], ["Bergen", "290,000", ""], ["Hamar", "", "small"]]
WORDS = "The harbour exported a lot of grain this year and the next one as well. " * 3


def printed(*flow: object) -> bytes:
    data = io.BytesIO()
    SimpleDocTemplate(data, title="Report").build(list(flow))
    return data.getvalue()


def prose() -> Paragraph:
    return Paragraph(WORDS, STYLES["Normal"])


def blocks(made: Document) -> list[tuple[int | None, str, int]]:
    return [(block.page, made.text[slice(*block.span)], len(block.units)) for block in made.blocks]


def test_each_row_names_its_columns_and_text_around_stays(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "a.pdf", printed(prose(), Spacer(1, 20), Table(ROWS, style=GRID), Spacer(1, 20), prose()), settings)
    assert blocks(made) == [
        (1, WORDS.strip(), 0),
        (1, "City: Oslo; People: 700,000; Note: by the sea\nCity: Bergen; People: 290,000\nCity: Hamar; Note: small", 3),
        (1, WORDS.strip(), 0)]


def test_a_cell_of_several_lines_is_one_cell(tmp_path: Path, settings: Settings) -> None:
    long = Paragraph("a city by the sea with a long history of trade", STYLES["Normal"])
    table = Table([["City", "Note"], ["Oslo", long], ["Hamar", "small"]], style=GRID, colWidths=[60, 120])
    made = document(tmp_path / "a.pdf", printed(table), settings)
    assert made.text == "City: Oslo; Note: a city by the sea with a long history of trade\nCity: Hamar; Note: small"


@pytest.mark.parametrize("repeated", [0, 1])
def test_the_header_is_carried_over_the_pages(tmp_path: Path, settings: Settings, repeated: int) -> None:
    rows = [["City", "Number"], *([f"Town {n}", f"{n}"] for n in range(90))]
    made = document(tmp_path / "a.pdf", printed(Table(rows, style=GRID, repeatRows=repeated)), settings)
    lines = made.text.replace("\n\n", "\n").split("\n")
    assert lines == [f"City: Town {n}; Number: {n}" for n in range(90)]
    assert {block.page for block in made.blocks} == {1, 2, 3}


def test_two_tables_on_a_page(tmp_path: Path, settings: Settings) -> None:
    second = [["Ship", "Port"], ["Anna", "Oslo"], ["Bess", "Bergen"]]
    made = document(tmp_path / "a.pdf", printed(Table(ROWS, style=GRID), Spacer(1, 30), Table(second, style=GRID)), settings)
    assert [units for _, _, units in blocks(made)] == [3, 2]
    assert made.text.endswith("Ship: Anna; Port: Oslo\nShip: Bess; Port: Bergen")


def drawn(rules: Callable[[Canvas], None], *, columns: Sequence[float] = (60, 160)) -> bytes:
    """Three rows of two words each at the columns, and what `rules` draws."""
    data = io.BytesIO()
    canvas = Canvas(data, invariant=1)
    rules(canvas)
    for row, words in enumerate([("Name", "Symbol"), ("Tin", "Sn"), ("Lead", "Pb")]):
        for x, word in zip(columns, words, strict=True):
            canvas.drawString(x, 705 - 20 * row, word)
    canvas.save()
    return data.getvalue()


def edges_of_cells(canvas: Canvas) -> None:
    """As word processors do: each cell draws its own edges, as thin filled rectangles."""
    for row in range(3):
        for left, right in ((50, 150), (150, 250)):
            top, bottom = 720 - 20 * row, 700 - 20 * row
            width = right - left
            for box in ((left, top, width, 0.5), (left, bottom, width, 0.5), (left, bottom, 0.5, 20), (right, bottom, 0.5, 20)):
                canvas.rect(*box, stroke=0, fill=1)


def boxes(canvas: Canvas) -> None:
    for row in range(3):
        for left in (50, 150):
            canvas.rect(left, 700 - 20 * row, 100, 20)


def one_path(canvas: Canvas) -> None:
    path = canvas.beginPath()
    for y in (720, 700, 680, 660):
        path.moveTo(50, y)
        path.lineTo(250, y)
    for x in (50, 150, 250):
        path.moveTo(x, 720)
        path.lineTo(x, 660)
    canvas.drawPath(path)


def scaled(canvas: Canvas) -> None:
    canvas.saveState()
    canvas.transform(2, 0, 0, 2, 50, 660)
    path = canvas.beginPath()
    for y in (0, 10, 20, 30):
        path.moveTo(0, y)
        path.lineTo(100, y)
    for x in (0, 50, 100):
        path.moveTo(x, 0)
        path.lineTo(x, 30)
    canvas.drawPath(path)
    canvas.restoreState()


@pytest.mark.parametrize("rules", [edges_of_cells, boxes, one_path, scaled])
def test_rules_as_programs_draw_them(tmp_path: Path, settings: Settings, rules: Callable[[Canvas], None]) -> None:
    assert document(tmp_path / "a.pdf", drawn(rules), settings).text == "Name: Tin; Symbol: Sn\nName: Lead; Symbol: Pb"


def test_words_that_touch_over_a_rule_are_cut_there(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "a.pdf", drawn(one_path, columns=(116, 150.5)), settings)
    assert "Name: Tin; Symbol: Sn" in made.text


@pytest.mark.parametrize("style", [
    [("LINEABOVE", (0, 0), (-1, 0), 1, "black"), ("LINEBELOW", (0, 0), (-1, 0), 1, "black"),
     ("LINEBELOW", (0, -1), (-1, -1), 1, "black")],
    [("BOX", (0, 0), (-1, -1), 1, "black")], []])
def test_a_table_without_a_grid_stays_text(tmp_path: Path, settings: Settings, style: list[object]) -> None:
    made = document(tmp_path / "a.pdf", printed(Table(ROWS, style=style), prose()), settings)
    assert all(not block.units for block in made.blocks)
    assert "Oslo 700,000 by the sea" in made.text


def test_rules_around_prose_lay_out_a_page(tmp_path: Path, settings: Settings) -> None:
    layout = Table([[prose(), prose()], [prose(), prose()]], style=GRID, colWidths=[200, 200])
    made = document(tmp_path / "a.pdf", printed(layout), settings)
    assert all(not block.units for block in made.blocks)


def test_a_drawing_is_no_table_and_takes_no_long_time(tmp_path: Path, settings: Settings) -> None:
    def hatched(canvas: Canvas) -> None:
        for n in range(3000):
            canvas.line(50, 100 + n / 5, 550, 100 + n / 5)
            canvas.line(50 + n / 6, 100, 50 + n / 6, 700)

    assert all(not block.units for block in document(tmp_path / "a.pdf", drawn(hatched), settings).blocks)


# Geometry alone

def test_pieces_of_a_rule_are_one_and_grids_apart_are_two() -> None:
    across = [Rule(y, x, x + 10) for y in (100, 90, 80, 40, 30, 20) for x in (0, 10)]
    down = [Rule(x, y, y + 10) for x in (0, 10, 20) for y in (80, 90, 20, 30)]
    assert grids(across, down) == [Grid((0, 10, 20), (100, 90, 80)), Grid((0, 10, 20), (40, 30, 20))]


def test_rules_that_do_not_meet_make_no_grid() -> None:
    assert grids([Rule(y, 0, 50) for y in (30, 20, 10)], [Rule(x, 0, 40) for x in (60, 70, 80)]) == []
    assert grids([Rule(10, 0, 50), Rule(20, 0, 50)], [Rule(x, 10, 20) for x in (0, 25, 50)]) == []     # one row
    assert grids([], []) == []


def test_words_go_to_their_cells() -> None:
    words = [Word(5, 95, "a"), Word(15, 95, "b"), Word(15, 93, "c"), Word(5, 85, "d"), Word(99, 0, "e")]
    assert cells(Grid((0, 10, 20), (100, 90, 80)), words) == [["a", "b c"], ["d", "e"]]


def test_more_rules_than_a_table_has_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    across, down = [Rule(y, 0, 1000) for y in range(0, 1000, 5)], [Rule(x, 0, 1000) for x in range(0, 1000, 5)]
    assert len(grids(across[:50], down[:20])) == 1
    monkeypatch.setattr(pdf_tables, "_MAX_CELLS", 100)
    assert grids(across, down) == []
