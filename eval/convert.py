"""Writes a data set of any layout as a folder of ours, so that it can be kept, looked at and shared as it was measured."""

from __future__ import annotations

import gzip
import json
import shlex
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eval.datasets import SEED, Dataset, Question, chosen, counted, load
from eval.layouts import folder
from rag.durable import sha256_of, sync_folder, sync_tree
from rag.errors import InputError

# Larger files are compressed, as in the published sets of this format.
COMPRESS_OVER_BYTES = 150_000


@dataclass(frozen=True, slots=True)
class Converted:
    """What was written, and from what. `digest` is that of the data set that `load` makes of the folder."""

    source: str
    out: Path
    layout: str
    passages: int
    questions: int
    questions_in_source: int
    answerable: int
    unanswerable: int
    with_evidence: int
    types: dict[str, int]
    languages: dict[str, int]
    notes: tuple[str, ...]
    digest: str

    def to_dict(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def convert(source: Path, out: Path, *, layout: str | None = None, split: str | None = None, limit: int | None = None,
            seed: int = SEED) -> Converted:
    """Reads `source` as `eval.datasets.load` does and writes it to `out`, a folder that appears when it is complete.

    With `limit`, that many questions drawn with `seed`; all passages stay, so that search is as hard as it was. Questions and
    passages keep the order of the source. The same input gives the same bytes.

    Raises:
        InputError: what `load` raises, or `out` is there already and not an empty folder.
    """
    out = out.expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already.", field="out", hint="Name a new folder, or remove that one first.")
    dataset = load(source, layout=layout, split=split)
    kept = {question.id for question in chosen(dataset, limit=limit, seed=seed)}
    questions = [question for question in dataset.questions if question.id in kept]
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        _write(aside, "corpus", (passage.line() for passage in dataset.passages))
        _write(aside, "queries", (json.dumps(folder.line(question), ensure_ascii=False) for question in questions))
        digest = load(aside).digest
        facts = _facts(dataset, questions, source=source, out=out, digest=digest)
        (aside / "README.md").write_text(_readme(facts, source, split=split, limit=limit, seed=seed), encoding="utf-8")
        aside.chmod(0o755)
        sync_tree(aside)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync_folder(out.parent)
    return facts


def _write(target: Path, stem: str, lines: Iterable[str]) -> None:
    """`stem`.jsonl, or `stem`.jsonl.gz where it would be large."""
    plain = target / f"{stem}.jsonl"
    with plain.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in lines)
    if plain.stat().st_size <= COMPRESS_OVER_BYTES:
        return
    # Neither name nor time in the archive: the same lines are the same bytes.
    with plain.open("rb") as read, (target / f"{stem}.jsonl.gz").open("wb") as raw, \
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        shutil.copyfileobj(read, packed)
    plain.unlink()


def _facts(dataset: Dataset, questions: list[Question], *, source: Path, out: Path, digest: str) -> Converted:
    return Converted(
        source=source.resolve().name, out=out, layout=dataset.layout, passages=len(dataset.passages), questions=len(questions),
        questions_in_source=len(dataset.questions), answerable=sum(bool(question.answers) for question in questions),
        unanswerable=sum(question.unanswerable for question in questions),
        with_evidence=sum(bool(question.evidence) for question in questions),
        types=counted(question.type for question in questions),
        languages=counted(question.language for question in questions), notes=dataset.notes, digest=digest)


def _readme(facts: Converted, source: Path, *, split: str | None, limit: int | None, seed: int) -> str:
    command = ["thriftrag", "eval", "convert", facts.source, facts.out.name, "--layout", facts.layout]
    command += ["--split", split] if split else []
    command += ["--limit", str(limit), "--seed", str(seed)] if limit is not None else []
    checksum = f" (sha256 {sha256_of(source.expanduser())})" if source.expanduser().is_file() else ""
    drawn = "" if facts.questions == facts.questions_in_source else f", drawn from {facts.questions_in_source} with seed {seed}"
    rows = [f"- source: {facts.source}{checksum}", f"- layout: {facts.layout}", f"- documents in the corpus: {facts.passages}",
            f"- queries: {facts.questions}{drawn}", f"- with an answer: {facts.answerable}; where declining is right: "
            f"{facts.unanswerable}; with gold evidence: {facts.with_evidence}", f"- query types: {_counts(facts.types)}",
            f"- languages: {_counts(facts.languages)}", f"- digest: {facts.digest}", *(f"- {note}" for note in facts.notes)]
    listed = "\n".join(rows)
    return f"""# {facts.out.name}

{listed}

Made with

    {shlex.join(command)}

The licence is that of the source, which this folder does not know: add it before you pass the data on.
"""


def _counts(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in values.items())
