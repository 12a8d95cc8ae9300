"""Answers, receipts, traces and hits as text for people. Each function returns something a rich console prints.

Whatever comes from documents or models passes `terminal.clean` or `terminal.one_line`; estimates carry a tilde.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import ROUNDED, SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rag.cli import candidates, terms
from rag.cli.tables import grid
from rag.cli.terminal import clean, one_line
from rag.cli.words import money, plural
from rag.types import Answer, Citation, Hit, Receipt, Step

_QUOTE_CHARS = 240
_FACT_CHARS = 60
_BAR_CELLS = 24
# Facts of a step that are shown apart.
_TABLES = frozenset({"considered", "degraded", "next_best", "terms"})


def outcome(value: Answer) -> Text | None:
    """Why this is no full answer, or what to be careful about; None when there is nothing to say."""
    if value.verdict == "answered" and not value.reason:
        return None
    label = {"answered": "Note", "abstained": "No answer", "degraded": "Degraded"}[value.verdict]
    return Text.assemble((f"{label}: ", "bold yellow"), one_line(value.reason or "no reason was given"))


def citation(value: Citation) -> Text:
    page = f", page {value.page}" if value.page is not None else ""
    return Text.assemble((f"[{value.n}] ", "bold"), (one_line(value.source) + page, "cyan"), ": “",
                         one_line(value.quote, limit=_QUOTE_CHARS), "”")


def receipt(value: Receipt) -> Panel:
    """The bill in one panel."""
    def marked(name: str, text: str) -> str:
        return f"~{text}" if name in value.estimates else text

    prompt = marked("prompt_tokens", f"{value.prompt_tokens:,}")
    completion = marked("completion_tokens", f"{value.completion_tokens:,}")
    rows: list[tuple[str, str | Text]] = [
        ("context", _share(value, marked("context_tokens", f"{value.context_tokens:,}"))),
        ("prompt", f"{prompt} tokens, {value.cached_tokens:,} of them cached; answer {completion}"),
        ("saved", _saved(value, marked("naive_tokens", f"{value.naive_tokens:,}"))),
        ("cost", marked("cost_usd", money(value.cost_usd))),
        ("time", _times(value.seconds)),
        ("footprint", "  ".join((marked("energy_wh", f"{value.energy_wh:.3g} Wh"),
                                 marked("water_ml", f"{value.water_ml:.3g} mL water"),
                                 marked("co2_g", f"{value.co2_g:.3g} g CO₂")))),
        ("model", f"{one_line(value.model) or 'none'}, {plural(value.llm_calls, 'call')}, "
                  f"{plural(value.encoder_passes, 'encoder pass', 'encoder passes')}"),
    ]
    return Panel(grid(rows), title="receipt", title_align="left", box=ROUNDED, expand=False, border_style="dim",
                 padding=(0, 1))


def trace(steps: Sequence[Step]) -> RenderableType:
    """Every candidate with its fate, the next best set, then every stage with its time and facts."""
    chosen = [part for step in steps if step.stage == "select" for part in candidates.choice(step.facts)]
    passages = [row for step in steps if step.stage == "select" for row in _rows(step.facts.get("terms"))]
    stages = Table("stage", box=SIMPLE_HEAD, pad_edge=False)
    stages.add_column("seconds", justify="right")
    stages.add_column("facts", overflow="fold")
    for step in steps:
        told = "  ".join(f"{name}={_fact(fact)}" for name, fact in step.facts.items() if name not in _TABLES)
        stages.add_row(one_line(step.stage), f"{step.seconds:.3f}", one_line(told))
    return Group(*chosen, *_terms(passages), stages)


def note(text: str) -> Text:
    return Text.assemble(("Note: ", "bold yellow"), one_line(text))


def hits(values: Sequence[Hit], *, explain: bool = False) -> RenderableType:
    """Rank, place and scores on one line, the passage below it; with `explain` how it was found."""
    parts: list[RenderableType] = []
    most = max((terms.most_of(hit.explain or ()) for hit in values), default=0.0)
    for rank, hit in enumerate(values, start=1):
        page = f", page {hit.chunk.page}" if hit.chunk.page is not None else ""
        origins = () if explain else hit.origins.items()
        scores = "  ".join([f"score {hit.score:.4g}", *(f"{name} {score:.4g}" for name, score in origins)])
        place = one_line(hit.chunk.source) + page
        parts.append(Text.assemble((f"{rank:>3}  ", "bold"), (place, "cyan"), (f"  {scores}", "dim")))
        parts.append(Text(f"     {one_line(hit.chunk.text, limit=_QUOTE_CHARS)}"))
        if explain:
            parts.append(terms.explained(hit, most=most))
    return Group(*parts)


def answer_text(value: Answer) -> str:
    return clean(value.text).strip()


def _share(value: Receipt, spent: str) -> Text:
    share = value.context_tokens / value.budget_tokens if value.budget_tokens else 0.0
    filled = min(_BAR_CELLS, round(share * _BAR_CELLS))
    return Text.assemble(f"{spent} of {value.budget_tokens:,} tokens  ", ("━" * filled, "green"),
                         ("─" * (_BAR_CELLS - filled), "dim"), f"  {share:.0%}")


def _saved(value: Receipt, naive: str) -> str:
    if value.naive_tokens <= 0:
        return "nothing to compare with: rank-order fill found nothing either"
    if value.saved_tokens < 0:
        return f"nothing: {-value.saved_tokens:,} tokens more than the {naive} of rank-order fill"
    share = value.saved_tokens / value.naive_tokens
    return f"{value.saved_tokens:,} of {naive} prompt tokens against rank-order fill ({share:.0%})"


def _times(seconds: Mapping[str, float]) -> str:
    told = {one_line(name): spent for name, spent in seconds.items() if name != "total" and spent >= 0.005}
    stages = ", ".join(f"{name} {spent:.2f}" for name, spent in told.items())
    total = f"{seconds.get('total', 0.0):.2f} s"
    return f"{total}: {stages}" if stages else total


def _terms(passages: Sequence[Mapping[str, object]]) -> list[RenderableType]:
    """Under the source of each chosen passage the terms that it was found by."""
    rows = [(one_line(str(passage.get("source", ""))), _rows(passage.get("terms"))) for passage in passages]
    weights = [match.get("weight") for _, matches in rows for match in matches]
    most = max((float(weight) for weight in weights if isinstance(weight, (int, float))), default=0.0)
    return [Group(Text(f"terms of the question in {source}", style="bold"), *terms.table(matches, most=most), Text(""))
            for source, matches in rows]


def _fact(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"[{one_line(', '.join(map(str, value)), limit=_FACT_CHARS)}]"
    return one_line(str(value), limit=_FACT_CHARS)


def _rows(value: object) -> list[Mapping[str, object]]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, (list, tuple)) else []
