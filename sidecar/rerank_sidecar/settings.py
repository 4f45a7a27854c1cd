"""Every setting of the server in one frozen object, read once at the start.

Command line over environment (`RERANK_SIDECAR_*`) over TOML file over the defaults below.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from rerank_sidecar.access_settings import AccessSettings
from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.model_settings import (
    OF_A_TABLE,
    EngineChoice,
    ModelSettings,
    ModelTable,
    Quantization,
    split_list,
)

__all__ = [
    "ENV_PREFIX",
    "EngineChoice",
    "LogFormat",
    "LogLevel",
    "Quantization",
    "Settings",
    "read_settings",
]

ENV_PREFIX = "RERANK_SIDECAR_"


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


class Settings(ModelSettings, AccessSettings):
    """What the server does, as file, environment and command line say it together."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,  # tokens are input, too
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
        pattern=r"^cuda(:\d+)?$",
        validation_alias=AliasChoices(f"{ENV_PREFIX}CUDA_CORE", "CUDA_CORE"),
        description="Which GPU. Also read from `CUDA_CORE`, as the stock container does.",
    )
    max_body_bytes: int = Field(
        67_108_864, ge=1, description="Bytes of one HTTP body or gRPC message."
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
        description="Tokens of all requests that a model is answering. Unset: as many as it reads "
        "in `request_timeout_s`, as measured.",
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
    disabled_doors: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Dialects that are not served, such as `pinecone`; see docs/doors.md."
    )
    pinned_paths: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="Bare paths on which one dialect is spoken and nothing is guessed, such as "
        "`/rerank=weaviate`; a table in the file.",
    )
    admin: bool = Field(
        False,
        description="Serve AdminService over gRPC, which loads and unloads models; see "
        "docs/models.md.",
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

    _sources: tuple[Path | None, dict[str, Any]] = PrivateAttr((None, {}))

    @field_validator("disabled_doors", mode="before")
    @classmethod
    def _split_doors(cls, given: Any) -> Any:  # noqa: ANN401
        return split_list(given)

    @field_validator("pinned_paths", mode="before")
    @classmethod
    def _split_paths(cls, given: Any) -> Any:  # noqa: ANN401
        items = split_list(given)
        if not isinstance(items, list):
            return given
        pairs = [each.partition("=") for each in items]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError("must be PATH=DIALECT")
        return {path.strip(): dialect.strip() for path, _, dialect in pairs}

    @model_validator(mode="after")
    def _batch_holds_a_sequence(self) -> Settings:
        tokens, size = self.max_batch_tokens, self.max_batch_size
        if tokens is not None and size is not None and tokens < size:
            raise ValueError("max_batch_tokens must be at least max_batch_size")
        return self

    def of_model(self, table: ModelTable) -> Settings:
        """Give the settings that hold for one model: its table's own over all others."""
        own = {name: getattr(table, name) for name in OF_A_TABLE}
        given = {name: value for name, value in own.items() if value is not None}
        return self.model_copy(update={"model": table.source, "models": (), **given})

    def read_again(self) -> Settings:
        """Read the same command line, environment and file once more.

        Raises:
            InvalidSetting: the file cannot be read, or a value is wrong.
        """
        config_file, command_line = self._sources
        return read_settings(config_file, **command_line)

    @property
    def config_file(self) -> Path | None:
        """Give the file that was read, if there was one."""
        return self._sources[0]

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
        settings = _settings_class(config_file)(**given)
    except ValidationError as error:
        raise InvalidSetting(_explain(error)) from error
    except (TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidSetting(f"config file {config_file} cannot be read: {error}") from error
    settings._sources = (config_file, given)
    return settings


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
        ": ".join(filter(None, (".".join(map(str, problem["loc"])), _reason(problem["msg"]))))
        for problem in error.errors()
    )
    return "; ".join(problems)


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ")
