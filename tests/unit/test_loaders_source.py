"""Source code: lines as units, the enclosing definition as heading; no syntax that stops it."""

from __future__ import annotations

from pathlib import Path

import pytest

from indexers.chunking import chunk
from rag.settings import Settings
from rag.types import Document
from tests.fakes import WordEncoder
from tests.loading import document, failure, items


def headings(made: Document) -> list[tuple[str, str, str]]:
    """Heading, first line and last line of each block."""
    return [(block.heading, made.text[slice(*block.units[0])], made.text[slice(*block.units[-1])]) for block in made.blocks]


def body(count: int, indent: str = "    ") -> str:
    return "".join(f"{indent}x{n} = {n};\n" for n in range(count))


PYTHON = f'''"""A module."""
import os

LIMIT = 3


# What this is about.
@decorated
def small(a):
    return a


class Lamp(Base):
    """Glows. Not "def fake(): pass"."""

    wires = 2

    async def glow(self):
        def inner():
            return 1
{body(12, "        ")}
    def dim(self):
{body(14, "        ")}

class Tiny:
    def one(self):
        return 1
'''


def test_python_definitions_are_headings_and_small_classes_stay_whole(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "lamp_v2.py", PYTHON.replace(";", ""), settings)
    assert (made.title, made.media_type, made.metadata) == ("lamp_v2.py", "text/x-source", {"programming_language": "python"})
    assert headings(made) == [
        ("", '"""A module."""', "LIMIT = 3"),
        ("def small", "# What this is about.", "return a"),
        ("class Lamp", "class Lamp(Base):", "wires = 2"),
        ("class Lamp > def glow", "async def glow(self):", "x11 = 11"),
        ("class Lamp > def dim", "def dim(self):", "x13 = 13"),
        ("class Tiny", "class Tiny:", "return 1")]


def test_python_that_does_not_parse_is_read_by_its_indentation(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "a.py", "print 'old'\n\ndef old(a):\n    print a\n    return a\n\nprint 'end'\n", settings)
    assert headings(made) == [("", "print 'old'", "print 'old'"), ("def old(a)", "def old(a):", "return a"),
                              ("", "print 'end'", "print 'end'")]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_exact_with_any_line_ends(tmp_path: Path, settings: Settings, newline: str) -> None:
    made = document(tmp_path / "a.py", newline.join(["", "def f():", "\tx = '\x0c'", "", "\treturn x. Or", ""]).encode(), settings)
    assert [made.text[slice(*unit)] for unit in made.blocks[0].units] == ["def f():", "x = '\x0c'", "return x. Or"]


JAVA = f"""package shop;

/** A lamp. */
@Entity
public class Lamp extends Thing
{{
    private int wires;

    // Makes light.
    public void glow(int level) throws Dark {{
        if (level > 0) {{
            go(level);
        }} else {{
            stop();
        }}
{body(10, "        ")}    }}

    public int dim(int level) {{
{body(12, "        ")}    }}
}}
"""
GO = """package main

import "fmt"

// Start begins.
func (s *Server) Start(ctx context.Context) error {
\tfmt.Println("up")
\treturn nil
}

type Server struct {
\tname string
\tport int
}
"""
RUST = """use std::io;

#[derive(Debug)]
pub struct Lamp {
    wires: u8,
}

impl<T> Glow for Lamp {
    fn glow(&self) -> u8 {
        1
    }
}
"""
C = """#include <stdio.h>

static int helper(int a,
                  int b)
{
#ifdef DEBUG
    printf("a. b");
#endif
    return a;
}

int main(void) {
    return helper(1, 2);
}

int after;
"""
RUBY = "module Shop\n  class Lamp\n    def glow\n      1\n    end\n  end\nend\n\nputs 1\n"
JS = """import x from 'y';

export const glow = async (level) => {
  return level;
};

test('it glows', () => {
  glow(1);
});

run();
"""
SQL = "-- All lamps.\nCREATE TABLE lamps (\n  id INT,\n  name TEXT\n);\n\nSELECT *\nFROM lamps;\n"
TOML = "name = 'x'\n\n[project]\nversion = 1\nlicense = 'MIT'\n\n[[tool.a]]\nb = 1\nc = [\n  2,\n]\n"
YAML = "version: 3\nservices:\n  web:\n    image: a\n  db:\n    image: b\nvolumes:\n  - data\n  - logs\n"


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("Lamp.java", JAVA, [("", "package shop;"), ("public class Lamp extends Thing", "/** A lamp. */"),
                         ("public class Lamp extends Thing > public void glow(int level) throws Dark", "// Makes light."),
                         ("public class Lamp extends Thing > public int dim(int level)", "public int dim(int level) {"),
                         ("public class Lamp extends Thing", "}")]),
    ("a.go", GO, [("", "package main"), ("func (s *Server) Start(ctx context.Context) error", "// Start begins."),
                  ("type Server struct", "type Server struct {")]),
    ("a.rs", RUST, [("", "use std::io;"), ("pub struct Lamp", "#[derive(Debug)]"),
                    ("impl<T> Glow for Lamp", "impl<T> Glow for Lamp {")]),
    ("a.c", C, [("", "#include <stdio.h>"), ("int main(void)", "int main(void) {"), ("", "int after;")]),
    ("a.rb", RUBY, [("module Shop", "module Shop"), ("", "puts 1")]),
    ("a.mjs", JS, [("", "import x from 'y';"), ("export const glow = async (level) =>", "export const glow = async (level) => {"),
                   ("test('it glows', () =>", "test('it glows', () => {"), ("", "run();")]),
    ("a.sql", SQL, [("CREATE TABLE lamps", "-- All lamps."), ("", "SELECT *")]),
    ("a.toml", TOML, [("", "name = 'x'"), ("project", "[project]"), ("tool.a", "[[tool.a]]")]),
    ("a.yml", YAML, [("", "version: 3"), ("services", "services:"), ("volumes", "volumes:")]),
    ("a.xml", "<a>\n  <b>One. Two.</b>\n</a>\n", [("", "<a>")]),
    ("a.css", ".lamp {\n  color: red;\n}\np { margin: 0 }\n", [(".lamp", ".lamp {"), ("", "p { margin: 0 }")]),
])
def test_other_languages(tmp_path: Path, settings: Settings, name: str, text: str, expected: list[tuple[str, str]]) -> None:
    made = document(tmp_path / name, text, settings)
    assert [(heading, first) for heading, first, _ in headings(made)] == expected


