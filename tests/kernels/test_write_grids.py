"""The grids of the native kernels are those of gguf's Python package."""

from tests.kernels.write_grids import HEADER, header


def test_the_header_has_the_formats_grids() -> None:
    assert HEADER.read_text() == header()
