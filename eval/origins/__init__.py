"""The ways to rank a data set's chunks, each from scores of all of them, so that they can be compared and fused in one run.

A set is chunked as a collection would be, encoded once for each model, and what was encoded is remembered on disk. Scores are
exhaustive: they are those that the indexes give, without the indexes.
"""
