"""The cross-encoder: its file, its two graphs against the trained network, what it reads, and its training on a tiny backbone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from eval.datasets import load
from indexers.encoders.term_weights_tokens import kept_tokens, read_vocabulary
from indexers.training.checkpoints import CHECKPOINT
from indexers.training.tilde.backbone import published
from optimizers import relevance
from optimizers.crossencoder import model as files
from optimizers.crossencoder.encoder import NOTHING, QUESTION_TOKENS, CrossEncoder, Read
from optimizers.crossencoder.reading import as_read, first_cut, read
from optimizers.pool import Candidate, Pool, Unit
from optimizers.training.crossencoder.__main__ import main
from optimizers.training.crossencoder.batches import OUTSIDE, Batch, drawn, fair, sentence_of, touching
from optimizers.training.crossencoder.corpus import occurrences, spans_of, together
from optimizers.training.crossencoder.loop import Tick, loss_of, train
from optimizers.training.crossencoder.network import CrossNetwork, pooled
from optimizers.training.crossencoder.plan import Plan
from optimizers.training.crossencoder.prepare import Prepared
from optimizers.training.crossencoder.run import upper
from rag.errors import ConfigError, InputError, ModelCorrupt, SnapshotMismatch
from tests.fakes import make_chunk
from tests.tilde_fakes import make_backbone, make_data
from tests.tiny_models import LAYERS, WIDTH

QUESTION = "the warranty lasts years?"
READS = [Read("b c. the warranty lasts two years. e f", ((0, 4), (5, 34), (35, 38))), Read("k h", ((0, 3),)),
         Read("years " * 60 + "b.", ((0, 10), (360, 362))), Read("", ())]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CrossNetwork, Path]:
    """The converted backbone, a random network over its layer 2, and its file."""
    root = tmp_path_factory.mktemp("cross")
    source, folder, _ = make_backbone(root)
    torch.manual_seed(3)
    network = CrossNetwork(upper(published(source, name="tiny"), tap=1)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    path = root / "weights.safetensors"
    files.write(path, network.exported(), notes={"command": "test"})
    return folder, network, path


@pytest.fixture(scope="module")
def encoder(made: tuple[Path, CrossNetwork, Path]) -> CrossEncoder:
    return CrossEncoder(made[0], weights=made[2], precision="f32")


def by_network(encoder: CrossEncoder, network: CrossNetwork, question: str, passage: Read) -> np.ndarray:
    """The same from torch, a pair at a time, over the states that OpenVINO gave."""
    asked, read_ = encoder._computed([question], limit=QUESTION_TOKENS)[0], encoder._of([passage.text])[0]
    kept = kept_tokens(encoder_vocabulary(encoder))
    words = {int(token) for token in asked.ids if kept[token]}
    matched = torch.tensor([[float(int(token) in words) for token in read_.ids]])
    with torch.inference_mode():
        half = files.read(made_path(encoder))
        network = restored(network, half)
        tokens = network(torch.from_numpy(asked.hidden.astype(np.float32))[None], torch.ones(1, len(asked.ids), dtype=torch.bool),
                         torch.from_numpy(read_.hidden.astype(np.float32))[None], torch.ones(1, len(read_.ids), dtype=torch.bool),
                         matched)[0].numpy()
    begins = [start for start, _ in encoder._tokenizer.offsets(passage.text)]
    found = []
    for start, end in passage.sentences:
        own = [tokens[1 + at] for at, begin in enumerate(begins[:len(tokens) - 2]) if start <= begin < end]
        found.append(math.log(sum(math.exp(each) for each in own)) - half.bias if own else NOTHING)
    return np.asarray(found)


_PATHS: dict[int, tuple[Path, Path]] = {}


def encoder_vocabulary(encoder: CrossEncoder) -> list[str]:
    return read_vocabulary(_PATHS[id(encoder)][0] / "tokenizer.json")


def made_path(encoder: CrossEncoder) -> Path:
    return _PATHS[id(encoder)][1]


def restored(network: CrossNetwork, model: files.CrossModel) -> CrossNetwork:
    """With the numbers of the file, which are in half precision."""
    copy = CrossNetwork(network.upper).eval()
    with torch.no_grad():
        for own, layer in zip(copy.layers, model.layers, strict=True):
            for name, parameter in own.named_parameters():
                parameter.copy_(torch.from_numpy(layer[name.replace("-", ".")]))
        copy.sides.copy_(torch.from_numpy(model.sides))
        copy.matches.copy_(torch.from_numpy(model.matches))
        copy.head.weight.copy_(torch.from_numpy(model.answers[None]))
        copy.head.bias.fill_(model.answers_bias)
    return copy


def test_the_graphs_compute_what_was_trained(made: tuple[Path, CrossNetwork, Path], encoder: CrossEncoder) -> None:
    _PATHS[id(encoder)] = (made[0], made[2])
    found = encoder.score(QUESTION, READS)
    assert [len(each) for each in found] == [3, 1, 2, 0]
    for passage, scores in zip(READS[:3], found, strict=False):
        assert scores == pytest.approx(by_network(encoder, made[1], QUESTION, passage), abs=2e-3)
    assert found[2][1] == np.float32(NOTHING)       # beyond the window


def test_a_score_depends_on_its_own_passage_alone(encoder: CrossEncoder) -> None:
    together_ = encoder.score(QUESTION, READS)
    for passage, scores in zip(READS, together_, strict=True):
        assert encoder.score(QUESTION, [passage])[0] == pytest.approx(scores, abs=1e-4)
    assert encoder.score("k?", READS[:1])[0] != pytest.approx(together_[0], abs=1e-3)
    assert encoder.score(QUESTION, []) == []


def test_odd_texts_have_finite_scores(encoder: CrossEncoder) -> None:
    for question in ("", "?", "years " * 10_000, "量子 猫 🙂", "\x00\ud83d"):
        for scores in encoder.score(question, [Read(text, ((0, len(text)),)) for text in ("猫", "a\ud83d", "the")]):
            assert np.isfinite(scores).all()


def test_files_of_another_encoder_and_damaged_ones_are_refused(made: tuple[Path, CrossNetwork, Path], tmp_path: Path) -> None:
    folder, network, path = made
    other = tmp_path / "other.safetensors"
    exported = network.exported()
    files.write(other, replace(exported, facts=replace(exported.facts, encoder="minilm@12345678")), notes={})
    with pytest.raises(SnapshotMismatch, match="minilm@12345678"):
        CrossEncoder(folder, weights=other)
    with pytest.raises(ConfigError, match="no cross-encoder"):
        CrossEncoder(folder)
    whole = path.read_bytes()
    for name, content in (("short", whole[:500]), ("none", b""), ("text", b"no weights at all")):
        broken = tmp_path / name
        broken.write_bytes(content)
        with pytest.raises(ModelCorrupt, match=name):
            files.read(broken)
    with pytest.raises(ModelCorrupt, match="finite"):
        files.write(tmp_path / "nan", replace(exported, sides=np.full_like(exported.sides, np.nan)), notes={})


def test_the_name_follows_the_bytes(made: tuple[Path, CrossNetwork, Path], tmp_path: Path) -> None:
    _, network, path = made
    again = files.write(tmp_path / "again", network.exported(), notes={"command": "test"})
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert again.name == files.read(path).name
    assert files.write(tmp_path / "other", network.exported(), notes={"command": "x"}).name != again.name


def test_the_first_cut_takes_the_likeliest_and_no_copies(encoder: CrossEncoder) -> None:
    pool = Pool((candidate("Years begin. The warranty ends.", .1, .2, name="a"), candidate("warranty lasts.", .9, name="b"),
                 candidate("warranty lasts.", .9, name="c"), candidate("two years.", .5, name="d")), {})
    assert first_cut(pool, pairs=2) == [1, 3]
    assert first_cut(pool, pairs=10) == [1, 3, 0]
    found = read(pool, QUESTION, encoder=encoder, pairs=2)
    assert [len(each.sentence_answers) for each in found.candidates] == [0, 1, 0, 1]
    expected = encoder.score(QUESTION, [as_read(pool.candidates[1])])[0]
    assert found.candidates[1].sentence_answers == pytest.approx(expected, abs=1e-4)
    chances = relevance.chances(found)
    plain = relevance.plain_chances(pool)
    assert chances.keys() == plain.keys()
    assert chances[Unit(0, 0)] == plain[Unit(0, 0)]
    assert chances[Unit(1, 0)] != plain[Unit(1, 0)]
    assert relevance.chances(pool) == plain
    assert read(Pool((), {}), QUESTION, encoder=encoder, pairs=5).candidates == ()


def test_features_of_what_was_read_by_hand() -> None:
    pool = Pool((candidate("Kettle here. Tea there.", .5, .25, name="a"), candidate("Nothing else.", .1, name="b"),
                 candidate("Not read.", .3, name="c")), {})
    pool = replace(pool, candidates=(replace(pool.candidates[0], sentence_answers=(1.0, -1.0)),
                                     replace(pool.candidates[1], sentence_answers=(-2.0,)), pool.candidates[2]))
    rows, matrix = relevance.read_features(pool, relevance.features(pool))
    whole = math.log(math.exp(1) + math.exp(-1))
    assert rows == [Unit(0, 0), Unit(0, 1), Unit(1, 0)]
    assert matrix[:, :10] == pytest.approx(relevance.features(pool)[:3])
    assert matrix[:, 10:] == pytest.approx(np.asarray([[1, whole, 0, 0], [-1, whole, 2, 0], [-2, -2, 3, whole + 2]]))


def test_sentences_of_tokens_and_tokens_of_spans() -> None:
    offsets = [(0, 3), (4, 8), (8, 9), (10, 12), (13, 14)]
    assert sentence_of(offsets, [(4, 9), (10, 14)], length=7).tolist() == [OUTSIDE, OUTSIDE, 0, 0, 1, 1, OUTSIDE]
    assert sentence_of(offsets, [(4, 9), (10, 14)], length=5).tolist() == [OUTSIDE, OUTSIDE, 0, 0, OUTSIDE]      # cut
    assert touching(offsets, [(5, 6), (13, 14)], length=7).tolist() == [2, 5]
    assert touching(offsets, [(13, 14)], length=5).tolist() == []


def test_answers_are_found_as_whole_words() -> None:
    assert occurrences("Ten men, tenfold; TEN.", ["ten"]) == ((0, 3), (18, 21))
    assert occurrences("It costs $5 (or 5).", ["$5", "5"]) == ((9, 11), (10, 11), (16, 17))
    assert occurrences("a", ["", "...", "b"]) == ()


def test_single_sentences_become_passages_of_neighbours(tmp_path: Path) -> None:
    data = load(make_data(tmp_path / "one"))
    found = together(data, seed=1)
    assert " ".join(each.text for each in found.passages).split() == " ".join(each.text for each in data.passages).split()
    lengths = [len(spans_of(each, lines=True)) for each in found.passages]
    assert sum(lengths) == len(data.passages)
    assert max(lengths) <= 6
    assert min(lengths[:-1]) >= 2
    assert together(data, seed=1) == found
    assert together(data, seed=2) != found
    texts = {each.id: each.text for each in found.passages}
    before = {each.id: each.text for each in data.passages}
    for old, new in zip(data.questions, found.questions, strict=True):
        assert new.answers == (before[old.evidence[0]],)
        assert new.answers[0] in texts[new.evidence[0]]


def test_candidates_clearly_nearer_than_the_right_passage_are_no_negatives() -> None:
    assert fair(np.asarray([4, 5, 6], np.int32), np.asarray([.5, .7, .61], np.float32), .52).tolist() == [4, -1, 6]


PLAN = Plan(steps=6, seed=3, queries=4, group=3, real_share=0.75)


def candidate(text: str, *cosines: float, name: str) -> Candidate:
    chunk = make_chunk(text, id=f"{name}:0:0", doc_id=name)
    assert len(chunk.sentences) == len(cosines)
    return Candidate(chunk=chunk, score=1.0, relevance=max(cosines), sentence_relevance=cosines,
                     sentence_tokens=tuple(5 for _ in cosines), sentence_terms=tuple(frozenset() for _ in cosines),
                     sentence_vectors=np.eye(8, dtype=np.float32)[:len(cosines)], tokens=9)


class Trained:
    """Material of two small data sets and where it came from."""

    def __init__(self, root: Path) -> None:
        import argparse

        from optimizers.training.crossencoder.corpus import read as read_data
        from rag.types import no_progress

        source, folder, _ = make_backbone(root)
        self.upper = upper(published(source, name="tiny"), tap=1)
        self.marked = read_data([make_data(root / "one"), make_data(root / "two", seed=1)], seed=5, most=120, largest=100)
        options = argparse.Namespace(tap=1, tokens=40, depth=4)
        self.prepared = Prepared(root / "out", folder, "tiny@1", options, no_progress)
        self.material = self.prepared.material(self.marked)
        self.matching = kept_tokens(read_vocabulary(folder / "tokenizer.json")).astype(np.int64)

    def fresh(self) -> CrossNetwork:
        torch.manual_seed(0)
        return CrossNetwork(self.upper)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("cross-training"))


def test_the_right_tokens_are_those_of_the_sentence_asked_about(trained: Trained) -> None:
    material, corpus = trained.material, trained.marked.corpus
    for query in material.real[:20]:
        row = int(corpus.gold[query])
        start = int(material.passages.starts[row])
        places = set(material.place[start + material.right[query]].tolist())
        assert len(places) == 1
        [place] = places
        first, last = trained.marked.sentences[row][place]
        assert corpus.texts[row][first:last] == corpus.texts[row][slice(*trained.marked.answers[query][0])]
    assert all(len(material.right[query]) == 0 for query in material.made)


def test_negatives_hold_neither_the_right_passage_nor_its_answer(trained: Trained) -> None:
    corpus = trained.marked.corpus
    for query in trained.material.real:
        some = trained.material.negatives[query]
        assert int(corpus.gold[query]) not in some.tolist()
        assert not corpus.held[some[some >= 0]].any()


def test_batches_follow_from_seed_and_step(trained: Trained) -> None:
    one, same, next_ = (drawn(trained.material, step=step, seed=3, queries=4, group=3, real_share=.75) for step in (2, 2, 3))
    assert np.array_equal(one.passages, same.passages)
    assert not np.array_equal(one.passages, next_.passages)
    assert one.own.tolist() == [True, True, True, False]
    gold = trained.marked.corpus.gold[one.queries[:3]]
    assert one.passages.reshape(4, 3)[:3, 0].tolist() == gold.tolist()
    vectors = trained.material.passages.vectors
    assert one.similarity[1, 2] == pytest.approx(float(vectors[one.passages[5]] @ trained.material.queries.vectors[one.queries[1]]))


def test_losses_by_hand(trained: Trained) -> None:
    network, material = trained.fresh().eval(), trained.material
    batch: Batch = drawn(material, step=0, seed=3, queries=4, group=3, real_share=.75)
    with torch.inference_mode():
        _, parts = loss_of(network, material, batch, plan=PLAN, matching=trained.matching, device="cpu")
        from optimizers.training.crossencoder.loop import places, scored

        tokens, _ = scored(network, passages=material.passages, queries=material.queries, rows=batch.passages,
                           asked=np.repeat(batch.queries, 3), matching=trained.matching, device="cpu", bf16=False)
    where = places(material.passages, material.place, batch.passages)
    z = tokens.numpy().astype(np.float64)
    chances: dict[bool, list[float]] = {True: [], False: []}
    spans, divergences = [], []
    for at, query in enumerate(batch.queries):
        rows = range(3 * at, 3 * at + 3)
        inside = [(row, t) for row in rows for t in range(z.shape[1]) if where[row, t] >= 0]
        passages = np.asarray([np.logaddexp.reduce([z[each] for each in inside if each[0] == row]) for row in rows])
        said, taught = passages - np.logaddexp.reduce(passages), batch.similarity[at].astype(np.float64) * PLAN.sharpness
        taught = taught - np.logaddexp.reduce(taught)
        divergences.append(float((np.exp(taught) * (taught - said)).sum()))
        if not batch.own[at]:
            continue
        right = {(rows[0], int(t)) for t in material.right[query]}
        spans.append(np.logaddexp.reduce([z[each] for each in inside]) - np.logaddexp.reduce([z[each] for each in right]))
        for row, place in {(row, int(where[row, t])) for row, t in inside}:
            own = [each for each in inside if each[0] == row and where[each] == place]
            score = np.logaddexp.reduce([z[each] for each in own]) - network.bias.item()
            holds = any(each in right for each in own)
            chances[holds].append(np.logaddexp(0, -score if holds else score))
    assert parts["span"] == pytest.approx(float(np.mean(spans)), rel=1e-4)
    assert parts["chance"] == pytest.approx(float(np.mean(chances[True]) + np.mean(chances[False])) / 2, rel=1e-4)
    assert parts["divergence"] == pytest.approx(float(np.mean(divergences)), rel=1e-3)


def test_sentences_without_tokens_are_far_below_zero() -> None:
    found = pooled(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0, 0, -1]]), count=2)
    assert found[0, 0].item() == pytest.approx(math.log(math.exp(1) + math.exp(2)))
    assert found[0, 1].item() < -1000


def test_training_learns_and_a_killed_run_ends_the_same(trained: Trained, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(tick: Tick) -> None:
        if tick.step == 4:
            raise Killed

    def go(folder: Path, on_tick: object, network: CrossNetwork, *, plan: Plan = PLAN) -> None:
        folder.mkdir(exist_ok=True)
        train(network, trained.material, plan, folder=folder, matching=trained.matching, device="cpu", every=2,
              on_tick=on_tick)    # type: ignore[arg-type]

    go(tmp_path / "whole", lambda tick: None, trained.fresh())
    with pytest.raises(Killed):
        go(tmp_path / "part", kill, trained.fresh())
    seen: list[int] = []
    go(tmp_path / "part", lambda tick: seen.append(tick.step), trained.fresh())
    assert seen == [4, 5]
    one, two = load_file(tmp_path / "whole" / CHECKPOINT), load_file(tmp_path / "part" / CHECKPOINT)
    assert all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(ConfigError, match="queries"):
        go(tmp_path / "part", lambda tick: None, trained.fresh(), plan=replace(PLAN, queries=5))
    losses: list[float] = []
    go(tmp_path / "long", lambda tick: losses.append(tick.parts["span"]), trained.fresh(),
       plan=replace(PLAN, steps=150, queries=8, layer_rate=5e-3, head_rate=2e-2))
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.5


def test_the_command_leaves_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.tiny_models import make_bert

    source = make_bert(tmp_path / "source", max_tokens=48)
    data = [str(make_data(tmp_path / name, seed=at)) for at, name in enumerate(("one", "two"))]
    command = ["--data", data[0], "--sanity", data[1], "--out", str(tmp_path / "out"), "--backbone", str(source), "--model", "tiny",
               "--tap", "1", "--steps", "4", "--every", "2", "--tokens", "40", "--most", "80", "--depth", "4"]
    assert main(command) == 0
    [weights] = [path for path in (tmp_path / "out").glob("tiny-*.safetensors") if not path.name.endswith(files.RANGES)]
    model = files.read(weights)
    assert len(model.layers) == LAYERS - 1
    assert model.sides.shape == (2, WIDTH)
    card = (tmp_path / "out" / "card.md").read_text(encoding="utf-8")
    assert model.name in card
    assert str(tmp_path) not in card
    assert "| two |" in card
    history = json.loads((tmp_path / "out" / "history.json").read_text(encoding="utf-8"))
    assert [entry["step"] for entry in history] == [0, 2, 4]
    assert (tmp_path / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    before = weights.read_bytes()
    assert main(command) == 0
    assert weights.read_bytes() == before
    assert main([*command[:-2], "--depth", "5", "--tap", "9", "--out", str(tmp_path / "x")]) == 1
    assert "layer above 9" in capsys.readouterr().err


def test_data_sets_of_one_name_are_refused(tmp_path: Path) -> None:
    from optimizers.training.crossencoder.corpus import read as read_data

    one = make_data(tmp_path / "a" / "one")
    two = make_data(tmp_path / "b" / "one")
    with pytest.raises(InputError, match="different names"):
        read_data([one, two], seed=1, most=10, largest=10)
