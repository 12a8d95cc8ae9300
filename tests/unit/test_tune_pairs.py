"""The file of pairs: what people may write, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.tune.pairs import Pair, read, write
from rag.errors import InputError
from tests.conftest import SAMPLE


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    pairs = [Pair("a", "Who?", ("Rollo", "Rolf"), source="n.txt", doc_id="n", chunk_id="n:0", quote="Rollo led.", language="de",
                  facts={"relevance": 0.5, "source_answer": "Rollo\u2028"}),
             Pair("b", "", (), keep=False, reason="unparsed", chunk_id="n:1")]
    write(tmp_path / "deep" / "pairs.jsonl", pairs)
    assert read(tmp_path / "deep" / "pairs.jsonl") == pairs


def test_a_users_own_pairs_need_no_more_than_question_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('\ufeff{"question": "Who led?", "answer": "Rollo"}\n\n'
                    '{"question": "Who cooked?", "answers": [], "lang": "fr", "topic": "food"}\n', encoding="utf-8")
    first, second = read(path)
    assert (first.id, first.answers, first.keep, first.generated) == ("line-1", ("Rollo",), True, False)
    assert (second.id, second.answers, second.language) == ("line-3", (), "fr")


def test_the_questions_of_a_data_set_are_pairs() -> None:
    pairs = read(SAMPLE / "queries.jsonl")
    assert len(pairs) == 400
    assert all(pair.keep and pair.answers and not pair.generated for pair in pairs)


@pytest.mark.parametrize(("line", "complaint"), [
    ("{", "line 2 is not JSON in UTF-8"),
    ("[1]", "line 2 is not a JSON object"),
    ('{"answers": ["x"]}', "line 2 has no field 'question'"),
    ('{"question": " ", "answers": ["x"]}', "line 2 has an empty question"),
    ('{"question": "Who?"}', "line 2 has neither 'answers' nor 'answer'"),
    ('{"question": "Who?", "answers": "Rollo"}', "line 2 has answers that is no list of texts"),
    ('{"question": "Who?", "answer": ["Rollo"]}', "line 2 has answer that is no text"),
    ('{"question": "Who?", "answers": [1]}', "line 2 has answers that is no list of texts"),
    ('{"question": "Who?", "answers": ["", " "]}', "line 2 has nothing but empty answers"),
    ('{"question": "Who?", "answers": ["x"], "keep": "yes"}', "line 2 has keep of type str"),
    ('{"question": "Who?", "answers": ["x"], "reason": 3}', "line 2 has reason of type int"),
    ('{"question": "Who?", "answers": ["x"], "id": "one"}', "line 2 uses the id 'one' of line 1 again"),
    ('{"question": "Who?", "answers": ["x"], "facts": [1]}', "line 2 has facts"),
    ('{"question": "\\ud800", "answers": ["x"]}', "line 2 has half of a surrogate pair in question"),
])
def test_a_wrong_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(f'{{"id": "one", "question": "Who?", "answers": ["x"]}}\n{line}\n', encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read(path)
    assert caught.value.message.startswith(f"{path}, {complaint}")
    assert '"question"' in caught.value.hint


def test_a_file_without_pairs_or_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no pairs"):
        read(tmp_path / "empty.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "Wer f\xfchrte?", "answers": ["x"]}\n')
    with pytest.raises(InputError, match="line 1 is not JSON in UTF-8"):
        read(tmp_path / "latin.jsonl")
