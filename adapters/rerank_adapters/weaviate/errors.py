"""What `check_weaviate` finds wrong; each message says what to do about it.

WeaviateSetupError
├── ModuleNotEnabled        Weaviate runs without the module of this door
├── ModuleTooOld            the module of this Weaviate would not ask the sidecar
├── SidecarNotReached       nobody answers at the sidecar's address, from here or from Weaviate
├── SidecarNotReady         the sidecar is there, but its model has not warmed up yet
├── NotASidecar             something else answers at that address, or at Weaviate's
├── OtherSidecar            Weaviate asks another sidecar than the one at that address
├── SidecarRefused          the sidecar refuses what the module sends: a token, a closed door
└── ScoresNotComparable     the model ranks whole lists, and Weaviate sends parts of one
"""


class WeaviateSetupError(Exception):
    """Weaviate and the sidecar are not wired together; the message says what to do."""


class ModuleNotEnabled(WeaviateSetupError):
    """Weaviate runs without the module of this door."""


class ModuleTooOld(WeaviateSetupError):
    """The module of this Weaviate ignores the sidecar's address, and would ask somebody else."""


class SidecarNotReached(WeaviateSetupError):
    """Nobody answers at the sidecar's address, from here or from Weaviate."""


class SidecarNotReady(WeaviateSetupError):
    """The sidecar is there, but its model has not warmed up yet."""


class NotASidecar(WeaviateSetupError):
    """Something else answers at that address, or at the one that Weaviate has."""


class OtherSidecar(WeaviateSetupError):
    """Weaviate asks another sidecar than the one at that address."""


class SidecarRefused(WeaviateSetupError):
    """The sidecar refuses what the module sends: it wants a token, or the door is closed."""


class ScoresNotComparable(WeaviateSetupError):
    """The model ranks whole lists, and Weaviate sends a search in several requests."""
