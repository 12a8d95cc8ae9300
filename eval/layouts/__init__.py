"""Public layouts of question-answering data sets, so that what was downloaded can be measured as it is.

A layout is recognised by the fields of the first record, never by a file's name. A file is read by itself; of a folder, the one
file of questions is, or those of the split that was asked for. Where questions come without passages, the file of passages that
lies in the same folder is the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eval.layouts import beir, folder, hops, multihop_rag, passages, questions, squad
from eval.layouts.files import rows
from eval.layouts.languages import settled
from eval.layouts.parts import Parts, Pool, Question
from eval.layouts.rows import INVALID
from eval.layouts.splits import of_split, splits_of
from rag.errors import InputError

Record = Mapping[str, object]
FOLDER, BEIR = "folder", "beir"
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".json.gz", ".jsonl.gz", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True, slots=True)
class Layout:
    """A kind of question file. `brings`: whether records like this one bring their passages along."""

    name: str
    says: str
    fits: Callable[[Record], bool]
    read: Callable[[Path, Pool], Iterator[Question]]
    brings: Callable[[Record], bool]


def _always(_: Record) -> bool:
    return True


def _never(_: Record) -> bool:
    return False


# In the order of trying: what fits one of the later may be more than that.
LAYOUTS = (
    Layout("squad", "SQuAD 1.1 and 2.0, XQuAD, MLQA, PIAF, CMRC 2018, DRCD", squad.fits, squad.read, _always),
    Layout("hotpotqa", "HotpotQA and 2WikiMultihopQA", hops.fits_hotpot, hops.read_hotpot, _always),
    Layout("musique", "MuSiQue", hops.fits_musique, hops.read_musique, _always),
    Layout("multihop_rag", "MultiHop-RAG, with corpus.json beside it", multihop_rag.fits, multihop_rag.read, _never),
    Layout("popqa", "PopQA, with a file of passages beside it", questions.fits_popqa, questions.read_popqa, _never),
    Layout("flashrag", "FlashRAG", questions.fits_flashrag, questions.read_flashrag, questions.has_contexts),
    Layout("table", "CSV, TSV or JSON with questions and answers", questions.fits_table, questions.read_table,
           questions.has_contexts),
)
NAMES = (FOLDER, BEIR, *(layout.name for layout in LAYOUTS))
_KNOWN = ("Known are: a folder with corpus.jsonl and queries.jsonl (ours or BEIR's); "
          + "; ".join(layout.says for layout in LAYOUTS) + f". Name one of {', '.join(NAMES)} with --layout to insist.")


def read(path: Path, *, layout: str | None = None, split: str | None = None) -> tuple[str, Parts]:
    """The layout's name and what is in `path`, a file or a folder; every question has a language.

    Raises:
        InputError: nothing there, no layout recognised, several files to choose from, or what the layout's reader refuses.
    """
    if layout is not None and layout not in NAMES:
        raise InputError(f"There is no layout {layout!r}.", hint=f"Use one of {', '.join(NAMES)}.", field="layout")
    if not path.exists():
        raise InputError(f"{path} does not exist.", code="dataset_missing",
                         hint="Name a folder with corpus.jsonl and queries.jsonl, or a file or folder of a public data set.")
    name, parts = _read_folder(path, layout, split) if path.is_dir() else _read_file(path, layout, split)
    if not parts.questions:
        raise InputError(f"{path} holds 0 questions.", code=INVALID, hint=f"It was read in the layout {name}.")
    if not parts.passages:
        raise InputError(f"{path} holds questions but no passages to answer them from.", code=INVALID, hint=_CORPUS_HINT)
    texts = {passage.id: passage.text for passage in parts.passages}
    asked = settled(parts.questions, lambda ids: "\n".join(texts[identifier] for identifier in ids))
    return name, replace(parts, questions=asked)


_CORPUS_HINT = ('Put the passages beside the questions as corpus.jsonl, one {"id": "...", "title": "...", "text": "..."} a line, '
                "or give every question a context.")


def _read_folder(path: Path, layout: str | None, split: str | None) -> tuple[str, Parts]:
    if layout == BEIR or (layout is None and beir.fits(path)):
        return BEIR, beir.read(path, split=split)
    if layout == FOLDER or (layout is None and folder.there(path, "queries")):
        _no_split(split, path)
        return FOLDER, folder.read(path)
    asked: dict[Path, Layout] = {}
    broken: InputError | None = None
    for file in _candidates(path):
        try:
            found = _of_record(_first(file), layout)
        except InputError as error:  # not every file beside the data is one of it
            broken = broken or error
            continue
        if found is not None:
            asked[file] = found
    if not asked:
        if broken is not None:
            raise broken
        if folder.there(path, "corpus"):
            folder.read(path)  # says which file is missing
        raise InputError(f"{path} holds no data set in a known layout.", code="dataset_missing", hint=_KNOWN)
    chosen = of_split(list(asked), split, folder=path)
    if len({asked[file].name for file in chosen}) > 1:
        raise InputError(f"{path} holds data sets of several layouts: {_listed(chosen)}.", code=INVALID, hint="Name one file.")
    if len(splits_of(chosen)) > 1:
        raise InputError(f"{path} holds several splits: {_listed(chosen)}.", code=INVALID, field="split",
                         hint=f"Name one file, or convert one split: --split {sorted(splits_of(chosen))[0]}.")
    return asked[chosen[0]].name, _parts(asked[chosen[0]], chosen)


def _read_file(path: Path, layout: str | None, split: str | None) -> tuple[str, Parts]:
    if layout == BEIR:
        return BEIR, beir.read(path.parent, split=split)
    _no_split(split, path)
    first = _first(path)
    if first is None:
        raise InputError(f"{path} holds 0 questions.", code=INVALID, hint=_KNOWN)
    if layout == FOLDER or (layout is None and {"question", "answers", "evidence"} <= set(first)):
        return FOLDER, folder.read(path.parent, queries=path)
    found = _of_record(first, layout)
    if found is None:
        raise InputError(f"{path} is in no known layout; its first record has the fields {', '.join(map(repr, first))}.",
                         code=INVALID, hint=_KNOWN)
    return found.name, _parts(found, [path])


def _parts(layout: Layout, files: Sequence[Path]) -> Parts:
    """The questions of the files, which may share passages; those of each file get their languages by themselves."""
    pool = Pool()
    if not layout.brings(_first(files[0]) or {}):
        corpus = _corpus(files[0].parent, apart_from=files)
        passages.read(corpus, pool)
        pool.notes.append(f"Passages: {corpus.name}.")
    by_file = {file: settled(tuple(layout.read(file, pool)), pool.text) for file in files}
    return Parts(tuple(pool.passages.values()), _together(by_file), tuple(pool.notes))


def _together(by_file: Mapping[Path, tuple[Question, ...]]) -> tuple[Question, ...]:
    """The questions of all files. Parallel sets use one id in several languages: then each id begins with its file's name.

    Raises:
        InputError: an id is that of two questions in the same language.
    """
    owners: dict[tuple[str, str], Path] = {}
    for file, found in by_file.items():
        for question in found:
            other = owners.setdefault((question.id, question.language), file)
            if other != file:
                raise InputError(f"{other} and {file.name} both have a question with the id {question.id!r} in the language "
                                 f"{question.language!r}.", code=INVALID, hint="Name one of the files.", field="id")
    shared = len({identifier for identifier, _ in owners}) < len(owners)
    return tuple(replace(question, id=f"{_stem(file)}:{question.id}") if shared else question
                 for file, found in by_file.items() for question in found)


def _corpus(beside: Path, *, apart_from: Sequence[Path]) -> Path:
    found = []
    for file in _candidates(beside):
        if file in apart_from:
            continue
        try:
            first = _first(file)
        except InputError:  # not every file beside the data is one of it
            continue
        if first is not None and passages.fits(first):
            found.append(file)
    named = [file for file in found if _stem(file) == "corpus"] or found
    if not named:
        raise InputError(f"{apart_from[0]} holds questions but no passages to answer them from, and none lie beside it.",
                         code="dataset_missing", hint=_CORPUS_HINT)
    if len(named) > 1:
        raise InputError(f"{beside} holds several files of passages: {_listed(named)}.", code=INVALID,
                         hint="Keep one of them beside the questions, or call it corpus.jsonl.")
    return named[0]


def _candidates(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(_SUFFIXES))


def _first(path: Path) -> Record | None:
    """The first record; None for a file without any."""
    found = next(rows(path, shape=_KNOWN), None)
    return None if found is None else found.record


def _of_record(record: Record | None, layout: str | None) -> Layout | None:
    """The layout that fits; the one asked for, unless the record is a passage."""
    if record is None:
        return None
    if layout is not None:
        return None if passages.fits(record) else next(known for known in LAYOUTS if known.name == layout)
    return next((known for known in LAYOUTS if known.fits(record)), None)


def _no_split(split: str | None, path: Path) -> None:
    if split is not None:
        raise InputError(f"{path} has no splits to choose from.", hint="Leave out --split.", field="split")


def _stem(path: Path) -> str:
    """The name without the suffixes that say how it is stored."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(file.name for file in files)
