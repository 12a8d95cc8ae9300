"""The sample's five files: passages under headings, one file of each kind that ingestion reads, and questions about them.

Tables restate facts of the passages; `_checked` refuses one whose figures do not stand in the passage it names.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

Texts = Mapping[str, str]               # passage id -> text
Sections = Sequence[tuple[str, Sequence[str]]]

ARTICLES = ("Baltic Sea", "Microsoft Windows", "Oxford", "Saxophone", "Tin")
ATTRIBUTION = ('From the Wikipedia article "{}" by its contributors, CC BY-SA 3.0, as excerpted in SQuADShifts '
               "(Miller, Krauth, Recht, Schmidt 2020), CC BY 4.0.")

BALTIC_SEA: Sections = (
    ("Geology", ("x388", "x389")),
    ("Water and salinity", ("x398", "x401", "x403", "x391")),
    ("Ice", ("x400", "x395", "x399")),
    ("Animals", ("x397", "x390")),
    ("Trade, treaties and floods", ("x392", "x393", "x394")),
    ("History", ("x411", "x413", "x404", "x405", "x406", "x407")),
)
SAXOPHONE: Sections = (
    ("Invention", ("x1482", "x1483")),
    ("Construction", ("x1490", "x1494")),
    ("Materials and finish", ("x1496", "x1498")),
    ("Reeds and mouthpieces", ("x1499", "x1500")),
)
TIN: Sections = (
    ("Properties", ("x763", "x764", "x766", "x768")),
    ("Mining and recycling", ("x802", "x805", "x795")),
    ("Uses", ("x762", "x801", "x776", "x779")),
)
OXFORD: Sections = (
    ("History", ("x1406", "x1407", "x1408", "x1404")),
    ("Industry and brewing", ("x1420", "x1422", "x1423")),
    ("Transport", ("x1411", "x1418", "x1419")),
    ("Museums", ("x1417",)),
)
SAXOPHONE_DATES = (
    ("1840", "Adolphe Sax invents the saxophone family", "x1482"),
    ("1842", "Sax moves to Paris to establish his musical instrument business", "x1483"),
    ("June 28, 1846", "Sax patents the saxophone in two groups of seven instruments", "x1482"),
    ("1866", "Sax's patent expires", "x1485"),
    ("1920", "Key touches of plastic or mother of pearl become usual from here on", "x1496"),
    ("1923", "Coleman Hawkins brings the saxophone to the Fletcher Henderson Orchestra", "x1480"),
    ("1928", "The quartet led by Marcel Mule starts", "x1479"),
    ("1953", "The quartet led by Daniel Deffayet starts", "x1479"),
)
TIN_MINED = (("China", "110,000"), ("Indonesia", "51,000"), ("Peru", "34,600"), ("Bolivia", "20,700"), ("Brazil", "12,000"))
TIN_MINED_PASSAGE = "x806"
WINDOWS_HEADER = ("Product", "Released", "Mainstream support ended", "Extended support ended", "Known for")
WINDOWS = (
    ("Windows 1.0", "November 1985", "", "", "tiled windows that could not overlap", "x888"),
    ("Windows 3.0", "1990", "", "", "2 million copies sold in the first six months", "x890"),
    ("Windows NT 3.1", "July 1993", "", "", "versions for desktop workstations and servers", "x896"),
    ("Windows NT 3.5", "September 1994", "", "", "support for Novell's NetWare", "x896"),
    ("Windows NT 3.51", "May 1995", "", "", "support for the PowerPC architecture", "x896"),
    ("Windows 95", "August 24, 1995", "December 31, 2000", "December 31, 2001", "native 32-bit applications", "x891"),
    ("Windows NT 4.0", "June 1996", "", "", "redesigned interface of Windows 95", "x896"),
    ("Windows 98", "June 25, 1998", "June 30, 2002", "July 11, 2006", "Windows Driver Model, USB composite devices", "x892"),
    ("Windows 98 Second Edition", "May 1999", "", "", "Internet Explorer 5.0, Windows Media Player 6.2", "x892"),
    ("Windows 2000", "February 17, 2000", "", "", "successor to NT 4.0", "x896"),
    ("Windows ME", "September 14, 2000", "", "", "last DOS-based version", "x893"),
    ("Windows XP", "October 25, 2001", "April 14, 2009", "April 8, 2014", "Home and Professional editions", "x899 x886"),
    ("Microsoft AntiSpyware Beta", "January 6, 2005", "", "", "based upon Giant AntiSpyware", "x909"),
    ("Windows XP 64-Bit Edition", "2005", "", "", "last client system to support Itanium", "x912"),
    ("Windows Defender Beta 2", "February 14, 2006", "", "", "freeware against spyware", "x909"),
    ("Windows Vista, volume licensing", "November 30, 2006", "", "", "focus on security features", "x900"),
    ("Windows Vista, consumers", "January 30, 2007", "", "", "User Account Control", "x900"),
    ("Windows Server 2008", "early 2008", "", "", "server counterpart of Vista", "x900"),
    ("Windows Server 2008 R2", "July 22, 2009", "", "", "released to manufacturing with Windows 7", "x901"),
    ("Windows 7", "October 22, 2009", "", "", "multi-touch support, HomeGroup", "x901"),
    ("Windows 8", "October 26, 2012", "", "", "Metro design language, Start screen", "x902"),
    ("Windows 8.1", "October 17, 2013", "", "", "new live tile sizes", "x902"),
    ("Windows 10", "July 29, 2015", "", "", "return of the Start Menu", "x903"),
)
# Questions of the set by id, and our own about the tables, each with the file that answers it.
ASKED = (
    ("5d661c152b22cd4dfcfbd90a", "baltic-sea.pdf"), ("5d6615152b22cd4dfcfbd800", "baltic-sea.pdf"),
    ("5d663d852b22cd4dfcfbdb5a", "baltic-sea.pdf"), ("5d67b9862b22cd4dfcfc0090", "saxophone.docx"),
    ("5d6750ac2b22cd4dfcfbf692", "saxophone.docx"), ("5d66ec2b2b22cd4dfcfbe568", "tin.html"),
    ("5d67c0dc2b22cd4dfcfc0169", "tin.html"), ("5d6735ca2b22cd4dfcfbf290", "oxford.md"),
    ("5d6767c52b22cd4dfcfbfa25", "oxford.md"), ("5d67537f2b22cd4dfcfbf715", "oxford.md"),
)
OWN_QUESTIONS = (
    ("own-1", "When did Adolphe Sax move to Paris?", ["1842"], "saxophone.docx"),
    ("own-2", "How many tonnes of tin were mined in Indonesia in 2011?", ["51,000", "51,000 tonnes"], "tin.html"),
    ("own-3", "When did extended support for Windows 98 end?", ["July 11, 2006"], "windows-releases.csv"),
    ("own-4", "When was Windows 8.1 released?", ["October 17, 2013"], "windows-releases.csv"),
    ("own-5", "Which version of Windows was the last one based on DOS?", ["Windows ME"], "windows-releases.csv"),
)
_CLOCK = (2020, 1, 1, 0, 0, 0)


def write_all(target: Path, texts: Texts, queries: Iterable[Mapping[str, object]]) -> None:
    """Writes `files/` and `file_questions.json` (beside it, because the folder is there to be ingested whole).

    Raises:
        ValueError: a table states what its passage does not, or no page of a file holds an answer.
    """
    for year, _, passage in SAXOPHONE_DATES:
        _checked(year, texts[passage])
    for _, tonnes in TIN_MINED:
        _checked(f"{tonnes} t", texts[TIN_MINED_PASSAGE])
    for row in WINDOWS:
        for date in filter(None, row[1:4]):
            _checked(date, " ".join(texts[passage] for passage in row[5].split()))
    folder = target / "files"
    folder.mkdir(exist_ok=True)
    (folder / "baltic-sea.pdf").write_bytes(_pdf("Baltic Sea", BALTIC_SEA, texts))
    (folder / "saxophone.docx").write_bytes(_docx("Saxophone", SAXOPHONE, texts))
    (folder / "tin.html").write_text(_html("Tin", TIN, texts), encoding="utf-8")
    (folder / "oxford.md").write_text(_markdown("Oxford", OXFORD, texts), encoding="utf-8")
    (folder / "windows-releases.csv").write_text(_csv(), encoding="utf-8")
    rows = _questions(folder, queries)
    (target / "file_questions.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _checked(fact: str, passage: str) -> None:
    if fact not in passage:
        raise ValueError(f"{fact!r} does not stand in: {passage[:80]}...")


def _pdf(title: str, sections: Sections, texts: Texts) -> bytes:
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    def footer(canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawCentredString(document.pagesize[0] / 2, 30, f"Page {document.page}")

    style = getSampleStyleSheet()
    story = [Paragraph(title, style["Title"])]
    for heading, passages in sections:
        story.append(Paragraph(heading, style["Heading2"]))
        for passage in passages:
            texts[passage].encode("cp1252")     # the built-in fonts have no more; raises ValueError
            story.append(Paragraph(html.escape(texts[passage]), style["BodyText"]))
    story.append(Paragraph(html.escape(ATTRIBUTION.format(title)), style["Italic"]))
    data = io.BytesIO()
    document = SimpleDocTemplate(data, title=title, author="Wikipedia contributors", invariant=1)
    document.build(story, onFirstPage=footer, onLaterPages=footer)
    return data.getvalue()


def _docx(title: str, sections: Sections, texts: Texts) -> bytes:
    from datetime import datetime

    import docx

    document = docx.Document()
    core = document.core_properties
    core.title, core.author, core.last_modified_by = title, "Wikipedia contributors", ""
    core.created = core.modified = datetime(*_CLOCK)
    document.add_heading(title, 0)
    for heading, passages in sections:
        document.add_heading(heading, 1)
        for passage in passages:
            document.add_paragraph(texts[passage])
    document.add_heading("Dates", 1)
    table = document.add_table(rows=1, cols=2, style="Table Grid")
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "Date", "Event"
    for date, event, _ in SAXOPHONE_DATES:
        cells = table.add_row().cells
        cells[0].text, cells[1].text = date, event
    document.add_heading("Source", 1)
    document.add_paragraph(ATTRIBUTION.format(title))
    data = io.BytesIO()
    document.save(data)
    return _timeless(data)


def _timeless(package: io.BytesIO) -> bytes:
    """The same zip without the time it was made, so that making it again gives the same bytes."""
    data = io.BytesIO()
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name, _CLOCK), source.read(name), zipfile.ZIP_DEFLATED)
    return data.getvalue()


def _html(title: str, sections: Sections, texts: Texts) -> str:
    body = [f"<h2>{heading}</h2>\n" + "\n".join(f"<p>{html.escape(texts[passage])}</p>" for passage in passages)
            for heading, passages in sections]
    rows = "\n".join(f"<tr><td>{country}</td><td>{tonnes}</td></tr>" for country, tonnes in TIN_MINED)
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title} - Elements at a glance</title><style>nav a {{ margin: 1em; }}</style></head>
<body>
<nav><a href="/">Home</a> <a href="/metals">Metals</a> <a href="/gases">Gases</a> <a href="/search">Search</a></nav>
<div class="banner">We use cookies to improve your experience. <button>Accept</button></div>
<main>
<h1>{title}</h1>
{chr(10).join(body)}
<h2>Mine production</h2>
<table>
<caption>Tin mined in 2011 by country</caption>
<tr><th>Country</th><th>Tonnes mined in 2011</th></tr>
{rows}
</table>
<h2>Source</h2>
<p>{html.escape(ATTRIBUTION.format(title))}</p>
</main>
<aside>Related: <a href="/lead">Lead</a>, <a href="/zinc">Zinc</a></aside>
<footer>About | Contact | Terms of use</footer>
<script>console.log("loaded");</script>
</body>
</html>
"""


