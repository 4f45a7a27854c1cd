"""Every setting of the server in one frozen object, read once at the start.

Command line over environment (`RERANK_SIDECAR_*`) over TOML file over the defaults below.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

from pydantic import AliasChoices, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.types import LongDocumentPolicy

ENV_PREFIX = "RERANK_SIDECAR_"


class Quantization(StrEnum):
    """How the weights of a model are stored and multiplied on the CPU."""

    INT8 = "int8"
    NONE = "none"


class EngineChoice(StrEnum):
    """Which kernels run the forward passes; see docs/performance.md."""

    AUTO = "auto"
    OPENVINO_INT8 = "openvino-int8"
    OPENVINO_BF16 = "openvino-bf16"
    OPENVINO_FLOAT32 = "openvino-float32"


class LogLevel(StrEnum):
    """The least severity of log lines that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


def _cache_dir() -> Path:
    return Path("~/.cache/rerank-sidecar").expanduser()


class Settings(BaseSettings):
    """What the server does; every field can be set by file, environment or command line."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        env_ignore_empty=True,
    )

    model: str = Field(
        "embedded",
        min_length=1,
        description="What to serve: `embedded`, `lexical`, a folder, or a Hugging Face model id.",
    )
    quantize: Quantization = Field(
        Quantization.INT8,
        description="`int8` (smaller, and faster on a CPU) or `none` (exact) for a model that is "
        "converted here. The embedded model is int8 already.",
    )
    engine: EngineChoice = Field(
        EngineChoice.AUTO,
        description="Which kernels run the model. `auto` times those that keep what `quantize` "
        "promises on this CPU and takes the fastest.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub model.")
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with a hub model. Only for models you trust."
    )
    offline: bool = Field(False, description="Never ask the model hub; use what is on disk.")
    cache_dir: Path = Field(
        default_factory=_cache_dir, description="Where converted models are kept."
    )
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on. Use 0.0.0.0 in a container or to serve other machines.",
    )
    http_port: int = Field(8080, ge=0, le=65535, description="HTTP port; 0 picks a free one.")
    grpc_port: int = Field(50051, ge=0, le=65535, description="gRPC port; 0 picks a free one.")
    enable_cuda: bool = Field(
        False,
        validation_alias=AliasChoices(f"{ENV_PREFIX}ENABLE_CUDA", "ENABLE_CUDA"),
        description="Run on a GPU. Also read from `ENABLE_CUDA`, as the stock container does.",
    )
    cuda_core: str = Field(
        "cuda:0",
        validation_alias=AliasChoices(f"{ENV_PREFIX}CUDA_CORE", "CUDA_CORE"),
        description="Which GPU. Also read from `CUDA_CORE`, as the stock container does.",
    )
    max_documents: int = Field(10_000, ge=1, description="Documents that one request may carry.")
    max_document_bytes: int = Field(
        1_048_576,
        ge=1,
        description="UTF-8 bytes of one document; a longer one fails alone.",
    )
    max_query_bytes: int = Field(65_536, ge=1, description="UTF-8 bytes of a query.")
    max_body_bytes: int = Field(
        67_108_864, ge=1, description="Bytes of one HTTP body or gRPC message."
    )
    long_document_policy: LongDocumentPolicy | None = Field(
        None,
        description="What happens to long documents when the request does not say: `chunk` or "
        "`truncate`. Unset: the model's own default.",
    )
    max_windows: int = Field(
        16, ge=1, description="Windows of one document that are scored under `chunk`."
    )
    workers: int | None = Field(
        None, ge=1, description="Forward passes that run at once. Unset: as measured at the start."
    )
    threads_per_worker: int | None = Field(
        None, ge=1, description="Cores of one forward pass. Unset: as measured at the start."
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens of one forward pass, padding included. Unset: as measured at the "
        "start.",
    )
    max_batch_size: int | None = Field(
        None, ge=1, description="Sequences of one forward pass. Unset: as measured at the start."
    )
    max_batch_wait_ms: float = Field(
        100.0,
        ge=0,
        description="A sequence that has waited this long goes before all others of its priority.",
    )
    request_timeout_s: float = Field(
        45.0,
        gt=0,
        description="How long a request may take that does not say so itself. Weaviate's own limit "
        "is 50 s.",
    )
    admission: bool = Field(
        True, description="Refuse at once what cannot be answered before its deadline."
    )
    max_queue_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens of all requests that are being answered. Unset: as many as the model "
        "reads in `request_timeout_s`, as measured.",
    )
    search_window_s: float = Field(
        5.0,
        ge=0,
        description="How long after one chunk of a Weaviate search the next is still expected, "
        "admitted and run first.",
    )
    score_cache_bytes: int = Field(
        33_554_432, ge=0, description="Memory for scores already computed; 0 switches it off."
    )
    token_matrix_cache_bytes: int = Field(
        268_435_456,
        ge=0,
        description="Memory for encoded documents of late-interaction models; 0 switches it off.",
    )
    token_matrix_cache_dir: Path | None = Field(
        None, description="Folder for encoded documents, so that a restart stays warm."
    )
    token_matrix_disk_bytes: int = Field(
        4_294_967_296, ge=1, description="Most bytes of encoded documents in that folder."
    )
    keep_alive_timeout_s: int = Field(
        120,
        ge=1,
        description="How long an idle HTTP connection stays open; more than the 90 s for which "
        "Go's client, and so Weaviate, keeps one.",
    )
    shutdown_grace_s: float = Field(
        20.0, ge=0, description="How long running requests may take to finish at shutdown."
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="Least level that is logged.")
    log_format: LogFormat = Field(LogFormat.TEXT, description="`text` or `json`, one line each.")

    @model_validator(mode="after")
    def _batch_holds_a_sequence(self) -> Settings:
        tokens, size = self.max_batch_tokens, self.max_batch_size
        if tokens is not None and size is not None and tokens < size:
            raise ValueError("max_batch_tokens must be at least max_batch_size")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the command line over the environment over the file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))


def read_settings(config_file: Path | None = None, **command_line: Any) -> Settings:  # noqa: ANN401
    """Read the settings from the command line, the environment and a TOML file, in that order.

    Arguments that are None count as not given.

    Raises:
        InvalidSetting: the file cannot be read, or a value is wrong; the message names each one.
    """
    given = {name: value for name, value in command_line.items() if value is not None}
    try:
        return _settings_class(config_file)(**given)
    except ValidationError as error:
        raise InvalidSetting(_explain(error)) from error
    except (TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidSetting(f"config file {config_file} cannot be read: {error}") from error


def _settings_class(config_file: Path | None) -> type[Settings]:
    if config_file is None:
        return Settings
    if not config_file.is_file():
        raise InvalidSetting(f"config file {config_file} does not exist")

    class FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=config_file)

    return FileSettings


def _explain(error: ValidationError) -> str:
    problems = (
        f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
        for problem in error.errors()
    )
    return "; ".join(problems)
