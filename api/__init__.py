"""The REST service: a thin face over `rag.thriftrag`. Answers, errors and receipts are those of the command line."""
