"""Choosing the set of passages that is worth reading under a budget. Selectors are pure: no files, no network, no model; what a
model says about candidates (`optimizers.crossencoder`) comes with the pool."""

from __future__ import annotations

from collections.abc import Mapping

from optimizers.adagres import choose_by_adagres
from optimizers.carrot import choose_by_carrot
from optimizers.fill import fill_by_rank, fill_by_similarity, fill_with_whole_chunks
from optimizers.greedy import choose_greedily
from optimizers.knapsack import choose_by_knapsack
from optimizers.mmr import choose_by_mmr
from optimizers.pool import Selector
from optimizers.searching import choose_by_beam, choose_by_mcts, choose_exactly, choose_lazily

SELECTORS: Mapping[str, Selector] = {
    "topk": fill_by_rank,
    "topk_whole": fill_with_whole_chunks,
    "sentences": fill_by_similarity,
    "mmr": choose_by_mmr,
    "knapsack": choose_by_knapsack,
    "adagres": choose_by_adagres,
    "carrot": choose_by_carrot,
    "greedy": choose_greedily,
    "lazy": choose_lazily,
    "beam": choose_by_beam,
    "exact": choose_exactly,
    "mcts": choose_by_mcts,
}

# Those that never cut a chunk.
WHOLE = frozenset({"topk_whole", "mmr", "knapsack", "adagres", "carrot"})
# Those that go by the chance that a sentence answers (`optimizers.relevance`), which the cross-encoder sharpens.
BY_CHANCE = frozenset({"greedy", "lazy", "beam", "exact", "mcts"})
