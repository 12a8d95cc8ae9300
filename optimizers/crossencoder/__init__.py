"""The cross-encoder: does a passage help to answer a question, and which of its sentences do."""
