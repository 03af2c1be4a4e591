"""llama.cpp as the oracle of the tests."""

from engine.peer import LlamaPeer

__all__ = ["LlamaPeer"]
