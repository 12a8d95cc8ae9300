"""Typed filters on the fields of documents: the same for the CLI (text), REST (JSON) and Python (these classes).

    And((Range("year", gte=2020), In("lang", ("en", "de")), Not(Exists("draft"))))
    year >= 2020 and lang in (en, de) and not exists(draft)
    {"year": {"gte": 2020}, "lang": ["en", "de"], "draft": {"exists": false}}

Standard library only. Filters are values, never strings put into a query: nothing a caller writes can reach another tenant's
documents or change the query it becomes.
"""

from collections.abc import Mapping

from rag.filters.json_form import from_json, to_json
from rag.filters.matching import matches
from rag.filters.terms import And, Equals, Exists, Filter, In, Not, Or, Range
from rag.filters.text_form import parse
from rag.filters.values import BUILT_IN, Fields, Value, field_key

Where = Filter | Mapping[str, object] | str


def as_filter(where: Where | None) -> Filter | None:
    """What a caller gave, in any of the three forms; None filters nothing.

    Raises:
        InputError: it is no filter.
    """
    if where is None or isinstance(where, Filter):
        return where
    return parse(where) if isinstance(where, str) else from_json(where)


__all__ = ["BUILT_IN", "And", "Equals", "Exists", "Fields", "Filter", "In", "Not", "Or", "Range", "Value", "Where", "as_filter",
           "field_key", "from_json", "matches", "parse", "to_json"]
