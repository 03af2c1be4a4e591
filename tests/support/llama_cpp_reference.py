"""llama.cpp as the oracle of the tests."""

from engine.evaluation.llama_cpp_reference import LlamaCppReference

__all__ = ["LlamaCppReference"]
