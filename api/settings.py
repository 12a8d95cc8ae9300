"""How the server serves, apart from what it answers with (`rag.settings`): addresses, limits, and times.

Read once, highest first: flags of `thriftrag serve`, `THRIFTRAG_SERVE_*` variables, `serve.toml` in the home folder. An unknown
name is an error, as everywhere.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from rag.errors import ConfigError

PREFIX = "THRIFTRAG_SERVE_"
FILE = "serve.toml"


class ServerSettings(BaseSettings):
    """Every limit of the server, with its default, bounds and meaning."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="address to listen on; others than loopback need API keys")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    workers: int = Field(1, ge=1, le=64, description="processes that serve; each opens its own models and collections")
    models: str = Field("", description="readers that requests may name beside the setting `reader`, separated by commas")
    otlp_endpoint: str = Field("", description="where traces go: URL of an OpenTelemetry collector, such as "
                               "http://127.0.0.1:4318/v1/traces; empty: none (extra otel)")
    cors_origins: str = Field("", description="web origins that browsers may call from, separated by commas; empty: none")

    ask_threads: int = Field(4, ge=1, le=256, description="questions answered at once")
    # A short line: who is admitted waits a fraction of an answer's time.
    ask_waiting: int = Field(1, ge=0, le=10_000, description="questions that may wait; more get 429")
    # More threads than that take Python's lock from each other: on 2 processors 4 threads do 67 searches a second, 1 does 112.
    search_threads: int = Field(0, ge=0, le=256, description="searches at once; 0: one for every two processors, 1 at least")
    search_waiting: int = Field(64, ge=0, le=10_000, description="searches that may wait; more get 429")
    upkeep_threads: int = Field(4, ge=1, le=64, description="other calls at once: listings, deletions, usage")
    upkeep_waiting: int = Field(64, ge=0, le=10_000, description="other calls that may wait; more get 429")
    jobs_waiting: int = Field(100, ge=0, le=10_000, description="uploads that may wait to be read in; more get 429")

    body_kb: int = Field(256, ge=1, le=100_000, description="largest JSON body, in kB")
    body_s: float = Field(30.0, gt=0, le=3600, description="longest time to receive a JSON body, in seconds")
    upload_mb: int = Field(200, ge=1, le=100_000, description="largest upload, all files together, in MB")
    upload_files: int = Field(100, ge=1, le=10_000, description="most files in one upload")
    upload_s: float = Field(600.0, gt=0, le=86_400, description="longest time to receive an upload, in seconds")
    max_budget_tokens: int = Field(100_000, ge=1, le=1_000_000, description="largest budget a request may ask for")
    max_deadline_s: float = Field(600.0, gt=0, le=86_400, description="longest deadline a request may ask for, in seconds")
    max_k: int = Field(1000, ge=1, le=10_000, description="most hits a search may ask for")
    open_collections: int = Field(32, ge=1, le=10_000, description="collections kept open at once")

    drain_s: float = Field(30.0, gt=0, le=3600, description="at shutdown, how long what is under way may take, in seconds")
    ping_s: float = Field(10.0, gt=0, le=300, description="a stream that is silent for so long sends a comment, in seconds")

    @classmethod
    def settings_customise_sources(cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
                                   env_settings: PydanticBaseSettingsSource, dotenv_settings: PydanticBaseSettingsSource,
                                   file_secret_settings: PydanticBaseSettingsSource) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags come in as arguments of the constructor; no .env file is looked for."""
        return init_settings, env_settings

    def named_models(self) -> tuple[str, ...]:
        return tuple(name.strip() for name in self.models.split(",") if name.strip())

    def origins(self) -> tuple[str, ...]:
        return tuple(origin.strip() for origin in self.cors_origins.split(",") if origin.strip())


def load(home: Path, flags: Mapping[str, object] | None = None, *, environ: Mapping[str, str] | None = None) -> ServerSettings:
    """The effective settings. Flags of None count as not given.

    Raises:
        ConfigError: an unknown name, or a value of the wrong type or out of bounds; names it and where it stands.
    """
    env = os.environ if environ is None else environ
    known = ServerSettings.model_fields
    given: dict[str, object] = {}
    origin: dict[str, str] = {}
    for layer, where in ((_from_file(home / FILE), str(home / FILE)), (_from_environment(env), "the environment"),
                         ({name: value for name, value in (flags or {}).items() if value is not None}, "a flag")):
        for name, value in layer.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(f"Unknown server setting {name!r} from {where}.", field=name, code="unknown_setting",
                                  hint=f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(known)}.")
            given[name], origin[name] = value, where
    try:
        return ServerSettings.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(f"{name} = {given.get(name)!r} (from {origin.get(name, 'the settings')}): {first['msg']}.", field=name,
                          hint=f"It is: {known[name].description}.") from None


def _from_environment(env: Mapping[str, str]) -> dict[str, object]:
    return {variable[len(PREFIX):].lower(): value for variable, value in env.items()
            if variable.startswith(PREFIX) and value != ""}


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return TomlConfigSettingsSource(ServerSettings, toml_file=path)()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}", hint="Correct the line it names.") from error
