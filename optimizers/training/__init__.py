"""Fitting what the selectors ship with. Run as modules; nothing here is imported to answer a question."""
