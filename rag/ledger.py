"""What one answer cost. Tokens and seconds are measured; money follows from a price table; energy, water and carbon are
estimates and the receipt says so.

    energy = T * P                         T seconds of model work, P watts        (idealised runtime: HELM's efficiency metrics)
    water  = e * WUE_on + e * PUE * EWIF    e in kWh, litres per kWh on site and per kWh generated   ("Making AI Less Thirsty")
    carbon = e * PUE * intensity            grams per kWh
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.errors import CostExceeded
from rag.settings import Settings
from rag.types import Receipt, Usage


def energy_wh(seconds: float, *, watts: float) -> float:
    return seconds * watts / 3600


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens."""

    prompt: float
    cached: float
    completion: float

    def of(self, usage: Usage) -> float:
        fresh = usage.prompt_tokens - usage.cached_tokens
        return (fresh * self.prompt + usage.cached_tokens * self.cached + usage.completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class Second:
    """What another reader than the main one took for the same answer."""

    usage: Usage
    prices: Prices
    local: bool


def prices(settings: Settings) -> Prices:
    return Prices(settings.price_prompt, settings.price_cached, settings.price_completion)


def small_prices(settings: Settings) -> Prices:
    return Prices(settings.price_small_prompt, settings.price_small_cached, settings.price_small_completion)


def cost_usd(usage: Usage, *, settings: Settings, local_wh: float) -> float:
    """Money for the tokens, plus electricity where the model runs here."""
    return prices(settings).of(usage) + local_wh / 1000 * settings.price_kwh


def worst_usd(*, prompt_tokens: int, settings: Settings, prices: Prices) -> float:
    """What a call can cost at most: the longest answer, nothing cached."""
    return prices.of(Usage(prompt_tokens=prompt_tokens, completion_tokens=settings.reader_max_tokens))


def affordable_context(*, max_cost: float, fixed_tokens: int, settings: Settings, prices: Prices) -> int | None:
    """The most context tokens that keep the worst case (longest answer, nothing cached) within `max_cost`; None: any.

    Raises:
        CostExceeded: even an empty context would cost more; states the minimum.
    """
    least = worst_usd(prompt_tokens=fixed_tokens, settings=settings, prices=prices)
    if least > max_cost:
        raise CostExceeded(f"A ceiling of ${max_cost:g} is under the ${least:.6f} that this question costs without any context.",
                           hint="Raise --max-cost, lower reader_max_tokens, or choose a cheaper reader.", field="max_cost_usd")
    if prices.prompt == 0:
        return None
    return int((max_cost - least) / prices.prompt * 1e6)


def receipt(usage: Usage, *, settings: Settings, local: bool, exact_tokens: bool, counted: bool, budget_tokens: int,
            context_tokens: int, naive_tokens: int, model: str, seconds: Mapping[str, float], encoder_s: float,
            guessed: Sequence[str] = (), second: Second | None = None) -> Receipt:
    """`exact_tokens`: our tokenizer is the reader's. `counted`: the reader counted prompt and completion itself, or was not asked.
    `guessed`: further fields that are no measurements. `encoder_s`: seconds of encoder work on this machine. `naive_tokens` and
    `usage.prompt_tokens` count whole prompts. `second`: another reader's part, which the receipt sums with `usage` at its own
    prices."""
    calls = [(usage, local)] + ([(second.usage, second.local)] if second else [])
    here = energy_wh(encoder_s + sum(each.llm_seconds for each, is_here in calls if is_here), watts=settings.power_watts)
    there = energy_wh(sum(each.llm_seconds for each, is_here in calls if not is_here), watts=settings.server_power_watts)
    kwh = (here + there) / 1000
    litres = kwh * settings.water_onsite_l_kwh + kwh * settings.pue * settings.water_offsite_l_kwh
    estimates = ["energy_wh", "water_ml", "co2_g"]
    if settings.price_kwh and any(is_here for _, is_here in calls):
        estimates.append("cost_usd")
    if not exact_tokens:
        estimates.extend(("context_tokens", "naive_tokens", "saved_tokens"))
    if not counted:
        estimates.extend(("prompt_tokens", "completion_tokens"))
    estimates.extend(name for name in guessed if name not in estimates)
    total = usage + second.usage if second else usage
    usd = cost_usd(usage, settings=settings, local_wh=here) + (second.prices.of(second.usage) if second else 0.0)
    return Receipt(
        budget_tokens=budget_tokens, context_tokens=context_tokens, prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens, cached_tokens=total.cached_tokens, llm_calls=total.llm_calls,
        encoder_passes=total.encoder_passes, model=model, cost_usd=usd,
        seconds=seconds, naive_tokens=naive_tokens, saved_tokens=naive_tokens - total.prompt_tokens,
        energy_wh=here + there, water_ml=litres * 1000, co2_g=kwh * settings.pue * settings.carbon_g_kwh,
        estimates=tuple(estimates))
