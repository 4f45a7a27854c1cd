"""Which model answers: by its name, by an alias, or because it is the default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rerank_sidecar.engine.served_model import ServedModel
from rerank_sidecar.errors import ModelNotFound
from rerank_sidecar.model_settings import DEFAULT_NAME, UnknownModel
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import ModelDescription


class Registry:
    """The models of a server by name, with a default; at first the first of some rerankers.

    `any_script` answers queries that the chosen model does not read, and is served by its name
    `beside` all others.
    """

    def __init__(self, rerankers: Sequence[Reranker], any_script: Reranker) -> None:
        self.any_script = any_script
        self.beside = ServedModel.of(any_script)
        self._models: dict[str, ServedModel] = {}
        self._default = self.beside
        self.unknown_model: UnknownModel | None = None
        if rerankers:
            models = [ServedModel.of(each) for each in rerankers]
            self.serve(models, models[0].name)

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def serve(
        self, models: Sequence[ServedModel], default: str, settings: Settings | None = None
    ) -> None:
        """Let these models answer from now on, in place of those before.

        Aliases are tried in their order; `default` is the name of one of them. `settings` hold for
        whichever has none of its own.
        """
        by_name = {each.name: each for each in models}
        self._default = by_name[default]
        if settings is not None:
            self.unknown_model = settings.unknown_model
            self.beside.settings = settings
        self._models = by_name | (
            {} if self.beside.name in by_name else {self.beside.name: self.beside}
        )

    def find(self, name: str | None) -> ServedModel:
        """Find the model of a name; none, an empty one and `default` mean the default.

        A name that nobody has means the default model or is an error, as `unknown_model` says; if
        it does not, the default is meant where it is the only one, but for the one that is beside.

        Raises:
            ModelNotFound: nobody has that name; the message lists who is served.
        """
        if not name or name == DEFAULT_NAME:
            return self._default
        found = self._models.get(name) or next(
            (each for each in self if each.has_alias(name)), None
        )
        if found is not None:
            return found
        if (self.unknown_model or self._usual()) is UnknownModel.DEFAULT:
            return self._default
        served = ", ".join(_with_aliases(each) for each in self._in_order())
        raise ModelNotFound(f"model: none of that name; served are {served}", "model")

    def models(self) -> list[ModelDescription]:
        """Describe every model, the default first."""
        return [self.describe(each) for each in self._in_order()]

    def describe(self, model: ServedModel) -> ModelDescription:
        """Describe one of the models."""
        return model.describe(is_default=model is self._default)

    def _in_order(self) -> list[ServedModel]:
        return sorted(self, key=lambda each: (each is not self._default, each is self.beside))

    def _usual(self) -> UnknownModel:
        # Clients send the names that other products have hard-coded; where there is one model,
        # they can only mean that.
        is_alone = len(self._models.keys() - {self.beside.name}) <= 1
        return UnknownModel.DEFAULT if is_alone else UnknownModel.ERROR


def _with_aliases(model: ServedModel) -> str:
    aliases = model.table.aliases
    return f"{model.name} (also {', '.join(aliases)})" if aliases else model.name
