"""Which formats there are, known by the extension of a file's name: the parser of each and what its bytes must be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

# What bytes are, as far as we read them.
Content = Literal["text", "pdf", "docx", "pptx", "xlsx", "epub", "zip", "other"]
# How a format becomes documents: one, one for each record, or one for each member with a format of its own.
Shape = Literal["one", "records", "json", "container"]

# Extension to the programming language (or like notation) whose lines it holds.
LANGUAGES: Mapping[str, str] = {
    **dict.fromkeys((".py", ".pyi", ".pyw"), "python"), **dict.fromkeys((".js", ".mjs", ".cjs", ".jsx"), "javascript"),
    **dict.fromkeys((".ts", ".mts", ".cts", ".tsx"), "typescript"), ".java": "java", ".kt": "kotlin", ".kts": "kotlin",
    ".scala": "scala", ".groovy": "groovy", ".gradle": "groovy", **dict.fromkeys((".c", ".h"), "c"),
    **dict.fromkeys((".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx"), "cpp"), ".cs": "csharp", ".go": "go", ".rs": "rust",
    ".rb": "ruby", ".php": "php", ".swift": "swift", ".dart": "dart", ".lua": "lua", ".pl": "perl", ".pm": "perl", ".r": "r",
    ".jl": "julia", ".hs": "haskell", ".ml": "ocaml", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang", ".clj": "clojure",
    **dict.fromkeys((".sh", ".bash", ".zsh"), "shell"), ".ps1": "powershell", ".bat": "batch", ".cmd": "batch", ".sql": "sql",
    ".css": "css", ".scss": "css", ".less": "css", ".vue": "vue", ".svelte": "svelte", ".yaml": "yaml", ".yml": "yaml",
    ".toml": "toml", **dict.fromkeys((".ini", ".cfg", ".conf", ".properties"), "ini"),
    **dict.fromkeys((".xml", ".xsd", ".xsl", ".xslt"), "xml"), ".proto": "protobuf", ".graphql": "graphql",
    ".tf": "terraform", ".cmake": "cmake", ".mk": "make", ".bib": "bibtex",
}


@dataclass(frozen=True, slots=True)
class Format:
    name: str                   # for messages: "... is named as <name>"
    content: Content            # what its bytes must be
    module: str                 # imported when first needed: some parsers load large libraries
    suffixes: tuple[str, ...]
    shape: Shape = "one"


TEXT = Format("plain text", "text", "plain", (".txt", ".text", ".log", ".rst", ".adoc", ".org", ".tex"))
SOURCE = Format("source code", "text", "source", tuple(LANGUAGES))
ZIP = Format("a zip archive", "zip", "archive", (".zip",), shape="container")
FORMATS = (
    TEXT,
    Format("JSON Lines", "text", "jsonl", (".jsonl", ".ndjson"), shape="records"),
    Format("JSON", "text", "jsondoc", (".json", ".geojson"), shape="json"),
    Format("Markdown", "text", "markdown", (".md", ".markdown", ".mkd")),
    Format("HTML", "text", "html", (".html", ".htm", ".xhtml")),
    Format("a PDF document", "pdf", "pdf", (".pdf",)),
    Format("a DOCX document", "docx", "docx", (".docx",)),
    Format("a PPTX presentation", "pptx", "pptx", (".pptx", ".pptm")),
    Format("an XLSX workbook", "xlsx", "xlsx", (".xlsx", ".xlsm")),
    Format("an EPUB book", "epub", "epub", (".epub",)),
    Format("a table", "text", "table", (".csv", ".tsv", ".tab")),
    Format("a mail message", "text", "mail", (".eml",), shape="container"),
    ZIP,
    SOURCE,
)
_BY_SUFFIX = {suffix: format_ for format_ in FORMATS for suffix in format_.suffixes}
SUPPORTED = ", ".join(suffix for format_ in FORMATS if format_ is not SOURCE for suffix in format_.suffixes)


def format_of(name: PurePath) -> Format | None:
    """The format that a name's extension promises, compressed or not; None for one that nobody here knows or for none."""
    return _BY_SUFFIX.get(plain(name).suffix)


def may_be_read(name: PurePath) -> bool:
    """Whether it is worth opening: names without extension may be text."""
    return format_of(name) is not None or not plain(name).suffix


def plain(name: PurePath) -> PurePath:
    """In lower case and without `.gz`."""
    lower = PurePath(name.name.lower())
    return lower.with_suffix("") if lower.suffix == ".gz" else lower
