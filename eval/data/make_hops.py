"""Makes `eval/data/hops` from a copy of HotpotQA in the dataset format.

    python -m eval.data.make_hops HOTPOTQA_DIR

Questions drawn from both types, with their gold passages and a few that stand nearest to these in the source: its passages are in
the order of the questions' contexts, so these are near-misses that were written for the same question. The same input gives
the same bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from eval.datasets import Dataset, Passage, Question, load, sampled
from eval.layouts import folder

QUESTIONS = {"bridge": 28, "comparison": 12}
NEAR_MISSES = 3
SEED = 13

README = """# Hops

{questions} questions of HotpotQA that need two passages each, {bridge} of type bridge and {comparison} of type comparison, with
their {gold} gold passages among {others} near-misses: enough to test what a single passage cannot show, small enough to ship.

- `corpus.jsonl`: one passage a line: `id`, `title`, `text`
- `queries.jsonl`: one question a line: `id`, `question`, `answers` (any of which is right), `evidence` (passage ids), `type`,
  `lang`

## Source, licence, attribution

Questions, answers and supporting facts are from HotpotQA by Zhilin Yang, Peng Qi, Saizheng Zhang, Yoshua Bengio, William W. Cohen,
Ruslan Salakhutdinov and Christopher D. Manning, *HotpotQA: A Dataset for Diverse, Explainable Multi-hop Question Answering*
(2018), <https://hotpotqa.github.io/>, licensed under CC BY-SA 4.0 (<https://creativecommons.org/licenses/by-sa/4.0/>). The passages
are first paragraphs of articles of English Wikipedia (<https://en.wikipedia.org>) by its contributors, as HotpotQA distributes
them, under the same licence; each article is named by the `title` of its passage. This folder is licensed under CC BY-SA 4.0 too.

Changed: questions were sampled, passages selected, white space at the ends of passages removed, languages added.

## Making it again

    python -m eval.data.make_hops HOTPOTQA_DIR

where the directory holds `corpus.jsonl[.gz]` and `queries.jsonl[.gz]` of HotpotQA in the format above.
"""


def main(arguments: list[str]) -> int:
    """Exit status 2 where the arguments are wrong."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    source = load(Path(arguments[0]))
    target = Path(__file__).parent / "hops"
    target.mkdir(exist_ok=True)
    questions = _drawn(source)
    gold = {identifier for question in questions for identifier in question.evidence}
    passages = _around(source, questions)
    _write(target / "corpus.jsonl", [_stripped(passage).line() for passage in passages])
    _write(target / "queries.jsonl", [json.dumps(folder.line(question), ensure_ascii=False) for question in questions])
    (target / "README.md").write_text(
        README.format(questions=len(questions), **QUESTIONS, gold=len(gold), others=len(passages) - len(gold)), encoding="utf-8")
    return 0


def _drawn(source: Dataset) -> list[Question]:
    """In file order."""
    order = {question.id: place for place, question in enumerate(source.questions)}
    found: list[Question] = []
    for kind, count in QUESTIONS.items():
        found += sampled([question for question in source.questions if question.type == kind], seed=SEED)[:count]
    return sorted(found, key=lambda question: order[question.id])


def _around(source: Dataset, questions: list[Question]) -> list[Passage]:
    """Gold passages and near-misses, in file order."""
    place = {passage.id: number for number, passage in enumerate(source.passages)}
    gold = {place[identifier] for question in questions for identifier in question.evidence}
    kept = set(gold)
    for question in questions:
        own = [place[identifier] for identifier in question.evidence]
        distances = sorted((min(abs(number - at) for at in own), number) for number in range(len(place)) if number not in gold)
        kept.update(number for _, number in distances[:NEAR_MISSES])
    return [source.passages[number] for number in sorted(kept)]


def _stripped(passage: Passage) -> Passage:
    return Passage(passage.id, passage.title, passage.text.strip())


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
