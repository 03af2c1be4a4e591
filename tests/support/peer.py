"""llama.cpp as the oracle of the tests."""

from engine.evaluation.llama_cpp_reference import LlamaPeer

__all__ = ["LlamaPeer"]
