"""What goes with the message on the chat screen: files are read beside the keys, opened, and offered when they are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.attachments.attachment import MAX_ATTACHMENTS, Attachment, shown_name
from ktchat.common.settings import MAX_RECENT
from ktchat.widgets.chat.chips import Chip
from ktchat.widgets.chat.suggestions import Suggestion
from ktchat.widgets.formats import short_path

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.model_flow import ModelFlow


class AttachFlow:
    """Attaches, shows and offers files."""

    def __init__(self, frame: Frame, activity: Activity, models: ModelFlow) -> None:
        self._frame, self._models = frame, models
        self._context = activity.context

    def attach(self, path: Path) -> None:
        """Attach a file or a folder; a model is offered to be opened."""
        chips = self._frame.chips
        if chips.full:
            self._frame.status.say(
                f"a message takes {MAX_ATTACHMENTS} attachments at most", "warning"
            )
            return
        chip = Chip(shown_name(str(path)))
        chips.add(chip)
        self._frame.run_worker(self._read(chip, path), group="attach", exit_on_error=False)

    def offer(self, text: str) -> None:
        """Offer to attach what a paste names, if all of it is there."""
        self._frame.run_worker(
            self._offer(text), group="offer", exclusive=True, exit_on_error=False
        )

    def show(self, attachments: Sequence[Attachment], at: int = 0, paste: bool = False) -> None:
        """Open attachments to read; `paste`: those of the draft, where a paste can be made text again."""
        from ktchat.screens.dialogs.attachment_dialog import AttachmentDialog

        def answered(answer: str | None) -> None:
            if answer is not None:
                self._as_text(attachments, answer)

        self._frame.app.push_screen(AttachmentDialog(attachments, at, paste), answered)

    # Inside.

    def _as_text(self, attachments: Sequence[Attachment], digest: str) -> None:
        """A paste stands in the prompt again."""
        chips, prompt = self._frame.chips, self._frame.prompt
        found = next(
            (c for c in chips.chips if c.attachment and c.attachment.digest == digest), None
        )
        text = next(item.text for item in attachments if item.digest == digest)
        if found is not None:
            chips.drop(found)
        prompt.insert_at_cursor(text)
        prompt.focus()

    async def _read(self, chip: Chip, path: Path) -> None:
        from ktchat.attachments import reading

        chips, status = self._frame.chips, self._frame.status
        try:
            if await ask(reading.is_model, path):
                chips.drop(chip)
                self._offer_model(path)
                return
            attachment = await ask(reading.read, path)
        except KtchatError as error:
            chips.drop(chip)
            status.say(str(error), "error")
        else:
            chips.read(chip, attachment)  # also one that was taken away: it may be brought back
            self._remember(path)

    def _remember(self, path: Path) -> None:
        kept = self._context.settings.settings.recent_files
        others = [other for other in kept if other != str(path)]
        self._context.remember(recent_files=(str(path), *others)[:MAX_RECENT])

    async def _offer(self, text: str) -> None:
        from ktchat.attachments import pasted_paths, reading

        prompt, listed = self._frame.prompt, self._frame.suggestions
        found = await ask(pasted_paths.existing, text)
        if not found or text not in prompt.text:
            return

        def take() -> None:
            before, _, after = prompt.text.partition(text)
            prompt.put((before + after).strip())
            for path in found:
                self.attach(path)

        if len(found) == 1 and await ask(reading.is_model, found[0]):
            self._offer_model(found[0], text)
            return
        names = ", ".join(shown_name(str(path)) for path in found)
        keep = Suggestion("keep it as text", "", prompt.focus)
        place = short_path(str(found[0].parent))
        listed.show([Suggestion(f"attach {names}", place, take), keep], prompt.text)

    def _offer_model(self, path: Path, pasted: str = "") -> None:
        """A GGUF file is no text: open it as the model."""
        prompt = self._frame.prompt

        def take() -> None:
            if pasted:
                before, _, after = prompt.text.partition(pasted)
                prompt.put((before + after).strip())
            self._models.load(str(path))

        name = shown_name(str(path))
        leave = Suggestion("keep it as text" if pasted else "leave it", "", prompt.focus)
        opened = Suggestion(f"open the model {name}", "", take)
        self._frame.suggestions.show([opened, leave], prompt.text)
        if not pasted:
            self._frame.status.say(f"{name} is a model: Enter opens it")
