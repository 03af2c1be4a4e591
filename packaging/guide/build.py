"""Rebuilds assets/ktchat-guide.gguf: text, tokeniser, training, export, evaluation.

python packaging/guide/build.py            everything; goes on where it was interrupted
python packaging/guide/build.py --export   only export and evaluate the latest checkpoint
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import evaluate
import export
import train
import vocabulary
from conversations import Author
from network import Shape

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
ASSET = HERE.parents[1] / "assets" / "ktchat-guide.gguf"
TOKENISER_CONVERSATIONS = 40000


def tokeniser(shape: Shape, path: Path) -> None:
    """Trains the tokeniser, unless it is there."""
    if not path.exists():
        author = Author(seed=3)
        texts = (
            message["content"]
            for _ in range(TOKENISER_CONVERSATIONS)
            for message in author.conversation()
        )
        vocabulary.train(texts, shape.vocab).save(str(path))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--export", action="store_true", help="use the latest checkpoint as it is")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=ASSET, help="the file to write")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    shape, recipe = Shape(), train.Recipe()
    tokenizer = options.work / "tokenizer.json"
    tokeniser(shape, tokenizer)
    checkpoint = options.work / "checkpoint.pt"
    if not options.export:
        train.train(tokenizer, shape, recipe, checkpoint)
    model, progress = train.load(checkpoint)
    size = export.export(model, tokenizer, options.out)
    result = evaluate.evaluate(
        evaluate.load(HERE / "heldout.json"), evaluate.llama_cpp_reply(options.out)
    )
    print(
        f"{options.out.name}: {size / 1e6:.1f} MB, step {progress['step']:.0f}, "
        f"{progress['tokens'] / 1e6:.1f} M tokens in {progress['seconds'] / 60:.0f} min; {result.line()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
