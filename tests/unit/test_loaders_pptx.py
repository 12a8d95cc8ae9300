"""PPTX: slides as pages, titles as headings, lists, tables, charts and notes; and what is refused."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from rag.settings import Settings
from rag.types import Document
from tests.loading import document, failure, repacked, zipped
from tests.sample_files import deck, titled

PRESENTATION = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
BOX = (Inches(1), Inches(2), Inches(4), Inches(2))


def blocks(made: Document) -> list[tuple[int | None, str, str]]:
    return [(block.page, block.heading, made.text[slice(*block.span)]) for block in made.blocks]


def test_slides_are_pages_and_their_titles_headings(tmp_path: Path, settings: Settings) -> None:
    def noted(slide: Any) -> None:
        titled("Care", "Dust it.")(slide)
        slide.notes_slide.notes_text_frame.text = "Say that twice."

    made = document(tmp_path / "a.pptx", deck(titled("Lamps", "They glow.", "They last."), noted, title="Lamp course"), settings)
    assert made.title == "Lamp course"
    assert blocks(made) == [(1, "Lamps", "- They glow.\n- They last."), (2, "Care", "Dust it."),
                            (2, "Care > Notes", "Say that twice.")]
    assert (made.metadata["slides"], made.metadata["author"]) == (2, "Ann")


def test_the_first_title_names_a_deck_whose_property_says_nothing(tmp_path: Path, settings: Settings) -> None:
    for stated in ("", "PowerPoint Presentation"):
        made = document(tmp_path / "a.pptx", deck(titled("Lamps", "They glow."), titled("Care", "Dust."), title=stated), settings)
        assert made.title == "Lamps"
        assert blocks(made) == [(1, "", "They glow."), (2, "Care", "Dust.")]


def test_a_slide_without_title_does_not_stand_under_the_one_before(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "a.pptx", deck(titled("Lamps", "They glow."), titled("", "Alone.")), settings)
    assert blocks(made)[1] == (2, "Slide 2", "Alone.")


def test_tables_name_their_columns(tmp_path: Path, settings: Settings) -> None:
    def fill(slide: Any) -> None:
        slide.shapes.title.text = "Prices"
        table = slide.shapes.add_table(3, 2, *BOX).table
        for row, cells in enumerate([("Model", "Price"), ("A1", "10"), ("B2", "")]):
            for column, text in enumerate(cells):
                table.cell(row, column).text = text

    made = document(tmp_path / "a.pptx", deck(fill, layout=5, title="Shop"), settings)
    assert blocks(made) == [(1, "Prices", "Model: A1; Price: 10\nModel: B2")]
    assert len(made.blocks[0].units) == 2


def test_the_figures_behind_a_chart_are_read(tmp_path: Path, settings: Settings) -> None:
    def fill(slide: Any) -> None:
        slide.shapes.title.text = "Sales"
        data = CategoryChartData()
        data.categories = ["2023", "2024"]
        data.add_series("East", (19.2, 21))
        data.add_series("West", (None, 8))
        chart = slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *BOX, data).chart
        chart.has_title = True
        chart.chart_title.text_frame.text = "Tonnes by year"

    made = document(tmp_path / "a.pptx", deck(fill, layout=5, title="Shop"), settings)
    assert blocks(made) == [(1, "Sales", "Tonnes by year"), (1, "Sales", "2023; East: 19.2\n2024; East: 21; West: 8")]


def test_groups_are_read_and_slide_numbers_are_not(tmp_path: Path, settings: Settings) -> None:
    def fill(slide: Any) -> None:
        slide.shapes.title.text = "Sea"
        group = slide.shapes.add_group_shape()
        group.shapes.add_textbox(*BOX).text_frame.text = "In a group.\vSame paragraph."
        inner = group.shapes.add_group_shape()
        inner.shapes.add_textbox(*BOX).text_frame.text = "Deeper."
        number = slide.shapes.add_textbox(*BOX)
        number.text_frame.text = "Furniture"
        properties = number._element.find(".//{*}nvPr")
        properties.append(properties.makeelement(f"{PRESENTATION}ph", {"type": "sldNum"}))

    made = document(tmp_path / "a.pptx", deck(fill, layout=5, title="Shop"), settings)
    assert blocks(made) == [(1, "Sea", "In a group.\nSame paragraph.\n\nDeeper.")]


def test_too_many_slides_are_refused_with_the_setting(tmp_path: Path, settings: Settings) -> None:
    told = failure(tmp_path / "a.pptx", deck(*[titled("A", "b")] * 3), replace(settings, max_pages=2))
    assert told.code == "file_too_large"
    assert "3 slides" in told.message
    assert "max_pages" in told.hint


def test_entities_of_its_own_are_refused(tmp_path: Path, settings: Settings) -> None:
    data = deck(titled("Lamps", "They glow."))
    slide = zipfile.ZipFile(io.BytesIO(data)).read("ppt/slides/slide1.xml")
    bomb = slide.replace(b"<p:sld ", b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><p:sld ', 1).replace(b"glow", b"&e;")
    told = failure(tmp_path / "a.pptx", repacked(data, {"ppt/slides/slide1.xml": bomb}), settings)
    assert (told.code, "ppt/slides/slide1.xml" in told.message) == ("file_corrupt", True)


@pytest.mark.parametrize("content", [b"", b"not xml", b"<a>" * 300 + b"</a>" * 300])
@pytest.mark.parametrize("name", ["ppt/presentation.xml", "ppt/slides/slide1.xml", "[Content_Types].xml"])
def test_damaged_parts_are_told(tmp_path: Path, settings: Settings, name: str, content: bytes) -> None:
    data = repacked(deck(titled("Lamps", "They glow.")), {name: content})
    assert failure(tmp_path / "a.pptx", data, settings).code == "file_corrupt"


def test_a_document_of_another_kind_is_told(tmp_path: Path, settings: Settings) -> None:
    assert "holds a PPTX presentation" in failure(tmp_path / "a.docx", deck(), settings).message
    assert "holds a zip archive" in failure(tmp_path / "a.pptx", zipped({"a.txt": "x"}), settings).message


def test_a_deck_without_slides_is_empty(tmp_path: Path, settings: Settings) -> None:
    assert failure(tmp_path / "a.pptx", deck(), settings).code == "file_empty"
