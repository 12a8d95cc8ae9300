"""Models by name: the registry, the cache on disk, and where a name that is not in the registry leads."""

from rag.models.cache import HUB_URL, ModelCache, Pulled, State
from rag.models.manifest import Problem
from rag.models.registry import ModelEntry, Registry, Role, load_registry
from rag.models.resolve import Resolved, resolve

__all__ = [
    "HUB_URL", "ModelCache", "ModelEntry", "Problem", "Pulled", "Registry", "Resolved", "Role", "State",
    "load_registry", "resolve",
]
