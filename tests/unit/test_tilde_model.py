"""Term weights at ingestion: which tokens, the file, the graph beside the dense vector, questions, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from indexers.encoders import int8, term_weights
from indexers.encoders.openvino import OpenVinoEncoder
from indexers.encoders.term_weights import TermModel, impacts_of, query_of, ranges_of, read, saturation, write
from indexers.encoders.term_weights_graph import hidden_after
from indexers.encoders.term_weights_openvino import OpenVinoTermWeights
from indexers.encoders.term_weights_tokens import addable_tokens, folded_tokens, kept_tokens, read_vocabulary, vocabulary_digest
from indexers.encoders.tokenizing import EncoderTokenizer
from indexers.impacts import Statistics
from indexers.lexical import words
from indexers.training import int8 as fitting
from indexers.training.tilde.export import fit_ranges
from indexers.training.tilde.network import Backbone, TermNetwork
from rag.errors import ConfigError, ModelCorrupt, SnapshotMismatch
from rag.models.runtime import core
from tests.tilde_fakes import make_backbone, random_network, token
from tests.tiny_models import LAYERS, WORDS

TEXTS = ["the warranty lasts two years.", "two two warranty b c e f g", "years " * 30, "lasts", "b k two, h? the the"]
ODD = ["", "the a ... ??", "warranty " * 10_000, "量子 猫 гарантия الضمان 🙂", "\x00\ud83d", "naïve b"]
SCALE = 4.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Backbone, TermNetwork, Path]:
    """Converted backbone, what training read of it, a random network, and its file."""
    root = tmp_path_factory.mktemp("tilde")
    _, folder, base = make_backbone(root)
    network = random_network(base)
    path = root / "weights.safetensors"
    write(path, network.exported(base, scale=SCALE, expanded=16), notes={"command": "test"})
    return folder, base, network, path


@pytest.fixture(scope="module")
def model(made: tuple[Path, Backbone, TermNetwork, Path]) -> TermModel:
    return read(made[3], encoder=made[1].name, vocabulary=made[1].vocabulary)


@pytest.fixture(scope="module")
def encoder(made: tuple[Path, Backbone, TermNetwork, Path]) -> OpenVinoTermWeights:
    return OpenVinoTermWeights(made[0], weights=made[3], precision="f32")


def test_only_words_of_latin_script_that_are_no_function_words_are_kept() -> None:
    tokens = ["[PAD]", "[unused5]", "the", "what", "warranty", "##s", "##ty", "2024", "!", "-", "_", "x", "##й", "猫", "ß", "о",
              "don", "##'", "co-op"]
    assert [each for each, kept in zip(tokens, kept_tokens(tokens), strict=True) if kept] == [
        "what", "warranty", "##ty", "2024", "x", "ß", "co-op"]
    assert [each for each, kept in zip(tokens, addable_tokens(tokens), strict=True) if kept] == ["warranty", "2024", "co-op"]


def test_words_of_one_stem_count_as_the_first_of_them(model: TermModel) -> None:
    tokens = ["[PAD]", "years", "the", "lasting", "year", "last", "##year", "lasts", "2024", "yearly"]
    assert words("yearly") == ["year"]
    assert [tokens[at] for at in folded_tokens(tokens)] == ["[PAD]", "years", "the", "lasting", "years", "lasting", "##year",
                                                            "lasting", "2024", "years"]
    folds = model.folds.copy()
    folds[token("lasts")] = token("b")
    folded = replace(model, folds=folds)
    ids, weights = np.array([token("lasts"), token("b")]), np.array([2, 1], np.float32)
    nothing = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    found, values = impacts_of(ids, weights, added=nothing[0], logits=nothing[1], model=folded)
    assert found.tolist() == [token("b")]
    assert values[0] == pytest.approx(2 * float(saturation(np.float32(2), 2, facts=model.facts)))


def test_the_vocabulary_is_read_in_order_of_ids(made: tuple[Path, Backbone, TermNetwork, Path], tmp_path: Path) -> None:
    assert read_vocabulary(made[0] / "tokenizer.json") == WORDS
    assert vocabulary_digest(WORDS) != vocabulary_digest(WORDS[::-1])
    (tmp_path / "t.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}}), encoding="utf-8")
    with pytest.raises(ModelCorrupt, match="ids from 0 up"):
        read_vocabulary(tmp_path / "t.json")
    with pytest.raises(ModelCorrupt, match=r"missing\.json"):
        read_vocabulary(tmp_path / "missing.json")


def test_a_passage_weighs_as_the_formula_says(model: TermModel) -> None:
    """Repeated tokens by their greatest weight, stop words never, expansion only of what is missing and above the cut."""
    ids = np.array([2, token("the"), token("two"), token("warranty"), token("two"), token("."), 3])
    weights = np.array([9, 9, 0.5, 1.5, 2.5, 9, 9], np.float32)
    cut, steepness = np.float32(model.facts.cut), np.float32(model.facts.steepness)
    added = np.array([token("two"), token("years"), token("lasts"), token("the"), token("b")], np.int32)
    logits = np.array([5, 3, cut - 0.1, 5, 5], np.float32)
    k1, norm = model.facts.k1, 1 - model.facts.b + model.facts.b * 3 / 5     # three words, where five are the mean
    expected = {token("two"): 2.5 * 2 * (k1 + 1) / (2 + k1 * norm), token("warranty"): 1.5 * (k1 + 1) / (1 + k1 * norm),
                token("years"): steepness * (3 - cut)}
    found, values = impacts_of(ids, weights, added=added, logits=logits, model=model)
    assert found.tolist() == sorted(expected)
    assert values.tolist() == pytest.approx([expected[each] for each in found.tolist()])
    assert (found.dtype, values.dtype) == (np.int32, np.float32)


def test_weights_that_no_impact_can_hold_are_left_out(model: TermModel) -> None:
    ids = np.array([token("two"), token("years"), token("b")])
    weights = np.array([0.0, model.least * 0.5, model.least * 1.5], np.float32)
    nothing = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    found, _ = impacts_of(ids, weights, added=nothing[0], logits=nothing[1], model=model)
    assert found.tolist() == [token("b")]


def test_torch_and_openvino_agree_and_dense_vectors_are_the_plain_encoders(tmp_path: Path) -> None:
    for tap in range(LAYERS + 1):
        (tmp_path / str(tap)).mkdir()
        _, folder, base = make_backbone(tmp_path / str(tap), tap=tap)
        network = random_network(base, seed=tap)
        path = tmp_path / f"{tap}.safetensors"
        write(path, network.exported(base, scale=SCALE, expanded=len(WORDS)), notes={})
        plain, extended = OpenVinoEncoder(folder, precision="f32"), OpenVinoTermWeights(folder, weights=path, precision="f32")
        vectors, impacts = extended.encode_with_terms(TEXTS)
        assert np.array_equal(vectors, plain.encode(TEXTS))
        assert np.array_equal(extended.encode(TEXTS), vectors)
        assert extended.name == plain.name
        for text, (ids, values) in zip(TEXTS, impacts, strict=True):
            expected = by_torch(network, folder, text, tap=tap)
            expected[expected < extended.terms.least] = 0
            assert np.abs(dense(ids, values) - expected).max() < 3e-3       # the file holds half precision
            assert (ids[1:] > ids[:-1]).all()


def test_agreement_is_close_where_the_file_holds_what_torch_has(made: tuple[Path, Backbone, TermNetwork, Path], tmp_path: Path
                                                               ) -> None:
    folder, base, _, _ = made
    network = random_network(base, seed=7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.half().float())
    path = tmp_path / "half.safetensors"
    write(path, network.exported(base, scale=1e-3, expanded=len(WORDS)), notes={})
    _, impacts = OpenVinoTermWeights(folder, weights=path, precision="f32").encode_with_terms(TEXTS)
    for text, (ids, values) in zip(TEXTS, impacts, strict=True):
        assert np.abs(dense(ids, values) - by_torch(network, folder, text, tap=base.tap)).max() < 1e-4
    assert sum(len(ids) for ids, _ in impacts) > 10


def test_the_order_and_the_company_of_texts_do_not_matter(encoder: OpenVinoTermWeights) -> None:
    many = [TEXTS[at % len(TEXTS)] + " b" * (at % 11) for at in range(60)]
    heard: list[int] = []
    vectors, impacts = encoder.encode_with_terms(many, on_batch=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == len(many)
    for text, vector, (ids, values) in zip(many, vectors, impacts, strict=True):
        alone, ((one_ids, one_values),) = encoder.encode_with_terms([text])
        assert np.allclose(vector, alone[0], atol=1e-5)
        assert np.allclose(dense(ids, values), dense(one_ids, one_values), atol=2e-2)
    vectors, impacts = encoder.encode_with_terms([])
    assert (vectors.shape, impacts) == ((0, encoder.dimension), [])


def test_padding_is_counted_once_whichever_graph_computes(made: tuple[Path, Backbone, TermNetwork, Path]) -> None:
    folder, _, _, path = made
    one, other = (OpenVinoTermWeights(folder, weights=path, precision="f32") for _ in range(2))
    one.encode(TEXTS)
    other.encode_with_terms(TEXTS)
    assert other.padding == one.padding
    other.encode_with_terms(TEXTS)
    assert other.padding == one.padding + one.padding
    assert one.padding.tokens > 0


def test_odd_texts_have_few_or_no_terms_and_raise_nothing(encoder: OpenVinoTermWeights) -> None:
    _, impacts = encoder.encode_with_terms(ODD)
    added = set(np.flatnonzero(encoder.terms.addable).tolist())
    for text, (ids, values) in zip(ODD, impacts, strict=True):
        assert (values > 0).all()
        assert encoder.terms.kept[ids].all()
        if text != ODD[2] and text != ODD[5]:
            assert set(ids.tolist()) <= added
    cut = encoder.encode_with_terms(["warranty " * 46])[1][0]
    assert np.allclose(dense(*impacts[2]), dense(*cut), atol=1e-4)


def weight_of(model: TermModel, word: str, *, idf: float | None = None) -> float:
    """softplus, written out."""
    chosen = float(model.idf[token(word)]) if idf is None else idf
    return math.log1p(math.exp(float(model.asked[token(word)]) + model.facts.from_idf * chosen))


def test_a_token_that_is_common_in_the_collection_weighs_less_in_questions(made: tuple[Path, Backbone, TermNetwork, Path],
                                                                           model: TermModel) -> None:
    tokenizer = EncoderTokenizer.from_file(made[0] / "tokenizer.json", max_tokens=48)
    model = replace(model, facts=replace(model.facts, from_idf=0.9))
    holding = np.zeros(model.size, np.int64)
    holding[token("two")], holding[token("years")] = 5000, 3

    def asked(statistics: Statistics | None) -> dict[int, float]:
        ids, weights = query_of("two years", model, tokenizer=tokenizer, statistics=statistics)
        return dict(zip(ids.tolist(), weights.tolist(), strict=True))

    own = {word: math.log1p((6000 - count + 0.5) / (count + 0.5)) for word, count in (("two", 5000), ("years", 3))}
    mixed = {word: (6000 * one + 2000 * float(model.idf[token(word)])) / 8000 for word, one in own.items()}
    assert asked(Statistics(6000, holding)) == pytest.approx({token(w): weight_of(model, w, idf=idf) for w, idf in mixed.items()})
    assert asked(Statistics(0, holding * 0)) == pytest.approx(asked(None))


def test_a_question_is_its_tokens_with_the_tables_weights(made: tuple[Path, Backbone, TermNetwork, Path], model: TermModel) -> None:
    tokenizer = EncoderTokenizer.from_file(made[0] / "tokenizer.json", max_tokens=48)
    ids, weights = query_of("two years, the two", model, tokenizer=tokenizer)
    assert ids.tolist() == sorted([token("two"), token("years")])
    assert dict(zip(ids.tolist(), weights.tolist(), strict=True)) == pytest.approx(
        {token("two"): 2 * weight_of(model, "two"), token("years"): weight_of(model, "years")})
    for nothing in ("", "the a?", "量子 гарантия"):
        ids, weights = query_of(nothing, model, tokenizer=tokenizer)
        assert (len(ids), len(weights)) == (0, 0)


def test_pieces_of_a_word_share_its_weight(made: tuple[Path, Backbone, TermNetwork, Path], model: TermModel) -> None:
    tokenizer = EncoderTokenizer.from_file(made[0] / "tokenizer.json", max_tokens=48)
    ids, weights = query_of("bc years ebb", model, tokenizer=tokenizer)
    pieces = tokenizer.encode(["bc years ebb"])[0]
    assert tokenizer.continues(pieces).sum() >= 3, "the test's words are no longer cut into pieces"
    asked: dict[int, float] = {}
    for word in ("bc", "years", "ebb"):
        kept = [int(piece) for piece in tokenizer.encode([word])[0] if model.kept[piece]]
        for piece in kept:
            at = int(model.folds[piece])
            one = math.log1p(math.exp(float(model.asked[at]) + model.facts.from_idf * float(model.idf[at])))
            asked[at] = asked.get(at, 0.0) + one / math.sqrt(len(kept))
    assert dict(zip(ids.tolist(), weights.tolist(), strict=True)) == pytest.approx(asked)


def test_what_was_written_is_read_and_is_small(made: tuple[Path, Backbone, TermNetwork, Path], model: TermModel) -> None:
    _, base, network, path = made
    again = read(path, encoder=base.name, vocabulary=base.vocabulary)
    assert again.name == model.name
    assert again.facts == replace(network.exported(base, scale=SCALE, expanded=16).facts)
    expected = network.exported(base, scale=SCALE, expanded=16)
    for name, tensor in expected.layer.items():
        assert np.allclose(again.layer[name], tensor, atol=2e-3), name
    assert np.array_equal(again.kept, expected.kept)
    assert np.allclose(again.asked, model.asked, atol=2e-3)
    assert np.allclose(again.idf, model.idf, atol=2e-3)


def test_weights_of_another_encoder_or_vocabulary_are_refused_by_name(made: tuple[Path, Backbone, TermNetwork, Path], tmp_path: Path
                                                                     ) -> None:
    folder, base, _, path = made
    with pytest.raises(SnapshotMismatch, match=rf"{base.name}.*other@12345678"):
        read(path, encoder="other@12345678", vocabulary=base.vocabulary)
    with pytest.raises(SnapshotMismatch, match=rf"{base.vocabulary}.*feedfeedfeedfeed"):
        read(path, encoder=base.name, vocabulary="feedfeedfeedfeed")
    with pytest.raises(ConfigError, match=rf"no term weights for {base.name}"):
        OpenVinoTermWeights(folder)
    other = tmp_path / "other"
    other.mkdir()
    _, elsewhere, _ = make_backbone(other)
    described = json.loads((elsewhere / "config.json").read_text(encoding="utf-8"))
    (elsewhere / "config.json").write_text(json.dumps(described | {"source_sha256": "00" * 32}), encoding="utf-8")
    with pytest.raises(SnapshotMismatch, match="tiny@00000000"):
        OpenVinoTermWeights(elsewhere, weights=path)


def test_a_file_that_is_no_weights_file_is_refused(made: tuple[Path, Backbone, TermNetwork, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    _, base, network, path = made
    known = {"encoder": base.name, "vocabulary": base.vocabulary}
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelCorrupt, match=r"broken\.safetensors does not hold term weights"):
        read(broken, **known)
    save_file(load_file(path), broken)
    with pytest.raises(ModelCorrupt, match="does not hold term weights"):
        read(broken, **known)
    model = network.exported(base, scale=SCALE, expanded=16)
    write(broken, replace(model, layer={name: t for name, t in model.layer.items() if "value.bias" not in name}), notes={})
    with pytest.raises(ModelCorrupt, match=r"attention\.self\.value\.bias has shape None"):
        read(broken, **known)
    write(broken, replace(model, weight=np.full_like(model.weight, np.nan)), notes={})
    with pytest.raises(ModelCorrupt, match="weight holds numbers that are not finite"):
        read(broken, **known)
    write(broken, replace(model, kept=np.zeros_like(model.kept)), notes={})
    with pytest.raises(ModelCorrupt, match="masks do not fit"):
        read(broken, **known)


def test_a_layer_that_the_backbone_lacks_is_refused(made: tuple[Path, Backbone, TermNetwork, Path], tmp_path: Path) -> None:
    folder, base, network, _ = made
    with pytest.raises(ConfigError, match=f"after layer 7; the encoder has {LAYERS}"):
        hidden_after(core().read_model(folder / "openvino_model.xml"), 7)
    exported = network.exported(base, scale=SCALE, expanded=16)
    write(tmp_path / "deep.safetensors", replace(exported, facts=replace(exported.facts, tap=7)), notes={})
    with pytest.raises(ConfigError, match="after layer 7"):
        OpenVinoTermWeights(folder, weights=tmp_path / "deep.safetensors", precision="f32").encode_with_terms(TEXTS)


def test_in_eight_bits_the_vectors_are_those_of_the_plain_encoder_in_eight_bits(tmp_path: Path) -> None:
    _, folder, base = make_backbone(tmp_path)
    path = tmp_path / "weights.safetensors"
    write(path, random_network(base).exported(base, scale=SCALE, expanded=16), notes={})
    with pytest.raises(ConfigError, match="8-bit ranges"):
        OpenVinoTermWeights(folder, weights=path, precision="int8")
    int8.write(folder / int8.FILE, fitting.fit(folder, TEXTS), facts={})
    ranges = fit_ranges(read(path, encoder=base.name, vocabulary=base.vocabulary), encoder=folder, weights=path, texts=TEXTS,
                        scratch=tmp_path / "scratch", seed=1)
    assert ranges == ranges_of(path)
    rounded, exact = (OpenVinoTermWeights(folder, weights=path, precision=precision) for precision in ("int8", "f32"))
    assert rounded.precision == "int8"
    vectors, impacts = rounded.encode_with_terms(TEXTS)
    assert np.array_equal(vectors, OpenVinoEncoder(folder, precision="int8").encode(TEXTS))
    pairs = zip(impacts, exact.encode_with_terms(TEXTS)[1], strict=True)
    apart = [np.abs(dense(*ours) - dense(*theirs)).max() for ours, theirs in pairs]
    assert 0 < max(apart) < 0.5


def test_shipped_weights_are_looked_for_under_the_encoders_name(tmp_path: Path) -> None:
    assert term_weights.find("no-such-encoder@00000000", folder=tmp_path) is None
    (tmp_path / "term_weights.safetensors").write_bytes(b"x")
    assert term_weights.find("no-such-encoder@00000000", folder=tmp_path) == tmp_path / "term_weights.safetensors"


def by_torch(network: TermNetwork, folder: Path, text: str, *, tap: int) -> np.ndarray:
    """The whole row of weights, from the hidden states as the graph of the backbone alone gives them."""
    import openvino
    from openvino import opset13 as opset

    ids = EncoderTokenizer.from_file(folder / "tokenizer.json", max_tokens=48).encode([text])[0]
    graph = core().read_model(folder / "openvino_model.xml")
    tapped = openvino.Model([opset.result(hidden_after(graph, tap))], graph.get_parameters(), "tapped")
    row = np.asarray([ids], np.int64)
    hidden = core().compile_model(tapped, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([row, np.ones_like(row)])[0]
    with torch.inference_mode():
        places = torch.from_numpy(row)
        held, added = network.matrix(network(torch.from_numpy(hidden), places), places)
    return (held + added)[0].numpy()


def dense(ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    row = np.zeros(len(WORDS), np.float32)
    row[ids] = values
    return row
