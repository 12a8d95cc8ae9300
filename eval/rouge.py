"""ROUGE-L (Lin 2004, "ROUGE: a package for automatic evaluation of summaries", section 3): overlap that respects word order.

F-measure with equal weight for precision and recall, over token lists that the caller has normalised. Departure: two empty
lists agree (1), as in the token F1 of SQuAD 2.0; the package gives them 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def rouge_l(said: Sequence[str], wanted: Sequence[str]) -> float:
    """F-measure of the longest common subsequence (section 3.1)."""
    return _f_measure(_lengths(wanted, said)[-1][-1], said=len(said), wanted=len(wanted))


def rouge_l_of_all(said: Sequence[str], parts: Sequence[Sequence[str]]) -> float:
    """F-measure of `said` against several texts that are all wanted, in any order (section 3.2, the summary level).

    A token of `said` counts once, however many parts it is common to, as in release 1.5.5 of the package.
    """
    left, hits = Counter(said), 0
    for part in parts:
        for token in _common(part, said):
            if left[token] > 0:
                left[token] -= 1
                hits += 1
    return _f_measure(hits, said=len(said), wanted=sum(map(len, parts)))


def _f_measure(common: int, *, said: int, wanted: int) -> float:
    # 2 P R / (P + R) with P = common / said and R = common / wanted.
    return float(said == wanted) if not said or not wanted else 2 * common / (said + wanted)


def _lengths(wanted: Sequence[str], said: Sequence[str]) -> list[list[int]]:
    """Row i, column j: length of the longest common subsequence of the first i and the first j tokens."""
    table = [[0] * (len(said) + 1)]
    for token in wanted:
        above, row = table[-1], [0]
        for column, other in enumerate(said):
            row.append(above[column] + 1 if token == other else max(above[column + 1], row[column]))
        table.append(row)
    return table


def _common(wanted: Sequence[str], said: Sequence[str]) -> list[str]:
    """The tokens of one longest common subsequence."""
    table = _lengths(wanted, said)
    row, column, found = len(wanted), len(said), []
    while row and column:
        if wanted[row - 1] == said[column - 1]:
            found.append(wanted[row - 1])
            row, column = row - 1, column - 1
        elif table[row][column - 1] > table[row - 1][column]:
            column -= 1
        else:
            row -= 1
    return found
