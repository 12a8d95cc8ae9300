"""The stages of a question, each a function of the question's state (`run.Run`) and of what serves it (`served.Served`).

`rag.pipeline` puts them in order. Each adds one step with its time and facts to the trace.
"""
