"""The one way in which we import openvino."""

from __future__ import annotations

import sys
from types import ModuleType

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
