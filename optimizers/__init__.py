"""Choosing the set of passages that is worth reading under a budget. Pure: no files, no network, no model."""

from __future__ import annotations

from collections.abc import Mapping

from optimizers.fill import fill_by_rank, fill_by_similarity
from optimizers.greedy import choose_greedily
from optimizers.pool import Selector

SELECTORS: Mapping[str, Selector] = {"greedy": choose_greedily, "sentences": fill_by_similarity, "topk": fill_by_rank}
