"""Trains the cross-encoder: `python -m optimizers.training.crossencoder --data DIR... --out DIR`.

Everything is kept below --out and found again by the next run: hidden states, negatives, the checkpoint. A run that was killed
goes on where its last checkpoint was and ends with the same weights; a run with other settings needs another --out. Needs the
extra `torch`, and `plots` for the curves.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from indexers.training.telling import as_command, telling
from rag.errors import RagError

_MODULE = "optimizers.training.crossencoder"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        import torch

        from optimizers.training.crossencoder.run import run
    except ImportError as error:
        print(f"Training needs torch, which is not installed ({error}). pip install 'thriftrag[torch,plots]'", file=sys.stderr)
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        run(options, command=as_command(_MODULE, sys.argv[1:] if arguments is None else arguments), on_progress=telling())
    except RagError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m {_MODULE}", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", nargs="+", type=Path, required=True, metavar="DIR", help="data sets to train on; a slice of each is held out")
    add("--sanity", nargs="*", type=Path, default=[], metavar="DIR", help="data sets of another style, to look at")
    add("--out", type=Path, required=True, help="where everything goes")
    add("--backbone", type=Path, help="folder of a BERT encoder as it was published (default: --model is fetched)")
    add("--model", default="all-minilm-l6-v2", help="registry name of the backbone (default all-minilm-l6-v2)")
    add("--tap", type=int, default=3, help="backbone layers that question and passage pass apart (default 3)")
    add("--steps", type=int, default=1500)
    add("--seed", type=int, default=13)
    add("--device", default="cpu", help="cpu or cuda")
    add("--bf16", action="store_true", help="compute in bf16 where that is safe")
    add("--threads", type=int, default=0, help="of torch; 0: as it likes")
    add("--tokens", type=int, default=160, help="of a passage that training reads (default 160)")
    add("--depth", type=int, default=8, help="hard candidates from BM25 and as many from the dense vectors (default 8)")
    add("--most", type=int, default=40_000, help="queries to draw from, half of them real (default 40000)")
    add("--largest", type=int, default=4000, help="passages of a data set at most, the first (default 4000)")
    add("--every", type=int, default=300, help="steps between checkpoints with a look at the slices (default 300)")
    add("--limit", type=int, default=None, help="passages of each data set at most, for a trial")
    return parser


if __name__ == "__main__":
    sys.exit(main())
