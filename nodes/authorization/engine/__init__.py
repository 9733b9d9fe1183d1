"""The two engines of the authorization path: memory, batches and one round trip a commit."""

from nodes.authorization.engine.acquiring import AcquiringEngine
from nodes.authorization.engine.issuing import IssuingEngine
from nodes.authorization.engine.memory import AcquirerMemory

__all__ = ["AcquirerMemory", "AcquiringEngine", "IssuingEngine"]
