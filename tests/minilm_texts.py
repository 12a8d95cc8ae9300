"""Sixty-four texts for comparing encoders: empty to far over 256 tokens, many scripts, code, numbers, odd characters."""

from __future__ import annotations

_SENTENCES = (
    "The warranty lasts two years from the date of purchase.",
    "Why is the sky blue, and why is it red at dusk?",
    "Water boils at 100 °C at sea level, but at about 71 °C on the summit of Everest.",
    "In 1928 Alexander Fleming noticed that a mould had killed the bacteria in one of his dishes.",
    "Return the item unused, with its receipt, within 30 days.",
    "She sells sea shells by the sea shore; the shells she sells are surely seashells.",
    "The committee adjourned at noon without having reached a decision on the budget.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "A contract needs an offer, an acceptance and something of value on both sides.",
    "The train to Porto leaves from platform 4 at 17:05 and calls at Coimbra.",
    "No.",
    "?!",
    "42",
    "3.14159265358979323846264338327950288",
    "Dr. Smith's e-mail is j.smith@example.org; call +44 20 7946 0958 after 5 p.m.",
    "https://example.org/a/very/long/path?with=query&and=more#fragment",
    "def add(a: int, b: int) -> int:\n    return a + b  # sum of both",
    "SELECT name, count(*) FROM orders WHERE total > 100 GROUP BY name;",
    "{\"id\": 7, \"tags\": [\"a\", \"b\"], \"ok\": true}",
    "| year | sales |\n|---|---|\n| 2023 | 1,204 |\n| 2024 | 1,377 |",
    "Die Garantie gilt zwei Jahre ab dem Kaufdatum, außer für Verschleißteile.",
    "La garantía dura dos años a partir de la fecha de compra.",
    "L’été dernier, nous avons visité un château près d’Angoulême.",
    "保証期間は購入日から二年間です。",
    "量子计算机使用叠加态和纠缠。",
    "보증 기간은 구입일로부터 2년입니다.",
    "الضمان صالح لمدة سنتين من تاريخ الشراء.",
    "Гарантия действует два года со дня покупки.",
    "Η εγγύηση ισχύει για δύο χρόνια.",
    "वारंटी खरीद की तारीख से दो साल तक रहती है।",
    "🙂🚀 launch day!! 🎉🎉🎉",
    "e\u0301 is not é to a computer, yet it is to a reader: cafe\u0301, café",
    "zero\u200bwidth and soft\u00adhyphen and non\u00a0breaking",
    "tab\tseparated\tvalues and   many    spaces\n\n\nand lines",
    "\u202eright to left override\u202c",
    "ALL CAPITALS ARE THE SAME TO AN UNCASED MODEL",
    "all capitals are the same to an uncased model",
    "pneumonoultramicroscopicsilicovolcanoconiosis and Donaudampfschifffahrtsgesellschaft",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "[MASK] [SEP] [CLS] [PAD] are words here, <|im_end|> too",
    "\x00NUL and \x07bell",
    "½ cup, x² + y² = z², ∑ᵢ wᵢ ≤ B, 5 €",
)


def minilm_texts() -> list[str]:
    """The same 64 texts each time."""
    plain = _SENTENCES[:10]
    passages = [" ".join(plain[at % 10] for at in range(start, start + size)) for start, size in
                ((0, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8), (7, 9), (8, 10), (9, 12), (0, 15), (1, 18), (2, 21),
                 (3, 30), (4, 60), (5, 200))]
    return [*_SENTENCES, *passages, "", " ", "\n\t ", "the " * 254, "the " * 255, "the " * 256]
