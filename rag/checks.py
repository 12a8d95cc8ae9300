"""What a caller sends, checked and cleaned once, before anything is paid for."""

from __future__ import annotations

import math
import unicodedata

from optimizers import SELECTORS
from rag.errors import BudgetError, ConfigError, InputError, QuestionEmpty, QuestionTooLong
from rag.settings import Settings
from rag.types import Budget


def clean_question(question: str, *, limit: int) -> str:
    """The question as every stage sees it: NFC, one line, no control characters.

    Raises:
        InputError, QuestionEmpty, QuestionTooLong: naming the value and the fix.
    """
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"The question holds a broken character at position {error.start}.", field="question",
                         hint="Send it as valid UTF-8.", code="question_invalid") from error
    if len(question) > limit:
        raise QuestionTooLong(f"A question of {len(question)} characters is over the limit of {limit}.", field="question",
                              hint="Shorten it, or raise the setting max_question_chars.")
    visible = "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cn") else " " if c.isspace() else ""
                      for c in unicodedata.normalize("NFC", question))
    cleaned = " ".join(visible.split())
    if not cleaned:
        raise QuestionEmpty("The question is empty.", hint="Ask something.", field="question")
    return cleaned


def checked_budget(settings: Settings, *, tokens: int | None, cost: float | None, seconds: float | None) -> Budget:
    """Ceilings from the call, else from the settings; 0 in the settings sets none.

    Raises:
        BudgetError: one that cannot be met by anything, naming it.
    """
    for name, value in (("budget_tokens", tokens), ("max_cost_usd", cost), ("deadline_s", seconds)):
        if value is not None and (not math.isfinite(value) or value <= 0):
            raise BudgetError(f"{name} = {value} is not possible.", hint="Use a number above 0.", field=name)
    return Budget(context_tokens=settings.budget_tokens if tokens is None else tokens,
                  cost_usd=cost or settings.max_cost_usd or None, seconds=seconds or settings.deadline_s or None)


def checked_selector(name: str) -> str:
    if name not in SELECTORS:
        raise ConfigError(f"Unknown selector {name!r}.", hint=f"Use one of {', '.join(SELECTORS)}.", field="selector")
    return name
