"""StoreInfo: what a store's server reports about itself, the same for every store."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """None wherever the server has no such thing or the user has no right to read it."""

    version: str | None = None
    memory_bytes: int | None = None
    data_bytes: int | None = None
    """Memory without what the server takes when it is empty."""
    max_memory_bytes: int | None = None
    """0 for no limit."""
    policy: str | None = None
    """What is evicted when the memory is full."""
    clients: int | None = None
    role: str | None = None
    replicas: int | None = None
    lag: str | None = None
    """How far replication is behind, in words."""
    persistence: str | None = None

    @property
    def evicts_all(self) -> bool:
        """Whether a full memory takes keys that never expire too: unsynced flags, notes, the dataset's identity."""
        return (self.policy or "").startswith("allkeys-")
