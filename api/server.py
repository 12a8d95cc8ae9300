"""The process that serves: binds, refuses to bind carelessly, and drains before it ends."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from api import keys
from api.app import create_app
from api.service import Service, is_loopback
from rag.errors import ConfigError


class Draining(uvicorn.Server):
    """Told to stop, it takes no new work, lets what is under way end, and leaves with exit code 0."""

    def __init__(self, service: Service, *, on_listening: Callable[[], None] | None = None) -> None:
        app = create_app(service)
        # h11 is strict and always there. Its access log would show query strings; ours does not.
        super().__init__(uvicorn.Config(
            app, http="h11", ws="none", loop="asyncio", access_log=False, server_header=False, date_header=True, log_config=None,
            lifespan="on", proxy_headers=False, timeout_graceful_shutdown=max(1, int(service.server.drain_s)),
            timeout_keep_alive=15))
        logging.getLogger("uvicorn.access").disabled = True     # whoever listens to it elsewhere in this process
        self._service = service
        self._on_listening = on_listening

    def stop(self) -> None:
        """Begins to drain. From any thread."""
        self._service.draining = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second Ctrl-C leaves at once."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.stop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_listening is not None:
            self._on_listening()


def bind(service: Service) -> socket.socket:
    """A socket on the address of the settings.

    Raises:
        ConfigError: others than this machine could call it and there is no API key; or the address cannot be had.
    """
    host, port = service.server.host, service.server.port
    if not is_loopback(host) and not keys.exist(service.database, valid=True):
        raise ConfigError(f"Without API keys the server does not listen on {host}: everybody could read and change the documents.",
                          field="host", code="keys_needed",
                          hint="Make a key first, `thriftrag keys create NAME --scopes admin`, or listen on 127.0.0.1.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise ConfigError(f"The server cannot listen on {host} port {port}: {error.strerror or error}.", field="port",
                          code="address_unusable", hint="Stop what listens there, or use another --port.") from error
    return listening


def url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