def _markdown(title: str, sections: Sections, texts: Texts) -> str:
    parts = [f"# {title}"]
    for heading, passages in sections:
        parts += [f"## {heading}", *(texts[passage] for passage in passages)]
    return "\n\n".join([*parts, "## Source", ATTRIBUTION.format(title)]) + "\n"


def _csv() -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([ATTRIBUTION.format("Microsoft Windows")])
    writer.writerow(WINDOWS_HEADER)
    writer.writerows(row[:5] for row in WINDOWS)
    return text.getvalue()


def _questions(folder: Path, queries: Iterable[Mapping[str, object]]) -> list[dict[str, object]]:
    by_id = {query["id"]: query for query in queries}
    rows: list[dict[str, object]] = [{"id": id_, "question": by_id[id_]["question"], "answers": by_id[id_]["answers"],
                                      "file": file} for id_, file in ASKED]
    rows += [{"id": id_, "question": question, "answers": answers, "file": file, "own": True}
             for id_, question, answers, file in OWN_QUESTIONS]
    for row in rows:
        if str(row["file"]).endswith(".pdf"):
            row["page"] = _page(folder / str(row["file"]), row["answers"])
    return rows


def _page(path: Path, answers: object) -> int:
    import pypdfium2

    assert isinstance(answers, list)
    pdf = pypdfium2.PdfDocument(path)
    for number in range(len(pdf)):
        text = re.sub(r"\s+", " ", pdf[number].get_textpage().get_text_range())
        if any(answer in text for answer in answers):
            return number + 1
    raise ValueError(f"No page of {path.name} holds any of {answers}.")
