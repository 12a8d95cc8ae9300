"""The page as a browser and a screen reader get it: whole, self-contained, named and in order, without a script too."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest
from lxml import html as parser

from eval.report import records, write_report
from tests.report_run import drawn

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = drawn(tmp_path_factory.mktemp("page") / "run", datasets=("alpha", "beta"),
                 systems=("closed_book", "gold", "topk", "sentences", "thrift", "mine"), budgets=(64, 256), questions=18, read=12)
    write_report(path, wins_for="thrift", budget=64)
    return path


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> parser.HtmlElement:
    return parser.document_fromstring(text)


def told(element: parser.HtmlElement) -> str:
    return " ".join(str(element.text_content()).split())


def test_every_element_that_is_opened_is_closed_in_order(text: str) -> None:
    body = re.sub(r"<(style|script)>.*?</\1>", "", text, flags=re.DOTALL)
    open_ones: list[str] = []
    for closing, name in re.findall(r"<(/?)([a-z][a-z0-9]*)[^>]*>", body):
        if closing:
            assert open_ones.pop() == name
        elif name not in VOID:
            open_ones.append(name)
    assert open_ones == []


def test_nothing_is_fetched_and_only_our_script_may_run(page: parser.HtmlElement, text: str) -> None:
    links = [link for _, attribute, link, _ in page.iterlinks() if attribute is not None]
    assert links
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"url\(|@import|https?://", text)
    (script,) = page.iter("script")
    (policy,) = page.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    assert f"script-src 'sha256-{b64encode(sha256(script.text.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert not page.xpath("//@*[starts-with(name(), 'on')]")


def test_every_section_is_named_and_reachable(page: parser.HtmlElement) -> None:
    targets = [link.removeprefix("#") for link in page.xpath("//nav//a/@href")]
    assert targets == page.xpath("//main/section[@id]/@id")
    identifiers = page.xpath("//@id")
    assert len(identifiers) == len(set(identifiers))
    for section in page.xpath("//main/section"):
        assert told(page.get_element_by_id(section.get("aria-labelledby")))
    levels = [int(heading.tag[1]) for heading in page.xpath("//h1|//h2|//h3|//h5")]
    assert levels[0] == 1
    assert levels.count(1) == 1


def test_plots_are_told_to_screen_readers_and_marks_to_the_pointer(page: parser.HtmlElement) -> None:
    plots = page.xpath("//svg[@class='plot']")
    # Macro mean and two data sets; tokens of context and prompt, money, seconds; F1 and answer in context.
    assert len(plots) == 3 * 4 * 2
    for plot in plots:
        assert plot.get("role") == "img"
        assert "thrift from" in plot.get("aria-label")
    first = plots[0]
    assert [series.get("data-system") for series in first.xpath(".//g[contains(@class, 'series')]")] == [
        "closed_book", "gold", "sentences", "mine", "topk", "thrift"]
    assert len(first.xpath(".//path[contains(@class, 'mark')]/title")) == 4 * 2
    assert len(first.xpath(".//path[@class='band']")) == 2, "the two that are compared"
    assert len(plots[1].xpath(".//g[contains(@class, 'level')]")) == 1, "a closed book has no context to hold an answer"


def test_dominated_points_are_hollow(page: parser.HtmlElement, folder: Path) -> None:
    (front,) = [one for one in records.load(folder).summary["frontiers"]
                if (one["dataset"], one["x"], one["y"]) == ("macro mean", "context_tokens", "f1")]
    wanted = sorted((one["system"], point["budget"]) for one in front["systems"] if one["bound"]
                    for point in one["points"] if point["dominated"])
    hollow = page.xpath("(//svg[@class='plot'])[1]//path[contains(@class, 'hollow')]/title")
    assert wanted
    assert sorted(re.match(r"(\S+) (\d+):", told(one)).groups() for one in hollow) == [  # type: ignore[union-attr]
        (system, str(budget)) for system, budget in wanted]


def test_tables_have_named_columns_and_rows_as_wide_as_their_heads(page: parser.HtmlElement) -> None:
    tables = page.xpath("//table")
    assert len(tables) > 12
    for table in tables:
        heads = table.xpath("./thead/tr/th")
        assert {len(row.xpath("./td|./th")) for row in table.xpath("./tbody/tr")} == {len(heads)}
        assert table.xpath("./caption") or table.getparent().get("aria-label")
        assert all(row.xpath("./th[@scope='row']") for row in table.xpath("./tbody/tr"))


def test_everything_is_there_without_a_script(page: parser.HtmlElement) -> None:
    shown = page.xpath("//section[@id='figures']//div[@data-group]")
    assert [one.get("data-group") for one in shown] == ["macro mean", "alpha", "beta"]
    assert page.xpath("//*[@hidden]/@class") == ["controls"], "only the controls, which would do nothing"
    controls = page.xpath("//form//select|//form//input")
    assert controls
    assert all(one.xpath("ancestor::label") for one in controls)


def test_a_system_has_one_class_and_one_colour_everywhere(page: parser.HtmlElement, text: str) -> None:
    found: dict[str, set[str]] = {}
    for element in page.xpath("//*[@data-system]"):
        found.setdefault(element.get("data-system"), set()).update(re.findall(r"\bs\d+\b", element.get("class")))
    assert set(found) == {"closed_book", "gold", "topk", "sentences", "thrift", "mine"}
    for classes in found.values():
        (one,) = classes
        assert len(re.findall(rf"\.{one}\{{--c:#[0-9a-f]{{6}}\}}", text)) == 2, "one for light, one for dark"


def test_wins_and_losses_set_the_two_contexts_side_by_side(page: parser.HtmlElement) -> None:
    assert told(page.get_element_by_id("traces-h")) == "Wins and losses: thrift against topk at 64 tokens"
    traces = page.xpath("//details[contains(@class, 'trace')]")
    assert traces
    for trace in traces:
        assert [told(side) for side in trace.xpath(".//h5")] == ["thrift", "topk"]
        assert len(trace.xpath(".//div[@class='context']")) == 2
        assert trace.xpath(".//li[@class='missed']"), "the second gold passage is never shown in this run"
    assert page.xpath("//div[@class='context']/mark")
    signs = [told(one)[0] for one in page.xpath("//span[contains(@class, 'change')]")]
    assert signs == sorted(signs, key="+\u2212".index)


def test_figures_of_the_page_are_those_of_the_summary(page: parser.HtmlElement, folder: Path) -> None:
    summary = records.load(folder).summary
    (figures,) = [one for one in summary["datasets"][0]["systems"] if (one["system"], one["budget"]) == ("thrift", 64)]
    (table,) = page.xpath("//section[@id='figures']//div[@data-group='alpha']//table")
    names = [told(head) for head in table.xpath("./thead/tr/th")]
    (row,) = table.xpath("./tbody/tr[@data-system='thrift'][@data-budget='64']")
    cells = dict(zip(names, (told(cell) for cell in row.xpath("./th|./td")), strict=True))
    low, high = figures["f1_ci"]
    assert cells["F1 %"] == f"{figures['f1']:.1f} [{low:.1f}, {high:.1f}]"
    assert (cells["n"], cells["n F1"]) == ("18", "12")
    assert cells["context tokens"] == f"{figures['context_tokens']:.0f}"
    assert cells["USD per 1,000"] == f"{1000 * figures['cost_usd']:.3g}".ljust(len(cells["USD per 1,000"]), "0")
    assert cells["seconds"].endswith("n 12")
