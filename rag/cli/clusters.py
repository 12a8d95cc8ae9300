"""`thriftrag clusters`: summaries of what many texts say, for questions about all of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import checks, edge, interrupt, options, progress, session, terminal
from rag.cli.words import plural
from rag.types import OnProgress

if TYPE_CHECKING:
    from indexers.clusters import Clustering
    from indexers.clusters_build import Report

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                  help="Group the texts of a collection, summarise each group, and answer questions about all of them from that.",
                  epilog=options.examples(
                      "thriftrag clusters build                       # of all texts",
                      "thriftrag clusters build --group-by product    # of the texts of each product",
                      "thriftrag clusters show                        # what most texts say"))
Name = Annotated[str, typer.Argument(
    metavar="NAME", help="Which clusters: the field that they are grouped by, or `all`, as `thriftrag clusters list` shows it.")]


@app.command(epilog=options.examples(
    "thriftrag clusters build                            # all texts of the collection",
    "thriftrag clusters build --group-by product         # the texts of each product by themselves",
    "thriftrag clusters build --k 6 --budget 400         # six clusters, for answers of up to 400 context tokens",
    "thriftrag clusters build --summaries llm            # summaries written by the reader",
    "thriftrag clusters build --again                    # divide anew, whatever was there"))
def build(
    collection: options.Collection = None,
    group_by: Annotated[str, typer.Option(
        "--group-by", metavar="FIELD", help="Cluster the texts of each value of this field by themselves, for instance product or "
                                            "source; fields are named as in --where. Default: all texts together.")] = "",
    k: Annotated[str | None, typer.Option(
        "--k", "-k", metavar="N", help="Clusters of each group. Default: as many as the budget holds summaries of, fewer where "
                                       "that divides the texts better.")] = None,
    budget: Annotated[str | None, typer.Option(
        "--budget", metavar="N",
        help="Tokens that the summaries of one group may take together. Default: 128.")] = None,
    summary_tokens: Annotated[str | None, typer.Option(
        "--summary-tokens", metavar="N", help="Tokens of one summary. Default: 24.")] = None,
    summaries: Annotated[str, typer.Option(
        "--summaries", metavar="HOW", help="extractive takes sentences of the texts and costs no reader call; llm has the reader "
                                           "write them, a call for each cluster.")] = "extractive",
    again: Annotated[bool, typer.Option(
        "--again", help="Divide every group anew. Else texts that came since join the clusters there are.")] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="S", min=0, help="Seed of the division.")] = 13,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Make clusters, or bring them up to date: what did not change costs nothing.

    New texts join the nearest cluster; a summary is made anew when its cluster grew by a fifth or lost a text that it was made
    from; a group is divided anew when its texts have drifted from their clusters. Stop with Ctrl-C at any time: summaries that
    were written stay, and the same command goes on from there.
    """
    typed = {"k": ("--k", k), "budget": ("--budget", budget), "summary_tokens": ("--summary-tokens", summary_tokens)}
    plan = {name: checks.whole_number(value, flag=flag, field=name) for name, (flag, value) in typed.items()}
    given = {name: value for name, value in plan.items() if value is not None}
    settings = session.settings(home=home, collection=collection, verbose=verbose)

    def work(on_progress: OnProgress, cancelled: Callable[[], bool]) -> Report:
        with session.open_kb(settings, create=False) as kb:
            return kb.build_clusters(group_by, summaries=summaries, again=again, seed=seed, on_progress=on_progress,
                                     cancelled=cancelled, **given)

    kept = "Summaries that were written stay; run the same command again to go on."
    with progress.shown() as on_progress:
        ended = interrupt.run(lambda cancelled: work(on_progress, cancelled), kept=kept,
                              finishing="Stopping after the summary in hand; press Ctrl-C again to leave at once.")
    report = ended.result
    if report.interrupted:
        raise edge.Stopped(kept)
    if as_json:
        terminal.print_json({"collection": settings.collection, **report.to_dict()})
        return
    print(told(report))
    if not report.texts:
        print(f"Collection {settings.collection} holds no texts yet. Next: thriftrag ingest PATH")


