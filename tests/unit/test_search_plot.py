"""The picture of a search: what it shows, in which formats, and what is refused before anything is asked."""

from __future__ import annotations

import builtins
import struct
from pathlib import Path

import pytest
from cli_fakes import WAY, Cli

from rag.cli import search_plot
from rag.errors import InputError
from rag.types import SearchPath

EMPTY = SearchPath(budget=0, asked=())
GROWN = SearchPath(budget=128, asked=((20, 0.5), (40, 0.6), (400, 0.7)), growth=((20, 0.5), (40, 0.6)), chosen=(40, 0.6))
MANY = SearchPath(budget=64, asked=tuple((i % 64, 1.0 + i / 1e5) for i in range(3000)), chosen=(10, 1.02999), unlisted=7)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    return Cli(monkeypatch, tmp_path)


def saved(folder: Path, way: SearchPath, *, name: str = "a.svg", question: str = "Who?") -> str:
    path = folder / name
    search_plot.save(path, way, selector="mcts", question=question)
    return path.read_text(encoding="utf-8") if name.endswith(".svg") else ""


@pytest.mark.parametrize("way", [WAY, EMPTY, GROWN, MANY, SearchPath(9, ((5, 0.0),), chosen=(5, 0.0))])
def test_every_way_can_be_drawn(tmp_path: Path, way: SearchPath) -> None:
    assert saved(tmp_path, way).endswith("</svg>\n")
    assert saved(tmp_path, way) == saved(tmp_path, way)


def test_a_png_is_one_and_has_the_size_of_its_plots(tmp_path: Path) -> None:
    sizes = []
    for way in (WAY, MANY):
        saved(tmp_path, way, name="a.png")
        raw = (tmp_path / "a.png").read_bytes()
        assert raw.startswith(b"\x89PNG")
        sizes.append(struct.unpack(">II", raw[16:24]))
    (narrow, _), (wide, _) = sizes
    assert narrow < wide        # many sets near the best get a plot of their own


def test_what_is_named_in_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    kept = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), kept(self, *a, **k)))
    saved(tmp_path, WAY, question="What costs $5 and $6? " + "word " * 60)
    [axes] = drawn[0].axes
    labels = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert labels == ["chosen: 0.912 at 231 tokens", "next best: 0.900 at 250 tokens", "greedy: 0.700 at 90 tokens", "best so far",
                      "set asked about"]
    assert axes.get_title(loc="left") == "mcts  ·  5 sets asked about"
    assert drawn[0].get_suptitle().startswith("What costs $5 and $6? word")
    assert drawn[0].get_suptitle().endswith("…")
    low, high = axes.get_ylim()
    assert low < 0.1 < 0.912 < high
    assert axes.get_xlim()[1] > 256


def test_the_line_of_the_best_so_far_only_rises() -> None:
    assert search_plot.records(WAY.asked) == [(12, 0.1), (90, 0.7), (231, 0.912345)]
    assert search_plot.records([]) == []
    assert search_plot.records([(5, -1.0), (6, -1.0), (7, -0.5)]) == [(5, -1.0), (7, -0.5)]


@pytest.mark.parametrize(("name", "said"), [("a.gif", r"End the name in \.png, \.svg, \.pdf"), ("a", "End the name"),
                                            ("missing/a.png", "no folder")])
def test_a_place_that_cannot_be_drawn_to_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        search_plot.checked(tmp_path / name)
    assert caught.value.field == "trace_plot"


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_plot, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'thriftrag\[plots\]'"):
        search_plot.checked(tmp_path / "a.png")
    assert search_plot.checked(None) is None


def test_ask_draws_and_still_answers(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("ask", "Who?", "--trace-plot", str(tmp_path / "a.svg"))
    assert done.code == 0
    assert "Two years [1]." in done.out
    assert f"Drawn: {tmp_path / 'a.svg'}" in done.err
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_ask_json_stays_one_object_beside_a_picture(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("ask", "Who?", "--json", "--trace-plot", str(tmp_path / "a.png"))
    assert done.json["answer"] == "Two years [1]."
    assert (tmp_path / "a.png").exists()


def test_ask_says_when_there_is_nothing_to_draw(cli: Cli, tmp_path: Path) -> None:
    cli.kb.way = None
    done = cli.run("ask", "Who?", "--trace-plot", str(tmp_path / "a.png"))
    assert done.code == 0
    assert "Nothing was drawn" in done.err
    assert not (tmp_path / "a.png").exists()


def test_a_bad_name_costs_no_question(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("ask", "Who?", "--trace-plot", str(tmp_path / "a.gif"))
    assert done.code == 2
    assert not [name for name, _ in cli.kb.calls if name == "ask"]


def test_without_a_picture_matplotlib_is_not_loaded(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: object, **kwargs: object) -> object:
        assert not name.startswith("matplotlib")
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", guarded)
    assert cli.run("ask", "Who?", "--trace").code == 0
