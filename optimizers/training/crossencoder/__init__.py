"""Trains the cross-encoder of `optimizers.crossencoder`; see `__main__`."""
