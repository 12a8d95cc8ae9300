"""`thriftrag eval convert`: a public data set as a folder in our format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import checks, interrupt, options, session, terminal
from rag.errors import InputError

if TYPE_CHECKING:
    from eval.convert import Converted

EXAMPLES = options.examples(
    "thriftrag eval convert dev-v2.0.json squad2                      # SQuAD, XQuAD, MLQA, PIAF, CMRC 2018, DRCD",
    "thriftrag eval convert hotpot_dev_distractor_v1.json hotpot --limit 500",
    "thriftrag eval convert scifact/ scifact-test --split test        # a BEIR folder",
    "thriftrag eval convert popQA.tsv popqa                           # with its passages beside it as corpus.jsonl",
    "thriftrag eval convert faq.csv faq                               # columns question, answer, and context if there is one",
)


def convert(
    source: Annotated[Path, typer.Argument(
        metavar="SOURCE", help="File or folder of a public data set, plain or compressed with gzip.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.", show_default=False)],
    layout: Annotated[str | None, typer.Option(
        "--layout", metavar="NAME",
        help="Insist on a layout: folder, beir, squad, hotpotqa, musique, multihop_rag, popqa, flashrag, table. "
             "Default: told by the first record.")] = None,
    split: Annotated[str | None, typer.Option(
        "--split", metavar="NAME", help="Of a folder with several, for instance dev. Default of BEIR: test.")] = None,
    limit: Annotated[str | None, typer.Option(
        "--limit", metavar="N", help="Draw N questions; all passages stay. Default: all.")] = None,
    seed: Annotated[str, typer.Option("--seed", metavar="S", help="Seed of the draw; a smaller N is part of a larger.")] = "13",
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Write a public data set as a folder with corpus.jsonl, queries.jsonl and a README.md that says where it is from.

    Not needed to measure: `eval run` and the others take the same files and folders as they are. It is for keeping a sample,
    choosing a split, or looking at what was read. OUT appears when it is complete.
    """
    from eval import convert as converting
    from eval.layouts import NAMES

    wanted = checks.choice(layout, flag="--layout", known=NAMES)
    count, drawn = _whole(limit, "--limit", least=1) if limit is not None else None, _whole(seed, "--seed", least=0)
    session.settings(home=home, verbose=verbose)
    found = interrupt.complete(lambda: converting.convert(source, out, layout=wanted, split=split, limit=count, seed=drawn),
                               kept="Nothing was written.")
    if as_json:
        terminal.print_json({**found.to_dict(), "out": str(found.out)})
    else:
        _tell(found)


def _whole(typed: str, flag: str, *, least: int) -> int:
    if not typed.isdecimal() or int(typed) < least:
        raise InputError(f"{flag} {typed!r} is not a whole number from {least}.", field=flag.lstrip("-"),
                         hint=f"Use for instance {flag} 200.")
    return int(typed)


def _tell(found: Converted) -> None:
    from rag.cli import tables

    def counts(values: dict[str, int]) -> str:
        return ", ".join(f"{terminal.one_line(name)} {count:,}" for name, count in values.items())

    drawn = f" of {found.questions_in_source:,}" if found.questions < found.questions_in_source else ""
    rows = [("written to", terminal.one_line(str(found.out))), ("layout", found.layout), ("passages", f"{found.passages:,}"),
            ("questions", f"{found.questions:,}{drawn}"), ("with an answer", f"{found.answerable:,}"),
            ("to be declined", f"{found.unanswerable:,}"), ("with evidence", f"{found.with_evidence:,}"),
            ("types", counts(found.types)), ("languages", counts(found.languages)),
            *(("note", terminal.one_line(note)) for note in found.notes)]
    terminal.console(sys.stdout).print(tables.grid(rows))
