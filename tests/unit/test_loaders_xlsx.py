"""XLSX: sheets as headings, rows that name their columns, values as a person sees them, and every refusal."""

from __future__ import annotations

import io
import re
import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path

import pytest

from indexers.loaders import xlsx
from indexers.loaders.cells import shown
from rag.settings import Settings
from tests.loading import document, failure, outline, repacked, zipped
from tests.sample_files import workbook


def test_sheets_are_headings_and_rows_name_their_columns(tmp_path: Path, settings: Settings) -> None:
    data = workbook({"Prices": [["Metals of 2024"], ["Name", "Price", "Since"], ["Tin", 1234.5, date(2024, 3, 1)],
                                ["Lead", 0.125, None]],
                     "Stock": [["Place", "Tonnes"], ["Oslo", 3]], "Empty": []},
                    formats={"B3": "#,##0.00", "B4": "0.0%", "C3": "dd/mm/yyyy"}, title="Metal book")
    made = document(tmp_path / "metals.xlsx", data, settings)
    assert made.title == "Metal book"
    assert outline(made) == [
        ("Prices", "Metals of 2024"),
        ("Prices", "Name: Tin; Price: 1,234.50; Since: 2024-03-01\nName: Lead; Price: 12.5%"),
        ("Stock", "Place: Oslo; Tonnes: 3")]
    assert [len(block.units) for block in made.blocks] == [0, 2, 1]
    assert {name: made.metadata[name] for name in ("sheets", "author", "created")} == {
        "sheets": ("Prices", "Stock"), "author": "Ann", "created": "2024-03-05"}


def test_years_are_column_names_too(tmp_path: Path, settings: Settings) -> None:
    data = workbook({"S": [["Country", 2023, 2024], ["Peru", 7, 8]]})
    assert document(tmp_path / "a.xlsx", data, settings).text == "S\n\nCountry: Peru; 2023: 7; 2024: 8"


def test_tables_on_one_sheet_are_told_apart_and_one_that_goes_on_keeps_its_header(tmp_path: Path, settings: Settings) -> None:
    rows = [["City", "People"], ["Oslo", 700], [], ["Bergen", 290], [], ["Source: the cities"], [],
            ["Ship", "Port", "Tonnes"], ["Anna", "Oslo", 9]]
    made = document(tmp_path / "a.xlsx", workbook({"S": rows}), settings)
    assert made.text == ("S\n\nCity: Oslo; People: 700\n\nCity: Bergen; People: 290\n\nSource: the cities\n\n"
                         "Ship: Anna; Port: Oslo; Tonnes: 9")


def test_a_table_that_begins_further_right_and_has_new_names_is_another(tmp_path: Path, settings: Settings) -> None:
    rows = [["A", "B", "C"], [1, 2, 3], [], [None, "Name", "Sum"], [None, "x", 5]]
    assert document(tmp_path / "a.xlsx", workbook({"S": rows}), settings).text == "S\n\nA: 1; B: 2; C: 3\n\nName: x; Sum: 5"


def test_formulas_show_their_last_result(tmp_path: Path, settings: Settings) -> None:
    data = workbook({"S": [["Name", "Sum"], ["Tin", "=1+1"], ["Lead", 2]]})
    assert document(tmp_path / "a.xlsx", data, settings).text == "S\n\nName: Tin\nName: Lead; Sum: 2"
    calculated = repacked(data, {"xl/worksheets/sheet1.xml": member(data, "xl/worksheets/sheet1.xml").replace(
        b"<f>1+1</f><v></v>", b"<f>1+1</f><v>2</v>").replace(b"<f>1+1</f><v />", b"<f>1+1</f><v>2</v>")})
    assert document(tmp_path / "a.xlsx", calculated, settings).text == "S\n\nName: Tin; Sum: 2\nName: Lead; Sum: 2"


def test_hidden_sheets_are_left_out(tmp_path: Path, settings: Settings) -> None:
    data = workbook({"Seen": [["a", "b"], ["1", "2"]], "Salaries": [["Ann", 5], ["Bo", 6]]}, hidden=["Salaries"])
    made = document(tmp_path / "a.xlsx", data, settings)
    assert "Ann" not in made.text
    assert made.metadata["sheets"] == ("Seen",)


def test_a_size_that_the_file_states_wrongly_does_not_matter(tmp_path: Path, settings: Settings) -> None:
    data = workbook({"S": [["a", "b"], ["x", 1], ["y", 2]]})
    name = "xl/worksheets/sheet1.xml"
    wrong = repacked(data, {name: member(data, name).replace(b'ref="A1:B3"', b'ref="A1:A1"')})
    assert document(tmp_path / "a.xlsx", wrong, settings).text == "S\n\na: x; b: 1\na: y; b: 2"


def member(data: bytes, name: str) -> bytes:
    return zipfile.ZipFile(io.BytesIO(data)).read(name)


# What is refused

def test_a_cell_far_out_is_refused_soon(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "_MAX_CELLS", 1_000_000)
    name = "xl/worksheets/sheet1.xml"
    data = workbook({"S": [["a", "b"], ["x", 1]]})
    far = repacked(data, {name: member(data, name).replace(b'<row r="2"', b'<row r="999999999"').replace(b'"A2"', b'"A999999999"')
                          .replace(b'"B2"', b'"B999999999"')})
    assert failure(tmp_path / "a.xlsx", far, settings).code == "file_too_large"


