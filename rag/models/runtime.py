"""The one way in which we reach OpenVINO in this process."""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openvino import Core

_TELEMETRY = "openvino_telemetry"


def import_openvino() -> ModuleType:
    """openvino, without the event that a plain import sends over the network and the files it leaves in the home folder.

    openvino falls back to a silent stub when its telemetry package is not there, so it is hidden during the import.
    """
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # documented: makes the import raise ModuleNotFoundError
    try:
        import openvino
    finally:
        if hidden:
            del sys.modules[_TELEMETRY]
    return openvino  # type: ignore[no-any-return]


@functools.cache
def core() -> Core:
    """The process's only `Core`, kept to the end.

    Each one gives its thread a signal stack and puts the previous one back when it goes. Two that go in another order than
    they came leave a freed stack in place, and the next signal (Ctrl-C) ends the process with a segmentation fault.
    """
    return import_openvino().Core()