@pytest.mark.parametrize("name", ["lamp_v2.py", "Lamp.java", "a.go", "a.rs", "a.c", "a.rb", "a.mjs", "a.sql", "a.toml", "a.yml"])
def test_every_line_stands_in_one_block(tmp_path: Path, settings: Settings, name: str) -> None:
    texts = {"lamp_v2.py": PYTHON, "Lamp.java": JAVA, "a.go": GO, "a.rs": RUST, "a.c": C, "a.rb": RUBY, "a.mjs": JS, "a.sql": SQL,
             "a.toml": TOML, "a.yml": YAML}
    made = document(tmp_path / name, texts[name], settings)
    units = [made.text[slice(*unit)] for block in made.blocks for unit in block.units]
    assert units == [line.strip() for line in texts[name].splitlines() if line.strip()]
    assert all(block.span == (block.units[0][0], block.units[-1][1]) for block in made.blocks)


def test_a_line_is_never_cut_at_a_full_stop(tmp_path: Path, settings: Settings) -> None:
    made = document(tmp_path / "a.sh", "".join(f"echo 'One {n}. Two {n}. Three {n}.'\n" for n in range(60)), settings)
    encoder = WordEncoder()
    pieces = chunk(made, max_tokens=64, count=encoder.count, offsets=encoder.offsets)
    assert len(pieces) > 1
    lines = {piece.sentence(index) for piece in pieces for index in range(len(piece.sentences))}
    assert lines == {f"echo 'One {n}. Two {n}. Three {n}.'" for n in range(60)}


@pytest.mark.parametrize("text", [
    "-" * 100_000 + "1", "(" * 50_000, "x = " + "[" * 5000 + "]" * 5000, "a" + ".b" * 100_000, "x = 1 " + "+ 1 " * 50_000,
    "if x: pass\n" + "elif x: pass\n" * 20_000, "lambda: " * 20_000 + "1", "f(" * 10_000 + ")" * 10_000, "'" * 99_999,
    "x = '''never closed", "\0def f(): pass",
    "def f():\n" + "".join(" " * n + "if x:\n" for n in range(1, 3000)), "@" * 10_000, "class A" + "(B" * 10_000])
def test_python_that_breaks_parsers_costs_its_headings_at_most(tmp_path: Path, settings: Settings, text: str) -> None:
    [item] = items(tmp_path / "a.py", text + "\n", settings)
    assert isinstance(item, Document) or item.code == "file_unsupported"


@pytest.mark.parametrize("line", [
    "x" * 5_000_000, ")" * 290, "a(" * 140, "public " * 40, " " * 299, "{" * 299, "[" * 299, "a" + " *" * 140, "a" + ")(" * 140])
def test_odd_lines_take_no_long_time(tmp_path: Path, settings: Settings, line: str) -> None:
    [item] = items(tmp_path / "a.java", f"{line}\n" * (1 if len(line) > 1000 else 2000), settings)
    assert isinstance(item, Document) or not line.strip()


def test_an_empty_source_file_is_a_failure_only_if_named(tmp_path: Path, settings: Settings) -> None:
    assert failure(tmp_path / "__init__.py", "", settings).code == "file_empty"
    [item] = items(tmp_path / "__init__.py", "", settings, named=False)
    assert (type(item).__name__, item.code) == ("Skipped", "file_skipped")  # type: ignore[union-attr]
    [item] = items(tmp_path / "notes.txt", "", settings, named=False)
    assert (type(item).__name__, item.code) == ("FileFailure", "file_empty")  # type: ignore[union-attr]
