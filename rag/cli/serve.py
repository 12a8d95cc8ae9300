"""`thriftrag serve`: the REST service on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rag.cli import edge, options, session, terminal
from rag.errors import ConfigError

EXAMPLES = options.examples(
    "thriftrag serve                                # http://127.0.0.1:8080, for this machine alone",
    "thriftrag serve --port 0 --json                # a free port; prints its address when it listens",
    "thriftrag serve --workers 4                    # four processes, one address",
    "thriftrag serve --host 0.0.0.0                 # for others too, once there are keys: thriftrag keys create",
)


def serve(
    host: Annotated[str | None, typer.Option(
        "--host", metavar="ADDRESS", help="Address to listen on. Any but loopback needs an API key. Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(
        "--port", metavar="N", help="Port to listen on; 0 takes a free one. Default: 8080.")] = None,
    workers: Annotated[int | None, typer.Option(
        "--workers", metavar="N", help="Processes that serve. Each opens its own models: memory times N. Default: 1.")] = None,
    model: Annotated[str | None, typer.Option(
        "--model", metavar="NAME", help="Reader that answers: a name from `thriftrag models list`, a folder, a GGUF file, or a "
                                        f"model at reader_url. {options.default('reader')}")] = None,
    as_json: options.Json = False,
    home: options.Home = None,
    verbose: options.Verbose = False,
) -> None:
    """Serve questions, searches and uploads over HTTP, until Ctrl-C or SIGTERM; what is under way then may end.

    Limits are server settings: THRIFTRAG_SERVE_* variables, or serve.toml in the home folder. Logs are JSON lines on stderr.
    """
    settings = session.settings(home=home, reader=model, verbose=verbose)
    try:
        from api import logs, server
        from api.service import Service
        from api.settings import load
        from api.workers import Workers
    except ModuleNotFoundError as error:
        raise ConfigError(f"The server needs the package {error.name!r}, which is not installed.", code="extra_missing",
                          hint="Run: pip install 'thriftrag[server]'") from error
    service = Service(settings, load(settings.home, {"host": host, "port": port, "workers": workers}))
    try:
        listening = server.bind(service)
    except ConfigError:
        service.close()
        raise
    logs.install(verbose=verbose)
    address = server.url_of(listening)
    if service.server.workers > 1:
        asks = service.asks_for_keys()
        service.close()         # its threads are no use to the workers, and it would count as one of them
        several = Workers(settings, service.server, listening, verbose=verbose)
        if not several.run(on_listening=lambda: _announce(address, settings.home, asks_for_keys=asks, as_json=as_json)):
            raise typer.Exit(edge.FAILED)
        return
    server.Draining(service, on_listening=lambda: _announce(
        address, settings.home, asks_for_keys=service.asks_for_keys(), as_json=as_json)).run([listening])
    if not service.closed:
        service.close()
        raise typer.Exit(edge.FAILED)


def _announce(address: str, home: Path, *, asks_for_keys: bool, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"url": address, "home": str(home), "keys": asks_for_keys})
        terminal.flush()
        return
    print(f"ThriftRAG serves {home} at {address}; Ctrl-C ends it. Open {address}/ in a browser for its page.", file=sys.stderr)
    if not asks_for_keys:
        print("Anybody on this machine may call it: there are no API keys.", file=sys.stderr)
