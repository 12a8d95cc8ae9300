"""The report of a run: one page, Markdown, and plots, made from the run folder without a reader.

    records    what the folder holds          groups     the summary by data set, the macro mean first
    tables     rows and columns               headline   what each token buys, in sentences
    traces     wins and losses                spending   where tokens and seconds go
    html, svg, markdown, plots                what is written; write.py puts it together
"""

from eval.report.markdown import as_markdown
from eval.report.records import write_questions
from eval.report.write import Paths, remake, write_report

__all__ = ["Paths", "as_markdown", "remake", "write_questions", "write_report"]
