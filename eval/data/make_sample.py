"""Makes `eval/data/sample` from a copy of the SQuADShifts "new Wikipedia" set in the dataset format.

    python -m eval.data.make_sample SQUADSHIFTS_WIKI_DIR

Whole articles, so that a question's evidence stands among near-misses. The five files are made from other articles than
the corpus, so that their questions can be answered from them alone. The same input gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random

from eval.data import sample_files

ARTICLES = ("Andes", "Armenian Apostolic Church", "Cardiovascular disease", "Ice hockey", "Istanbul", "Latin", "Manipur",
            "Yugoslav Partisans")
MAX_QUERIES = 400
SEED = 13
Record = Mapping[str, object]

README = """# Sample

{passages} passages of {articles} whole Wikipedia articles with {queries} questions about them, and five files of other kinds
made from five other articles: enough to try everything, small enough to ship.

- `corpus.jsonl`: one passage a line: `id`, `title` (the article), `text`
- `queries.jsonl`: one question a line: `id`, `question`, `answers` (any of which is right), `evidence` (passage ids), `type`
- `files/`: a PDF, a DOCX, an HTML page, a CSV and a Markdown file
- `file_questions.json`: questions about those files: `id`, `question`, `answers`, `file`, and `page` where the file has pages

## Source, licence, attribution

Passages and questions are a slice of SQuADShifts ("new Wikipedia" set, v1.0) by John Miller, Karl Krauth, Benjamin Recht and
Ludwig Schmidt, *The Effect of Natural Distribution Shift on Question Answering Models* (2020),
<https://modestyachts.github.io/squadshifts-website/>, licensed under CC BY 4.0 (<https://creativecommons.org/licenses/by/4.0/>).
The passages are text of English Wikipedia by its contributors, licensed under CC BY-SA 3.0
(<https://creativecommons.org/licenses/by-sa/3.0/>); so are the files made from them. Articles:

{titles}

Changed: passages were selected by article, questions sampled, white space at the ends of passages removed; the files put
passages under headings, and their tables restate facts of the passages. The questions are those of the set, except the ones
marked `"own": true`.

## Making it again

    python -m eval.data.make_sample SQUADSHIFTS_WIKI_DIR

where the directory holds `corpus.jsonl[.gz]` and `queries.jsonl[.gz]` of the whole set in the format above. The PDF and the
DOCX need the development dependencies.
"""


def main(arguments: list[str]) -> int:
    """Exit status 2 where the arguments are wrong."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    source = Path(arguments[0])
    target = Path(__file__).parent / "sample"
    passages = [{"id": row["id"], "title": row["title"], "text": str(row["text"]).strip()}
                for row in _rows(source / "corpus.jsonl")]
    queries = list(_rows(source / "queries.jsonl"))

    corpus = [passage for passage in passages if passage["title"] in ARTICLES]
    chosen = _sampled(queries, among={str(passage["id"]) for passage in corpus})
    target.mkdir(exist_ok=True)
    _write_lines(target / "corpus.jsonl", corpus)
    _write_lines(target / "queries.jsonl", chosen)
    sample_files.write_all(target, {str(passage["id"]): str(passage["text"]) for passage in passages}, queries)
    titles = "\n".join(f"- {title}: <https://en.wikipedia.org/wiki/{title.replace(' ', '_')}>"
                       for title in sorted([*ARTICLES, *sample_files.ARTICLES]))
    (target / "README.md").write_text(README.format(passages=len(corpus), articles=len(ARTICLES), queries=len(chosen),
                                                    titles=titles), encoding="utf-8")
    return 0


def _sampled(queries: Iterable[Record], *, among: set[str]) -> list[Record]:
    """At most `MAX_QUERIES` with all their evidence in `among`, in the set's order."""
    held = [query for query in queries if set(_strings(query["evidence"])) <= among]
    kept = sorted(Random(SEED).sample(range(len(held)), min(MAX_QUERIES, len(held))))
    return [held[index] for index in kept]


def _strings(value: object) -> list[str]:
    assert isinstance(value, list)
    return [str(item) for item in value]


def _rows(path: Path) -> Iterator[dict[str, object]]:
    packed = path.with_name(path.name + ".gz")
    with gzip.open(packed, "rt", encoding="utf-8") if packed.exists() else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _write_lines(path: Path, rows: Iterable[Record]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
