"""Builds the search graphs of a shard that nobody has open, in a process of its own:

    python -m indexers.qdrant_graphs FOLDER

The library holds the interpreter lock for as long as that takes, minutes for a large shard, and would freeze whoever serves.
"""

from __future__ import annotations

import sys


def main(folder: str) -> None:
    import qdrant_edge

    shard = qdrant_edge.EdgeShard.load(folder)
    shard.optimize()
    shard.flush()
    shard.close()


if __name__ == "__main__":
    main(sys.argv[1])
