"""`thriftrag keys`: the API keys of this home's server. A key is shown once, when it is made."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli import options, session, terminal
from rag.settings import Settings

if TYPE_CHECKING:
    from api.database import Database

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Make, list and revoke the API keys of the server.",
                  epilog=options.examples("thriftrag keys create web --scopes read", "thriftrag keys list"))


@app.command(epilog=options.examples(
    "thriftrag keys create web --scopes read --collections handbook --per-minute 60",
    "thriftrag keys create loader --scopes write",
    "thriftrag keys create partner --scopes read,write --tenant partner --tokens-per-day 500000 --usd-per-day 2"))
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for; shown in lists and logs.")],
    scopes: Annotated[str, typer.Option("--scopes", metavar="A,B",
                                        help="Of read, write (reads too) and admin (everything). Default: read.")] = "read",
    tenant: Annotated[str, typer.Option("--tenant", metavar="NAME",
                                        help="Collections of a home of their own, which no other tenant can reach.")] = "",
    collections: Annotated[str, typer.Option("--collections", metavar="A,B",
                                             help="Only these collections. Default: all of the tenant's.")] = "",
    per_minute: Annotated[int, typer.Option("--per-minute", metavar="N", help="Most requests a minute; 0 sets no limit.")] = 0,
    at_once: Annotated[int, typer.Option("--at-once", metavar="N", help="Most requests under way at once; 0 sets no limit.")] = 0,
    tokens_per_day: Annotated[int, typer.Option("--tokens-per-day", metavar="N",
                                                help="Most tokens of the reader a day, in UTC; 0 sets no limit.")] = 0,
    usd_per_day: Annotated[float, typer.Option("--usd-per-day", metavar="USD",
                                               help="Most US dollars a day, in UTC; 0 sets no limit.")] = 0.0,
    as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False,
) -> None:
    """Make a key and show it. It cannot be shown again: only a hash of it is kept."""
    from api import audit, keys

    settings = session.settings(home=home, verbose=verbose)
    terms = keys.Terms(scopes=_listed(scopes), tenant=tenant, collections=_listed(collections), per_minute=per_minute,
                       at_once=at_once, tokens_per_day=tokens_per_day, usd_per_day=usd_per_day)
    with _opened(settings) as database:
        key, text = keys.create(database, name, terms=terms)
        audit.record(settings.home, "key.create", key="cli", target=key.id)
    if as_json:
        terminal.print_json({"key": text, **key.to_dict()})
    else:
        print(text)
        print(f"Key {key.id} for {key.name}. Keep it now: it is not shown again.", file=sys.stderr)


@app.command("list", epilog=options.examples("thriftrag keys list", "thriftrag keys list --json"))
def list_(as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """List the keys with what each may do. The keys themselves are not kept and cannot be shown."""
    from api import keys

    with _opened(session.settings(home=home, verbose=verbose)) as database:
        found = keys.listed(database)
    if as_json:
        terminal.print_json({"keys": [key.to_dict() for key in found]})
    elif not found:
        print("There are no keys. Next: thriftrag keys create NAME")
    for key in found if not as_json else ():
        where = f"  collections {','.join(key.collections)}" if key.collections else ""
        tenant = f"  tenant {key.tenant}" if key.tenant else ""
        state = f"revoked {key.revoked}" if key.revoked else f"made {key.created}"
        print(f"{key.id}  {key.name}  {','.join(key.scopes)}{tenant}{where}  {state}")


@app.command(epilog=options.examples("thriftrag keys revoke 0123456789ab      # ids are in `thriftrag keys list`"))
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="As `thriftrag keys list` shows it.")],
           as_json: options.Json = False, home: options.Home = None, verbose: options.Verbose = False) -> None:
    """Make a key void at once. What it has used stays in the ledger."""
    from api import audit, keys

    settings = session.settings(home=home, verbose=verbose)
    with _opened(settings) as database:
        key = keys.revoke(database, key_id)
        audit.record(settings.home, "key.revoke", key="cli", target=key.id)
    if as_json:
        terminal.print_json({"revoked": key.id, "at": key.revoked})
    else:
        print(f"Key {key.id} ({key.name}) is void since {key.revoked}.")


@contextmanager
def _opened(settings: Settings) -> Iterator[Database]:
    from api.database import Database

    database = Database(settings.home)
    try:
        yield database
    finally:
        database.close()


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
