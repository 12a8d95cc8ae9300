"""What a system gave back for one question: the shape that ours, the baselines and the peers share, and that is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rag.types import Answer, Citation, Context, Prepared, Verdict


@dataclass(frozen=True, slots=True)
class Shown:
    """One passage as it stood in the prompt. `text` without its heading."""

    doc_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """`text` and `verdict` are None where the reader was not asked: only the context is to be judged then.

    Tokens by the reader's tokenizer; `context_tokens` as rendered, `prompt_tokens` with everything around it, over all
    calls. `citations` is None for systems that give none. `seconds` by stage, "total" among them.
    """

    context: str
    context_tokens: int
    passages: tuple[Shown, ...]
    text: str | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    citations: tuple[Citation, ...] | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    naive_tokens: int | None = None
    llm_calls: int = 0
    encoder_passes: int = 0
    cost_usd: float = 0.0
    energy_wh: float = 0.0
    water_ml: float = 0.0
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def read(self) -> bool:
        return self.text is not None


def of_answer(answer: Answer) -> Reply:
    bill = answer.receipt
    return Reply(
        context=answer.context.text, context_tokens=answer.context.tokens, passages=shown(answer.context), text=answer.text,
        verdict=answer.verdict, reason=answer.reason, citations=answer.citations, prompt_tokens=bill.prompt_tokens,
        completion_tokens=bill.completion_tokens, cached_tokens=bill.cached_tokens, naive_tokens=bill.naive_tokens,
        llm_calls=bill.llm_calls, encoder_passes=bill.encoder_passes, cost_usd=bill.cost_usd, energy_wh=bill.energy_wh,
        water_ml=bill.water_ml, seconds=bill.seconds)


def of_prepared(made: Prepared) -> Reply:
    return Reply(context=made.context.text, context_tokens=made.context.tokens, passages=shown(made.context),
                 reason=made.reason, prompt_tokens=made.prompt_tokens, naive_tokens=made.naive_tokens,
                 encoder_passes=made.encoder_passes, seconds=made.seconds)


def shown(context: Context) -> tuple[Shown, ...]:
    return tuple(Shown(passage.chunk.doc_id, " ".join(passage.chunk.sentence(index) for index in passage.sentences))
                 for passage in context.passages)
