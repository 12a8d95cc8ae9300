"""Trains the term weights of TILDEv2 on top of a frozen dense encoder: `python -m indexers.training.tilde --help`.

    corpus      data folders -> passages, real and made-up queries, held-out slices
    states      passages -> the backbone's hidden states on disk, computed once: the backbone never changes
    mining      queries -> hard candidates from BM25 and from the dense vectors
    teacher     SPLADE-tiny, whose term weights were learnt from searches
    network     what is trained; to and from the file that ingestion reads
    losses      contrast, distillation, likelihood of question tokens, sparsity
    loop        batches, steps, checkpoints; a killed run goes on to the same weights
    dev         ranking on what was held out
    card        curves and the model card
"""