def test_entities_of_its_own_are_refused(tmp_path: Path, settings: Settings) -> None:
    entities = b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(12))
    data = workbook({"S": [["a", "b"], ["x", 1]]})
    for name in ("xl/workbook.xml", "xl/worksheets/sheet1.xml", "xl/styles.xml", "[Content_Types].xml"):
        xml = b"<!DOCTYPE x [<!ENTITY a \"ha\">" + entities + b"]>" + re.sub(rb"^<[?][^>]*>", b"", member(data, name))
        told = failure(tmp_path / "a.xlsx", repacked(data, {name: xml}), settings)
        assert (told.code, "document type" in told.message, name in told.message) == ("file_corrupt", True, True)
        wide = repacked(data, {name: xml.decode().encode("utf-16")})
        assert "document type" in failure(tmp_path / "a.xlsx", wide, settings).message


@pytest.mark.parametrize("name", ["xl/workbook.xml", "xl/worksheets/sheet1.xml", "xl/styles.xml"])
@pytest.mark.parametrize("content", [b"", b"not xml", b"<a>" * 300, b"<worksheet><sheetData><row r='x'>"])
def test_damaged_parts_are_told(tmp_path: Path, settings: Settings, name: str, content: bytes) -> None:
    assert failure(tmp_path / "a.xlsx", repacked(workbook({"S": [["a", "b"], ["x", 1]]}), {name: content}), settings).code in {
        "file_corrupt", "file_empty"}


def test_another_zip_is_told(tmp_path: Path, settings: Settings) -> None:
    assert "a zip archive" in failure(tmp_path / "a.xlsx", zipped({"a.txt": "x"}), settings).message


# Values alone

@pytest.mark.parametrize(("value", "number_format", "text"), [
    (None, "General", ""), (True, "General", "TRUE"), ("words", "@", "words"), (3, "General", "3"), (3.0, "General", "3"),
    (0.1 + 0.2, "General", "0.3"), (3.14159265358979, "General", "3.1415926536"), (1e-7, "General", "1e-07"),
    (1e20, "0.00", "1e+20"), (1234.5, "#,##0.00", "1,234.50"), (1234.5, "#,##0", "1,235"), (2.5, "0", "3"),
    (1.005, "0.00", "1.01"), (0.125, "0.0%", "12.5%"), (-5, "0;(0)", "(5)"), (-3.2, "0.0", "-3.2"), (0, '0;-0;"none"', "none"),
    (12, '"$"#,##0.00', "$12.00"),
    (12.5, "[$€-407] #,##0.00", "€ 12.50"), (0, '_-* #,##0.00_-;\\-* #,##0.00_-;_-* "-"??_-;_-@_-', "-"),
    (-1234, '_-* #,##0.00_-;\\-* #,##0.00_-;_-* "-"??_-;_-@_-', "-1,234.00"), (1_500_000, '0.0,,"M"', "1.5M"),
    (7, '[Red]0" kg"', "7 kg"), (12345, "0.00E+00", "1.23E+04"), (3, "00000", "00003"), (0.5, "# ?/?", "0.5"),
    (5551234, "000-0000", "5551234"), (42, "@", "42"), (0.25, "", "0.25"), (float("nan"), "0", "nan"), (1.5, "0.##", "1.5"),
    (2, "0.##", "2"), (2024, "0", "2024"), (5, '"', "5"), (5, "[", "5"), (5, "\\", "5"), (5, ";;;", "5")])
def test_numbers_as_a_person_sees_them(value: object, number_format: str, text: str) -> None:
    assert shown(value, number_format) == text


@pytest.mark.parametrize(("value", "number_format", "text"), [
    (datetime(2024, 3, 5), "mm-dd-yy", "2024-03-05"), (datetime(2024, 3, 5), "dd/mm/yyyy", "2024-03-05"),
    (datetime(2024, 3, 5, 14, 30), "yyyy-mm-dd hh:mm", "2024-03-05 14:30"),
    (datetime(2024, 3, 5, 14, 30), "d mmmm yyyy", "5 March 2024"),
    (datetime(2024, 3, 5), "mmm yy", "Mar 24"), (datetime(2024, 3, 5), "[$-409]dddd, mmmm dd, yyyy", "Tuesday, March 05, 2024"),
    (datetime(2024, 3, 5, 14, 30), "h:mm AM/PM", "2:30 PM"), (datetime(2024, 3, 5), "mm/yyyy", "03/2024"),
    (datetime(2024, 3, 5), "General", "2024-03-05"), (datetime(2024, 3, 5), "yyyy-mm-dd h:mm:ss", "2024-03-05"),
    (datetime(2024, 3, 5, 9, 5, 7), "General", "2024-03-05 09:05:07"),
    (date(2024, 3, 5), "yyyy", "2024"), (datetime(2024, 3, 5), 'yyyy"Q1"', "2024Q1"), (time(9, 5), "h:mm", "09:05"),
    (timedelta(hours=26, minutes=5), "[h]:mm", "26:05"), (timedelta(seconds=-61), "[h]:mm", "-0:01:01")])
def test_dates_as_a_person_sees_them(value: object, number_format: str, text: str) -> None:
    assert shown(value, number_format) == text
