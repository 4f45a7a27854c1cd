"""The one place where OpenVINO is imported, so that it does not phone home."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

# OpenVINO's packages carry no types of their own that mypy could follow.
OpenVino: TypeAlias = Any
"""The module `openvino`."""

OpenVinoModel: TypeAlias = Any
"""An `openvino.Model`."""


def load_openvino() -> OpenVino:
    """Import OpenVINO with its usage statistics switched off, and give the module.

    OpenVINO and NNCF send an event when they are imported unless the package
    `openvino_telemetry` is absent or a consent file in the home directory says no. A None in
    `sys.modules` is how Python marks a package as absent; nothing is written to the home directory.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
