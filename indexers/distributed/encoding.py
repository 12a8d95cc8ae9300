"""`RayEncoder`: an `Encoder` whose passages are encoded by actors on the nodes of a Ray cluster.

Texts are sorted by length and divided where the encoder itself would divide them (`indexers.encoders.openvino.batches`), so
each batch that goes through the model is one that a single machine would have made: same padding, same vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from indexers.distributed.connection import Connection
from indexers.distributed.models import Described, Plan, plan_of
from indexers.distributed.pool import Pool
from indexers.distributed.remote import Encoded
from indexers.distributed.slices import sliced
from indexers.encoders import Padding, Vectors
from indexers.encoders.openvino import padding
from indexers.impacts import NOTHING, Impacts, Query, Statistics
from rag.settings import Settings


class RayEncoder:
    """Fulfils `Encoder`: what it is and counts comes from the driver's tokenizer, vectors from the cluster. Close it at the end.

    `plan` says what is opened, by default the settings' embedder; `node_models` where nodes keep model files.

    Raises:
        ConfigError, ModelUnavailable, ModelCorrupt: the driver itself does not have the model.
    """

    def __init__(self, there: Connection, *, settings: Settings, plan: Plan | None = None, node_models: Path | None = None) -> None:
        chosen = plan or plan_of(settings, node_models=node_models)
        self._tokens = chosen.local()
        self.name = self._tokens.name
        self.dimension = self._tokens.dimension
        self.max_tokens = self._tokens.max_tokens
        self.terms = getattr(self._tokens, "terms", None)
        self.padding = Padding()
        self._pool = Pool(there, plan=chosen, tokens=self._tokens, threads=settings.threads)
        self._lock = Lock()
        self._called = False

    @property
    def shares(self) -> dict[str, int]:
        """Slices encoded so far, by node id."""
        return dict(self._pool.done)

    def count(self, texts: Sequence[str]) -> list[int]:
        """As `Encoder` says. The first call also brings the actors on their way: there is something to encode."""
        if not self._called:
            self._called = True
            with self._lock:
                self._pool.start()
        return self._tokens.count(texts)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self._tokens.offsets(text)

    def encode(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None) -> Vectors:
        """Unit vectors in the order given. One call computes at a time.

        Raises:
            EncodingFailed: passages that no encoder survived.
            ClusterUnavailable: no node can encode.
            RagError: what the encoder itself refused.
        """
        return self._encoded(texts, with_terms=False, on_batch=on_batch)[0]

    def encode_with_terms(self, texts: Sequence[str], *, on_batch: Callable[[int], None] | None = None
                          ) -> tuple[Vectors, list[Impacts]]:
        """As `TermWeights` says; only where `terms` is not None. Raises as `encode`."""
        return self._encoded(texts, with_terms=True, on_batch=on_batch)

    def query(self, text: str, *, statistics: Statistics | None = None) -> Query:
        assert isinstance(self._tokens, Described), "without term weights there are no queries for them"
        return self._tokens.query(text, statistics=statistics)

    def _encoded(self, texts: Sequence[str], *, with_terms: bool, on_batch: Callable[[int], None] | None
                 ) -> tuple[Vectors, list[Impacts]]:
        vectors = np.empty((len(texts), self.dimension), np.float32)
        impacts: list[Impacts] = [NOTHING] * len(texts)
        done = 0
        with self._lock:
            lengths = [min(length, self.max_tokens) for length in self._tokens.count(texts)]
            slices = sliced(texts, lengths=lengths, actors=self._pool.planned())

            def keep(number: int, part: Encoded) -> None:
                nonlocal done
                positions = list(slices[number].positions)
                vectors[positions], weighed = part
                for at, one in zip(positions, weighed.impacts if weighed else (), strict=weighed is not None):
                    impacts[at] = one
                done += len(positions)
                if on_batch is not None:
                    on_batch(done)

            self._pool.run(slices, with_terms=with_terms, on_done=keep)
            if isinstance(self._tokens, Described):
                self.padding += padding(lengths, limit=self.max_tokens)
        return vectors, impacts

    def close(self) -> None:
        self._pool.close()
