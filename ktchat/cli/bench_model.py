"""The model that `ktchat bench` measures: a file, or random weights in the shape of a known model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ktchat.cli import background, output
from ktchat.common import paths


def file(args: argparse.Namespace, report: background.Report) -> Path:
    """The model's file, or that of a shape, which is made where it is not there."""
    if args.model is not None:
        return Path(args.model)
    from engine.evaluation.synthetic import shape_file

    home = paths.home()
    return shape_file(
        args.shape,
        args.layers,
        home / "shapes" if home else None,
        recipe=args.recipe or "",
        report=lambda done, total: report("making the weights", done, total),
    )


def list_shapes() -> int:
    """Print the names of shapes and recipes; returns the exit code."""
    from engine.spec.recipes import RECIPES
    from engine.spec.shapes import SHAPES

    for name, shape in SHAPES.items():
        output.line(
            f"{name:<18}{shape.architecture:<11}{shape.layers} layers, {shape.some_layers} unless"
            " --layers says otherwise"
        )
    output.line(f"recipes: {', '.join(RECIPES)}")
    return 0
