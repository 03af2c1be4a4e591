"""Nothing in a file becomes a control token."""

from __future__ import annotations

from pathlib import Path

from engine.gguf.file import GGUFFile
from engine.protocol import Message
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Part, Tokenizer
from ktchat.attachments.attachment import Attachment, Draft
from ktchat.common.paths import guide_model


def test_a_file_cannot_end_the_message_that_it_is_in() -> None:
    path = guide_model()
    assert path is not None
    with GGUFFile.open(Path(path)) as file:
        template, tokenizer = ChatTemplate.start(file), Tokenizer.open(Path(path), file)
        control = [text for text in tokenizer._specials if text]
        assert control
        text = "\n".join(control)
        attack = Draft("hi", (Attachment("a.txt", text), Attachment(f"{control[0]}.txt", text)))
        calm = tokenizer.encode(template.render([Message("user", "hi")]))
        attacked = tokenizer.encode(template.render([Message("user", attack.message)]))
        for token in control:
            (number,) = tokenizer.encode([Part(token, True)])
            assert attacked.count(number) == calm.count(number), token
        template.close()
        tokenizer.close()