def told(report: Report) -> str:
    """For instance `75 texts in 4 clusters: 1 group divided, 4 summaries made, 0 reader calls, 0.8 s.`"""
    groups = "" if report.groups == 1 else f" of {plural(report.groups, 'group')}"
    parts = [f"{plural(report.divided, 'group')} divided", f"{plural(report.assigned, 'text')} joined" if report.assigned else "",
             f"{plural(report.refreshed, 'summary', 'summaries')} made",
             f"{plural(report.llm_calls, 'reader call')}" + (f" ({report.recalled} known from before)" if report.recalled else ""),
             f"{plural(report.left_out, 'text')} without the field left out" if report.left_out else "", f"{report.seconds:.1f} s"]
    return f"{plural(report.texts, 'text')} in {plural(report.clusters, 'cluster')}{groups}: {', '.join(filter(None, parts))}."


@app.command("list", epilog=options.examples("thriftrag clusters list", "thriftrag clusters list -c handbook --json"))
def list_(collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
          verbose: options.Verbose = False) -> None:
    """List the clusters that were made: by what field, how many, of which snapshot."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        found, snapshot = kb.clusterings(), kb.info().snapshot
    if as_json:
        terminal.print_json({"collection": settings.collection, "clusterings": [_summary(each, snapshot) for each in found]})
        return
    from rag.cli import tables

    if not found:
        print(f"Collection {settings.collection} has no clusters yet. Next: thriftrag clusters build")
        return
    table = tables.listing(("Name", "left"), ("Groups", "right"), ("Texts", "right"), ("Clusters", "right"), ("Summaries", "left"),
                           ("Built", "left"), ("Collection since", "left"))
    for each in found:
        table.add_row(terminal.clean(each.name), f"{len(each.groups):,}", f"{_texts(each):,}", f"{len(each.clusters):,}",
                      "by the reader" if each.plan.llm else "extractive", each.built,
                      "the same" if each.snapshot == snapshot else "changed")
    terminal.console(sys.stdout).print(table)
    if any(each.snapshot != snapshot for each in found):
        print("\nNext, for what came since: thriftrag clusters build, or ingest with --clusters")


@app.command(epilog=options.examples("thriftrag clusters show all", "thriftrag clusters show product --group kettle --json"))
def show(name: Name = "all", collection: options.Collection = None,
         group: Annotated[str | None, typer.Option("--group", metavar="VALUE", help="Only the clusters of this value.")] = None,
         as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """Show the clusters: share of the texts, words that tell them apart, and the summary."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        clustering, shown = kb.clusters(name, group=group)
    if as_json:
        terminal.print_json({"collection": settings.collection, "name": clustering.name,
                             "clusters": [row.to_dict() for row in shown]})
        return
    for row in shown:
        where = f"{row.group}: " if row.group else ""
        print(terminal.one_line(f"{where}{row.share:.0%} of {plural(row.total, 'text')} ({row.texts}), {row.method}"
                                + (f": {', '.join(row.labels)}" if row.labels else "")))
        print(f"    {terminal.one_line(row.text)}")
    if not shown:
        print("No cluster has a text that still is in the collection.")


@app.command(epilog=options.examples("thriftrag clusters delete all", "thriftrag clusters delete product -c handbook"))
def delete(name: Name, collection: options.Collection = None, as_json: options.Json = False, home: options.Home = None,
           verbose: options.Verbose = False) -> None:
    """Delete clusters and their summaries. The texts stay, and the clusters can be made again."""
    settings = session.settings(home=home, collection=collection, verbose=verbose)
    with session.open_kb(settings, create=False) as kb:
        kb.delete_clusters(name)
    if as_json:
        terminal.print_json({"deleted": name, "collection": settings.collection})
    else:
        print(f"Deleted the clusters {name} of collection {settings.collection}.")


def _texts(clustering: Clustering) -> int:
    return sum(group.texts for group in clustering.groups.values())


def _summary(clustering: Clustering, snapshot: str) -> dict[str, object]:
    return {"name": clustering.name, "groups": len(clustering.groups), "clusters": len(clustering.clusters),
            "texts": _texts(clustering), "snapshot": clustering.snapshot,
            "current": clustering.snapshot == snapshot, "built": clustering.built, "seconds": round(clustering.seconds, 3),
            "prompt_tokens": clustering.prompt_tokens, "completion_tokens": clustering.completion_tokens,
            "plan": clustering.plan.to_dict()}
