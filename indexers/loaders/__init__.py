"""Files to documents: `discover` lists what the given paths mean, `load` reads one of them, bad ones become failures."""

from indexers.loaders.discovery import Found, discover
from indexers.loaders.formats import load
from indexers.loaders.jsonl import load_jsonl_lines

__all__ = ["Found", "discover", "load", "load_jsonl_lines"]
