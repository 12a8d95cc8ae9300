"""What encoders made of texts, on disk: a file for each model and list of texts, so that a rerun computes only what is new."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rag.errors import StorageError

FOLDER = "encodings"
Arrays = Mapping[str, NDArray[np.generic]]


class Remembered:
    """Arrays by name below `folder`; None remembers nothing. Each file holds what one call made, and is never changed."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def arrays(self, model: str, digest: str, make: Callable[[], Arrays]) -> Arrays:
        """What `make` gave for this model and the texts of this digest, now or in an earlier run. A file that cannot be read is
        made again. `model` names whatever changes the arrays.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._folder is None:
            return make()
        from safetensors import SafetensorError
        from safetensors.numpy import load_file, save_file

        path = self._folder / f"{re.sub(r'[^A-Za-z0-9@._-]+', '-', model)}-{digest}.safetensors"
        if path.is_file():
            try:
                found: Arrays = load_file(path)
                return found
            except (SafetensorError, OSError):
                pass            # cut short by a full disk: what it held can be made again
        made = make()
        part = path.with_name(f"{path.name}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file({name: np.ascontiguousarray(array) for name, array in made.items()}, part)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"Encodings cannot be kept in {self._folder}: {error}.",
                               hint="Make room, or name another home with --home.") from error
        return made
