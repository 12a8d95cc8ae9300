"""Training of term weights on a tiny random backbone: data, batches, losses, steps, resuming, and the whole command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from indexers.encoders.term_weights import read as read_weights
from indexers.training.tilde import losses
from indexers.training.tilde.__main__ import main
from indexers.training.tilde.backbone import backbone, published
from indexers.training.tilde.batches import Batch, Material, drawn, idf, missing_tokens, tokenised
from indexers.training.tilde.card import History
from indexers.training.tilde.corpus import KEYWORDS, REAL, SENTENCE, TITLE, Corpus, read
from indexers.training.tilde.dev import Quality
from indexers.training.tilde.loop import CHECKPOINT, Tick, loss_of, optimiser, train
from indexers.training.tilde.mining import bm25, mined
from indexers.training.tilde.network import Backbone, TermNetwork, matched
from indexers.training.tilde.plan import Plan, changed
from indexers.training.tilde.states import StatesOf, states
from indexers.training.tilde.teacher import Splade, Taught
from rag.errors import ConfigError, InputError, ModelCorrupt, SnapshotMismatch
from rag.types import no_progress
from tests.tilde_fakes import make_backbone, make_data, random_network, token
from tests.tiny_models import LAYERS, WIDTH, WORDS

PLAN = Plan(steps=6, seed=3, queries=4, group=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tilde-training")


@pytest.fixture(scope="module")
def corpus(root: Path) -> Corpus:
    return read([make_data(root / "one"), make_data(root / "two", seed=1)], seed=5, held_share=0.2, most=150)


@pytest.fixture(scope="module")
def base(root: Path) -> Backbone:
    return make_backbone(root)[2]


@pytest.fixture(scope="module")
def material(root: Path, corpus: Corpus, base: Backbone) -> Material:
    from indexers.encoders.tokenizing import EncoderTokenizer

    wanted = StatesOf(base.name, corpus.digest, base.tap, 32)
    held = states(root / "states", corpus.texts, wanted=wanted, encoder=root / "tiny", on_progress=no_progress).folded(base.folds)
    tokenizer = EncoderTokenizer.from_file(root / "tiny" / "tokenizer.json", max_tokens=32)
    tokens = tokenised(corpus.queries, tokenizer=tokenizer, backbone=base)
    further = tokenised([text for text, _ in corpus.further], tokenizer=tokenizer, backbone=base)
    queries = np.random.default_rng(1).standard_normal((len(corpus.queries), WIDTH)).astype(np.float32)
    candidates = mined(corpus, index=bm25(root / "bm25", corpus.texts), passages=held.vectors, queries=queries, depth=4,
                       on_progress=no_progress)
    missing = missing_tokens(corpus, held, tokens, further=further, addable=base.addable)
    return Material(corpus, held, queries, tokens, candidates, missing, None, None, base.folds)


def fresh(material: Material, base: Backbone) -> TermNetwork:
    torch.manual_seed(0)
    size = len(base.words)
    return TermNetwork(base, idf(material.states, np.arange(len(material.corpus.texts)), size=size),
                       mean_length=5.0, asked=np.full(size, 0.05, np.float32))


def test_real_and_made_queries_keep_clear_of_what_is_held_out(corpus: Corpus) -> None:
    assert corpus.names == ("one", "two")
    assert set(corpus.kind.tolist()) == {REAL, TITLE, SENTENCE, KEYWORDS}
    assert ((corpus.gold >= 0) == (corpus.kind == REAL)).all()
    assert 4 <= corpus.held.sum() <= 30
    held = corpus.development(0, questions=100)
    assert len(held) > 2
    assert corpus.held[corpus.gold[held]].all()
    assert (corpus.source[corpus.gold[held]] == 0).all()
    assert not set(held.tolist()) & set(corpus.training.tolist())
    assert len(corpus.training) == 150 - 75 + min(75, int((corpus.kind != REAL).sum()))
    assert len(corpus.further) + int((corpus.gold[corpus.training] >= 0).sum()) == 2 * int((~corpus.held).sum())
    assert not any(corpus.held[row] for _, row in corpus.further)
    titles = [text for text, kind in zip(corpus.queries, corpus.kind, strict=True) if kind == TITLE]
    assert titles


def test_the_same_seed_holds_out_the_same_passages(root: Path, corpus: Corpus) -> None:
    again = read([root / "one", root / "two"], seed=5, held_share=0.2, most=150)
    assert (again.digest, again.queries) == (corpus.digest, corpus.queries)
    other = read([root / "one", root / "two"], seed=6, held_share=0.2)
    assert other.digest != corpus.digest
    assert not np.array_equal(other.held, corpus.held)
    with pytest.raises(InputError, match="one, one"):
        read([root / "one", root / "one"], seed=5)


def test_hidden_states_are_what_the_backbone_gives(root: Path, material: Material, base: Backbone) -> None:
    """Layer by layer in torch, for some passages; the vectors as the encoder gives them."""
    from transformers import BertModel

    model = BertModel.from_pretrained(root / "source").eval()
    hidden, ids = material.states.batch(np.array([0, 7, 33]))
    for row, tokens in zip(hidden, ids, strict=True):
        real = torch.from_numpy(tokens[tokens >= 0])[None]
        with torch.inference_mode():
            expected = model(real, output_hidden_states=True).hidden_states[base.tap][0]
        assert np.abs(row[tokens >= 0].astype(np.float32) - expected.numpy()).max() < 0.08      # bf16 where it is real
        assert not row[tokens < 0].any()
    assert np.allclose(np.linalg.norm(material.states.vectors, axis=1), 1, atol=1e-3)


def test_states_of_something_else_are_refused_by_name(root: Path, material: Material, corpus: Corpus, base: Backbone) -> None:
    def opened(**change: object) -> None:
        wanted = replace(StatesOf(base.name, corpus.digest, base.tap, 32), **change)    # type: ignore[arg-type]
        states(root / "states", corpus.texts, wanted=wanted, encoder=root / "tiny", on_progress=no_progress)

    opened()
    with pytest.raises(SnapshotMismatch, match=r"tap 1, not 2"):
        opened(tap=2)
    with pytest.raises(SnapshotMismatch, match=r"encoder tiny@.*, not other"):
        opened(encoder="other")


def test_candidates_are_trained_passages_other_than_the_right_one(corpus: Corpus, material: Material) -> None:
    for query in corpus.training:
        found = material.candidates[query]
        found = found[found >= 0]
        assert len(set(found.tolist())) == len(found)
        assert not corpus.held[found].any()
        assert corpus.gold[query] not in found
    held = np.setdiff1d(np.arange(len(corpus.queries)), corpus.training)
    assert (material.candidates[held] == -1).all()


def test_tokens_that_questions_add_are_not_in_the_passage(corpus: Corpus, material: Material, base: Backbone) -> None:
    rows = [row for row, ids in enumerate(material.targets) if len(ids)]
    assert rows
    for row in rows:
        held = set(material.states.ids[material.states.starts[row]:material.states.starts[row + 1]].tolist())
        assert not held & set(material.targets[row].tolist())
        assert base.addable[material.targets[row]].all()
        assert not corpus.held[row]


def test_batches_follow_from_seed_and_step_alone(material: Material) -> None:
    def batch(step: int, seed: int = 3) -> Batch:
        return drawn(material, step=step, seed=seed, queries=6, group=4, real_share=0.5)

    one, again, next_one = batch(2), batch(2), batch(3)
    assert np.array_equal(one.passages, again.passages)
    assert np.array_equal(one.queries, again.queries)
    assert not np.array_equal(one.passages, next_one.passages)
    assert not np.array_equal(one.passages, batch(2, seed=4).passages)
    assert one.passages.shape == (24,)
    assert (one.own >= 0).sum() == 3
    gold = material.corpus.gold[one.queries]
    for at, own in enumerate(one.own):
        if own >= 0:
            assert one.passages[own] == gold[at]
            assert one.allowed[at, own]
            again_right = [column for column, row in enumerate(one.passages) if row == gold[at] and column != own]
            assert not one.allowed[at, again_right].any()
    assert not material.corpus.held[one.passages].any()


def test_contrast_is_the_cross_entropy_over_fair_passages() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.1, 0.2]])
    allowed = torch.tensor([[True, True, False], [True, True, True]])
    expected = -math.log(math.exp(2) / (math.exp(1) + math.exp(2)))
    assert losses.contrast(scores, torch.tensor([1, -1]), allowed=allowed).item() == pytest.approx(expected, abs=1e-6)
    assert losses.contrast(scores, torch.tensor([-1, -1]), allowed=allowed).item() == 0


def test_divergence_likelihood_and_flops_are_what_they_are_called() -> None:
    scores = torch.tensor([[0.3, 1.0, -2.0]])
    assert losses.divergence(scores, scores + 5).item() == pytest.approx(0, abs=1e-6)
    p, q = torch.softmax(torch.tensor([1.0, 0.0, 0.0]), 0), torch.softmax(scores[0], 0)
    assert losses.divergence(scores, torch.tensor([[1.0, 0.0, 0.0]])).item() == pytest.approx(float((p * (p / q).log()).sum()),
                                                                                              abs=1e-6)
    counted = torch.tensor([[1.0, 0.0, 1.0]])
    chance = torch.sigmoid(scores[0])
    expected = -(math.log(chance[0]) + math.log(1 - chance[2]))
    assert losses.likelihood(scores, torch.tensor([[1.0, 1.0, 0.0]]), counted=counted).item() == pytest.approx(expected, abs=1e-5)
    assert losses.flops(torch.tensor([2.0, 1.0]), torch.tensor([2.0, 0.1])).item() == pytest.approx(2.0 ** 2 / 2 + 1.0 ** 2 / 1)
    assert [losses.ramp(step, over=4) for step in (0, 2, 4, 9)] == [0, 0.25, 1, 1]


def test_the_networks_scores_are_the_sum_over_question_tokens(material: Material, base: Backbone) -> None:
    network = random_network(base)
    batch = drawn(material, step=0, seed=1, queries=4, group=3, real_share=0.5)
    hidden, ids = material.states.batch(batch.passages)
    with torch.inference_mode():
        encoded = network(torch.from_numpy(hidden).float(), torch.from_numpy(ids))
        held, added = network.matrix(encoded, torch.from_numpy(ids))
        table = network.questions()
        k1, b = float(torch.nn.functional.softplus(network.k1)), float(torch.sigmoid(network.b))
        slow = np.zeros_like(batch.similarity)
        for at, query in enumerate(batch.queries):
            for number, count in zip(*material.tokens.of(int(query)), strict=True):
                for column in range(len(batch.passages)):
                    where = np.flatnonzero(ids[column] == number)
                    length = base.kept[ids[column][ids[column] >= 0]].sum()
                    factor = len(where) * (k1 + 1) / (len(where) + k1 * (1 - b + b * length / 5))
                    weight = max((factor * float(encoded.tokens[column, i]) for i in where), default=float(added[column, number]))
                    slow[at, column] += count * float(table[number]) * weight
        rows = torch.zeros((len(batch.queries), len(table)))
        for at, query in enumerate(batch.queries):
            for number, count in zip(*material.tokens.of(int(query)), strict=True):
                rows[at, number] = count
        fast = ((rows * table) @ (held + added).T).numpy()
        at_places = matched(rows * table, network.placed(encoded.tokens, torch.from_numpy(ids)), torch.from_numpy(ids))
    assert np.allclose(fast, slow, atol=1e-4)
    assert np.allclose(at_places, (rows * table) @ held.T, atol=1e-4)
    assert not (held > 0)[:, torch.from_numpy(~base.kept)].any()
    assert not ((held > 0) & (added > 0)).any()
    assert (slow > 0).any()


def test_steps_on_one_batch_lower_its_loss(material: Material, base: Backbone) -> None:
    network, plan = fresh(material, base), replace(PLAN, layer_rate=1e-3, head_rate=1e-2, table_rate=1e-2)
    batch = drawn(material, step=0, seed=9, queries=8, group=3, real_share=1.0)
    steps, seen = optimiser(network, plan), []
    for _ in range(20):
        loss, parts = loss_of(network, material, batch, step=0, plan=plan, device="cpu")
        seen.append((loss.item(), parts["contrast"]))
        steps.zero_grad()
        torch.autograd.backward([loss])
        steps.step()
    assert seen[2][0] < seen[0][0]
    assert seen[-1][0] < seen[0][0] - 0.2
    assert seen[-1][1] < 0.8 * seen[0][1]


def test_a_killed_run_goes_on_to_the_same_weights(material: Material, base: Backbone, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill(tick: Tick) -> None:
        if tick.step == 4:      # after the checkpoint of step 4, two steps on
            raise Killed

    whole, part = tmp_path / "whole", tmp_path / "part"
    for folder in (whole, part):
        folder.mkdir()
    train(fresh(material, base), material, PLAN, folder=whole, device="cpu", every=2, on_tick=lambda tick: None)
    with pytest.raises(Killed):
        train(fresh(material, base), material, PLAN, folder=part, device="cpu", every=2, on_tick=kill)
    seen: list[int] = []
    again = fresh(material, base)
    with torch.no_grad():       # whatever it starts as, the checkpoint decides
        for parameter in again.parameters():
            parameter.add_(1)
    train(again, material, PLAN, folder=part, device="cpu", every=2, on_tick=lambda tick: seen.append(tick.step))
    assert seen == [4, 5]
    one, two = load_file(whole / CHECKPOINT), load_file(part / CHECKPOINT)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = load_file(whole / CHECKPOINT)["network.weight.weight"]
    assert not torch.equal(other, fresh(material, base).state_dict()["weight.weight"])


def test_a_checkpoint_of_another_plan_is_refused(material: Material, base: Backbone, tmp_path: Path) -> None:
    short = replace(PLAN, steps=2)
    train(fresh(material, base), material, short, folder=tmp_path, device="cpu", every=2, on_tick=lambda tick: None)
    with pytest.raises(ConfigError, match="seed 3, not 4"):
        train(fresh(material, base), material, replace(short, seed=4), folder=tmp_path, device="cpu", every=2,
              on_tick=lambda tick: None)
    (tmp_path / CHECKPOINT).write_bytes(b"nonsense")
    with pytest.raises(ModelCorrupt, match="is no checkpoint"):
        train(fresh(material, base), material, short, folder=tmp_path, device="cpu", every=2, on_tick=lambda tick: None)


def test_a_tap_beyond_the_backbone_is_refused(root: Path, base: Backbone) -> None:
    with pytest.raises(ConfigError, match=f"no layer 9: tiny@.* has {LAYERS}"):
        backbone(published(root / "source", name="tiny"), tap=9)
    assert base.name.startswith("tiny@")


def test_splade_weighs_as_the_transformers_library_does(root: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(1)
    model = BertForMaskedLM(BertConfig(**json.loads((root / "source" / "config.json").read_text(encoding="utf-8")))).eval()
    model.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text((root / "source" / "tokenizer.json").read_text(encoding="utf-8"), encoding="utf-8")
    ours = backbone(published(root / "source", name="tiny"), tap=1).vocabulary
    teacher = Splade(tmp_path, vocabulary=ours, sha256=None)
    texts = ["the warranty lasts", "two"]
    taught = teacher.taught(texts, max_tokens=16, stage="teacher", on_progress=no_progress)
    for at, ids in enumerate([[2, token("the"), token("warranty"), token("lasts"), 3], [2, token("two"), 3]]):
        with torch.inference_mode():
            expected = torch.log1p(torch.relu(model(torch.tensor([ids])).logits[0].amax(0)))
        assert torch.allclose(taught.dense(np.array([at]), folds=np.arange(len(WORDS)))[0], expected, atol=2e-3)
    with pytest.raises(ModelCorrupt, match="has sha256"):
        Splade(tmp_path, vocabulary=ours)
    with pytest.raises(SnapshotMismatch, match="feedfeed"):
        Splade(tmp_path, vocabulary="feedfeed", sha256=None)


def test_taught_weights_take_part_in_the_loss(material: Material, base: Backbone) -> None:
    rng = np.random.default_rng(0)

    def taught(rows: int) -> Taught:
        return Taught(np.tile(np.arange(8, dtype=np.uint16), (rows, 1)) + 57, rng.random((rows, 8)).astype(np.float16))

    with_teacher = replace(material, taught_passages=taught(len(material.corpus.texts)),
                           taught_queries=taught(len(material.corpus.queries)))
    batch = drawn(material, step=0, seed=1, queries=4, group=3, real_share=0.5)
    network = random_network(base)
    _, without = loss_of(network, material, batch, step=0, plan=PLAN, device="cpu")
    _, told = loss_of(network, with_teacher, batch, step=0, plan=PLAN, device="cpu")
    assert told["contrast"] == without["contrast"]
    assert told["divergence"] != without["divergence"]
    assert told["likelihood"] != without["likelihood"]


def test_numbers_of_the_plan_are_set_by_name() -> None:
    assert changed(Plan(), ["queries=4", "head_rate=1e-3"]) == replace(Plan(), queries=4, head_rate=1e-3)
    with pytest.raises(ConfigError, match="'speed'"):
        changed(Plan(), ["speed=4"])
    with pytest.raises(ConfigError, match="queries=many"):
        changed(Plan(), ["queries=many"])


def test_the_history_of_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    history, quality = History(), Quality(0.5, 0.6, 10, 2, 3.0)
    for step in (10, 20, 30):
        history.add(step, {"loss": 1.0}, {"one": (quality, quality)}, seconds=1)
    history.write(tmp_path / "history.json")
    again = History.read(tmp_path / "history.json")
    again.add(20, {"loss": 0.5}, {"one": (quality, quality)}, seconds=1)
    assert [entry["step"] for entry in again.entries] == [10, 20]
    assert History.read(tmp_path / "none.json").entries == []


def test_the_command_leaves_all_files_and_finds_its_work_again(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                               ) -> None:
    data, source = make_data(tmp_path / "data", passages=120, seed=2), root / "source"
    sanity = make_data(tmp_path / "elsewhere", passages=12, seed=8)
    arguments = ["--data", str(data), "--sanity", str(sanity), "--out", str(tmp_path / "run"), "--backbone", str(source),
                 "--model", "tiny", "--tap", "1", "--steps", "4", "--every", "2", "--tokens", "32", "--depth", "3",
                 "--set", "queries=4", "group=3"]
    assert main(arguments) == 0
    out = tmp_path / "run"
    base = backbone(published(source, name="tiny"), tap=1)
    weights = out / f"{base.name.replace('@', '-')}.safetensors"
    model = read_weights(weights, encoder=base.name, vocabulary=base.vocabulary)
    assert model.facts.scale > 0
    history = json.loads((out / "history.json").read_text(encoding="utf-8"))
    assert [entry["step"] for entry in history["entries"]] == [0, 2, 4]
    assert set(history["entries"][0]["dev"]) == {"data", "elsewhere"}
    assert set(history["peers"]) == {"bm25", "dense"}
    card = (out / "card.md").read_text(encoding="utf-8")
    assert model.name in card
    assert str(tmp_path) not in card
    assert (out / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert "done" in capsys.readouterr().err
    assert main(arguments) == 0
    assert read_weights(weights, encoder=base.name, vocabulary=base.vocabulary).name == model.name
    assert main([*arguments[:-2], "queries=5", "group=3"]) == 1
    assert "queries 4, not 5" in capsys.readouterr().err
