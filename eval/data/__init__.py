"""Data that ships with the code: the sample corpus, and the commands that make it from its source."""
