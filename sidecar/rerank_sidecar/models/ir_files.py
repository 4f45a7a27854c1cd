"""Writes OpenVINO IR files that are the same bytes each time they are built."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino


def write_ir(model: OpenVinoModel, path: Path) -> None:
    """Write a model as `path` (.xml) and its weights beside it (.bin), reproducibly.

    Left out is what varies from build to build without changing what is computed: versions and
    settings of the tools, names of inner layers (they hold process-wide counters) and whitespace.
    Names of inputs and outputs stay, and so do the options that OpenVINO reads at run time.
    """
    load_openvino().save_model(model, path, compress_to_fp16=False)
    tree = ElementTree.parse(path)  # noqa: S314  (written a line above)
    root = tree.getroot()
    root.set("name", path.stem)
    _drop_provenance(root)
    kept = _public_names(model)
    for layer in root.iter("layer"):
        _rename(layer, kept)
    for element in root.iter():
        element.tail = None
        element.text = (element.text or "").strip() or None
    tree.write(path, encoding="utf-8", xml_declaration=True)


def _public_names(model: OpenVinoModel) -> set[str]:
    return {name for port in [*model.inputs, *model.outputs] for name in port.get_names()}


def _drop_provenance(root: ElementTree.Element) -> None:
    information = root.find("rt_info")
    if information is None:
        return
    for entry in list(information):
        if entry.tag != "runtime_options":
            information.remove(entry)


def _rename(layer: ElementTree.Element, kept: set[str]) -> None:
    if layer.get("type") != "Parameter":
        layer.set("name", f"{layer.get('type')}_{layer.get('id')}")
    for port in layer.iter("port"):
        names = [name for name in port.attrib.pop("names", "").split(",") if name in kept]
        if names:
            port.set("names", ",".join(names))
