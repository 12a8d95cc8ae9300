"""What one answer cost. Tokens and seconds are measured; money follows from a price table; energy, water and carbon are
estimates and the receipt says so.

    energy = T * P                         T seconds of model work, P watts        (idealised runtime: HELM's efficiency metrics)
    water  = e * WUE_on + e * PUE * EWIF    e in kWh, litres per kWh on site and per kWh generated   ("Making AI Less Thirsty")
    carbon = e * PUE * intensity            grams per kWh
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rag.errors import CostExceeded
from rag.settings import Settings
from rag.types import Receipt, Usage


def energy_wh(seconds: float, *, watts: float) -> float:
    return seconds * watts / 3600


def cost_usd(usage: Usage, *, settings: Settings, local_wh: float) -> float:
    """Money for the tokens, plus electricity where the model runs here."""
    fresh = usage.prompt_tokens - usage.cached_tokens
    tokens = (fresh * settings.price_prompt + usage.cached_tokens * settings.price_cached
              + usage.completion_tokens * settings.price_completion) / 1e6
    return tokens + local_wh / 1000 * settings.price_kwh


def affordable_context(*, max_cost: float, fixed_tokens: int, settings: Settings) -> int | None:
    """The most context tokens that keep the worst case (longest answer, nothing cached) within `max_cost`; None: any.

    Raises:
        CostExceeded: even an empty context would cost more; states the minimum.
    """
    least = cost_usd(Usage(prompt_tokens=fixed_tokens, completion_tokens=settings.reader_max_tokens), settings=settings, local_wh=0)
    if least > max_cost:
        raise CostExceeded(f"A ceiling of ${max_cost:g} is under the ${least:.6f} that this question costs without any context.",
                           hint="Raise --max-cost, lower reader_max_tokens, or choose a cheaper reader.", field="max_cost_usd")
    if settings.price_prompt == 0:
        return None
    return int((max_cost - least) / settings.price_prompt * 1e6)


def receipt(usage: Usage, *, settings: Settings, local: bool, exact_tokens: bool, counted: bool, budget_tokens: int,
            context_tokens: int, naive_tokens: int, model: str, seconds: Mapping[str, float], encoder_s: float,
            guessed: Sequence[str] = ()) -> Receipt:
    """`exact_tokens`: our tokenizer is the reader's. `counted`: the reader counted prompt and completion itself, or was not asked.
    `guessed`: further fields that are no measurements. `encoder_s`: seconds of encoder work on this machine. `naive_tokens` and
    `usage.prompt_tokens` count whole prompts."""
    here = energy_wh(encoder_s + (usage.llm_seconds if local else 0.0), watts=settings.power_watts)
    there = 0.0 if local else energy_wh(usage.llm_seconds, watts=settings.server_power_watts)
    kwh = (here + there) / 1000
    litres = kwh * settings.water_onsite_l_kwh + kwh * settings.pue * settings.water_offsite_l_kwh
    estimates = ["energy_wh", "water_ml", "co2_g"]
    if settings.price_kwh and local:
        estimates.append("cost_usd")
    if not exact_tokens:
        estimates.extend(("context_tokens", "naive_tokens", "saved_tokens"))
    if not counted:
        estimates.extend(("prompt_tokens", "completion_tokens"))
    estimates.extend(name for name in guessed if name not in estimates)
    return Receipt(
        budget_tokens=budget_tokens, context_tokens=context_tokens, prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens, cached_tokens=usage.cached_tokens, llm_calls=usage.llm_calls,
        encoder_passes=usage.encoder_passes, model=model, cost_usd=cost_usd(usage, settings=settings, local_wh=here),
        seconds=seconds, naive_tokens=naive_tokens, saved_tokens=naive_tokens - usage.prompt_tokens,
        energy_wh=here + there, water_ml=litres * 1000, co2_g=kwh * settings.pue * settings.carbon_g_kwh,
        estimates=tuple(estimates))
