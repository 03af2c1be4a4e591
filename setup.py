"""Puts the compiled native library into the wheel; everything else stands in pyproject.toml.

The library is plain C ABI and chooses its instruction set when it runs, so one wheel serves every
Python 3 on the same system and processor family.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).parent))  # build backends run without it

from kernels.cpu.build import build


class BuildWithLibrary(build_py):
    """Compiles the library first. An editable install builds it when it is first used."""

    def run(self) -> None:
        if not self.editable_mode:
            build()
        super().run()


class PlatformWheel(bdist_wheel):
    """A wheel for one platform and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):
    """Says that not all of it is Python, so that it goes where binary packages go."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
)
