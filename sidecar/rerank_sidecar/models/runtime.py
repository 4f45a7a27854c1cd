"""The one place where runtimes are imported, so that they do not phone home."""

from __future__ import annotations

import os
import sys
from typing import Any, TypeAlias

from rerank_sidecar.errors import MissingExtra

# Neither package carries types of its own that mypy could follow.
OpenVino: TypeAlias = Any
"""The module `openvino`."""

OpenVinoModel: TypeAlias = Any
"""An `openvino.Model`."""

OnnxRuntime: TypeAlias = Any
"""The module `onnxruntime`."""


def load_openvino() -> OpenVino:
    """Import OpenVINO with its usage statistics switched off, and give the module.

    OpenVINO and NNCF send an event when they are imported unless the package
    `openvino_telemetry` is absent or a consent file in the home directory says no. A None in
    `sys.modules` is how Python marks a package as absent; nothing is written to the home directory.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def quieten_transformers() -> None:
    """Keep transformers' progress bars and its reports on weights out of the log.

    What is wrong with a model's weights is found here, and told by an error.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def load_onnxruntime() -> OnnxRuntime:
    """Import ONNX Runtime with its telemetry switched off, and give the module.

    Since 1.29 its Linux packages send events to Microsoft unless this variable is set before the
    library is loaded (its Privacy.md). Whoever embeds this package and wants them sets it to 0.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra("onnxruntime", "an engine `onnxruntime-...`") from error
    return onnxruntime
