"""The registry: what ships is complete and consistent; what is broken is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rag.errors import ConfigError
from rag.models.registry import REGISTRY, find, load_registry
from rag.settings import load
from tests.tiny_models import blob_entry, write_registry

SHA256 = re.compile(r"[0-9a-f]{64}")


def test_the_defaults_of_the_settings_are_in_the_registry_in_their_roles() -> None:
    settings, registry = load({}, environ={}), load_registry()
    assert registry[settings.embedder].role == "embedder"
    assert registry[settings.reader].role == "reader"
    assert len(registry) >= 3


def test_every_entry_pins_every_file_and_package() -> None:
    seen: set[str] = set()
    for entry in load_registry().values():
        assert entry.role in ("embedder", "reader")
        assert entry.licence in ("Apache-2.0", "MIT", "BSD-3-Clause")
        assert entry.description.endswith(".")
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", entry.repo)
        assert re.fullmatch(r"[0-9a-f]{40}", entry.revision), "a branch can change under us"
        assert entry.files
        assert 0 < entry.installed_bytes <= entry.convert_bytes
        for row in (*entry.files, *entry.packages):
            assert SHA256.fullmatch(row.sha256)
            assert row.bytes > 0
            assert row.sha256 not in seen
            seen.add(row.sha256)
        for package in entry.packages:
            assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", package.requirement)


def test_numbered_packages_are_all_there() -> None:
    for entry in load_registry().values():
        numbers = [int(found[1]) for package in entry.packages if (found := re.search(r"part(\d+)$", package.name))]
        assert numbers == list(range(1, len(numbers) + 1))


def test_the_known_weights_are_the_published_ones() -> None:
    registry = load_registry()
    files = {file.path: (file.bytes, file.sha256) for entry in registry.values() for file in entry.files}
    assert files["model.safetensors"] == (90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
    assert files["qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"] == (
        491_400_064, "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32")
    assert files["qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"] == (
        1_117_320_768, "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046")


def test_an_unknown_name_suggests_the_nearest() -> None:
    registry = load_registry()
    with pytest.raises(ConfigError, match="all-MiniLM-L6-v3") as caught:
        find(registry, "all-MiniLM-L6-v3")
    assert "'all-minilm-l6-v2'" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        find(registry, "zzz")
    assert all(name in caught.value.hint for name in registry)


@pytest.mark.parametrize(("old", "new"), [
    ("format = 1", "format = 2"), ("format = 1", ""), ("format = 1", "format ="),
    ('role = "embedder"', 'rolle = "embedder"'),
    ('path = "small.json"', 'path = "../small.json"'), ('path = "small.json"', 'path = "/small.json"'),
    ("sha256", "sha"), ("packages = []", "packages = 3")])
def test_a_broken_registry_is_refused_by_its_path(tmp_path: Path, old: str, new: str) -> None:
    path = write_registry(tmp_path / "models.toml", [blob_entry()])
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=str(path)):
        load_registry(path)


def test_a_missing_registry_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_registry(tmp_path / "none.toml")


def test_the_shipped_registry_lies_beside_the_package() -> None:
    assert REGISTRY.is_file()
    assert REGISTRY.parent.name == "rag"


def test_models_can_be_listed_without_loading_anything_heavy() -> None:
    script = ("import sys; from rag.models import ModelCache; from pathlib import Path\n"
              "cache = ModelCache(Path('/nonexistent')); [cache.state(entry.name) for entry in cache.entries()]\n"
              "print({'openvino', 'numpy', 'torch', 'httpx', 'tokenizers'} & set(sys.modules))")
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                           cwd=Path(__file__).parents[2])
    assert found.stdout.strip() == "set()"
