"""The tab of servers: adding, testing, opening and removing them.

Nothing is asked before the person says so, but the two places on this machine where Ollama and
llama-server listen.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from engine.common.threads import ask
from engine.common.units import short_count
from engine.errors import KtchatError
from engine.remote.address import Address, address_of, parse, short_name
from engine.remote.errors import PlainKeyError
from ktchat.common.text import one_line
from ktchat.library.served import Served, found_here, served
from ktchat.library.servers import Server
from ktchat.screens.dialogs.dialogs import Question
from ktchat.screens.dialogs.server_dialog import ServedModelDialog, ServerDialog, ServerForm
from ktchat.screens.models.page import NEXT, Host, Page, Shown
from ktchat.screens.models.plain_key import ask_plain
from ktchat.widgets.formats import counted
from ktchat.widgets.lines import styled
from ktchat.widgets.models.model_cells import DIM
from ktchat.widgets.models.model_table import Column, ModelTable, Row

if TYPE_CHECKING:
    from engine.plan.memory_plan import MemoryPlan

NONE = (
    "No servers yet. a adds one: vLLM, SGLang, llama-server, Ollama, or any OpenAI-compatible one."
)
_OURS, _FOUND = "", "found on this machine · Enter opens it · a keeps it in this list"


class ServerPage(Page):
    """Servers that the person added, and those that were found."""

    KEYS: ClassVar[tuple[Shown, ...]] = (
        ("Enter", "open", "screen.page('open')"),
        ("a", "add", "screen.page('add')"),
        ("t", "test", "screen.page('test')"),
        ("e", "edit", "screen.page('edit')"),
        ("d", "remove", "screen.page('remove')"),
        *NEXT,
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "add", show=False),
        Binding("t", "test", show=False),
        Binding("e,f2", "edit", show=False),
        Binding("d,delete", "remove", show=False),
    ]

    def __init__(self, host: Host) -> None:
        columns = (
            Column("server"),
            Column("address"),
            Column("what answers", rank=1),
            Column("models", rank=2),
            Column("context", "right", rank=3),
        )
        super().__init__(host, ModelTable(columns))
        self.ours: list[Server] = []
        self.found: list[Server] = []
        self._answers: dict[str, Served | str] = {}
        self._asking = ""

    def compose(self) -> Iterator[ModelTable]:
        yield self.table

    # The list.

    def begin(self) -> None:
        """List the servers again, and look for those on this machine."""
        self.run_worker(self._list(), group="servers", exclusive=True, exit_on_error=False)

    async def _list(self, at: str | None = None) -> None:
        servers = self.host.context.servers
        self.ours = await ask(servers.read)
        known = {server.address for server in self.ours}
        self.found = [server for server in self.found if server.address not in known]
        self._show(at)
        found = await found_here(servers, self.ours)
        self.found = [server for server, _ in found]
        self._answers |= {server.address: answer for server, answer in found}
        self._show()

    def _show(self, at: str | None = None) -> None:
        rows = [self._row(server, _OURS) for server in self.ours]
        rows += [self._row(server, _FOUND) for server in self.found]
        self.table.show(rows, NONE, at)
        self.host.show_plan()

    def _row(self, server: Server, group: str) -> Row:
        answer = self._answers.get(server.address)
        what = models = context = ""
        if server.address == self._asking:
            what = "asking …"
        elif isinstance(answer, Served):
            what, names = answer.title, answer.models
            one = len(names) == 1
            models = (
                one_line(short_name(names[0].name), 40) if one else counted(len(names), "model")
            )
            context = short_count(names[0].context) if one and names[0].context else ""
        elif answer is not None:
            what = "no answer"
        current = address_of(self.host.current)
        return Row(
            key=server.address,
            cells=(
                Content(server.title),
                styled(one_line(server.address, 60), DIM),
                styled(what, "$warning" if isinstance(answer, str) else DIM),
                Content(models),
                styled(context, DIM),
            ),
            group=group,
            marked=current is not None and current.base == server.address,
        )

    def plan(self, key: str) -> tuple[MemoryPlan | None, str]:
        answer = self._answers.get(key)
        if isinstance(answer, Served):
            return None, answer.words
        return None, answer or ("t asks what answers there" if key else "")

    @property
    def chosen(self) -> Server | None:
        """The server under the cursor."""
        return next((s for s in (*self.ours, *self.found) if s.address == self.table.key), None)

    # Asking.

    def action_test(self) -> None:
        """Ask what answers."""
        if (server := self.chosen) is not None:
            self._work(self._test(server, lambda: self.action_test()))

    async def _test(self, server: Server, again: Callable[[], None]) -> Served | None:
        """What answers at a server, said under the list; `again` is called once the key may be sent."""
        address = parse(server.address)
        self._asking = server.address
        self._show()
        self.host.say(f"asking {address.place} …")
        try:
            answer = await served(self.host.context.servers, address)
        except KtchatError as error:
            self._answers[server.address] = one_line(str(error), 400)
            if isinstance(error, PlainKeyError):
                ask_plain(self.app, self.host.context.servers, address, again)
            self.host.say(str(error), "error")
            return None
        finally:
            self._asking = ""
            self._show()
        self._answers[server.address] = answer
        self._show()
        self.host.say(f"{address.place}: {answer.words}")
        return answer

    # Actions.

    def on_model_table_chosen(self, message: ModelTable.Chosen) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Open the server under the cursor; where it has several models, one of them."""
        if (server := self.chosen) is not None:
            self._work(self._open(server))

    async def _open(self, server: Server) -> None:
        answer = await self._test(server, self.action_open)
        if answer is None:
            return
        base = parse(server.address).base
        names = [model.name for model in answer.models]
        if len(names) == 1:
            self.host.open_model(str(Address(base, names[0])))
        elif not names:
            self.host.say(f"{server.title} lists no model: load one there first", "warning")
        else:
            shown = [
                (
                    model.name,
                    one_line(model.name, 60)
                    + (f" · {short_count(model.context)}" if model.context else ""),
                )
                for model in answer.models
            ]

            def named(name: str | None) -> None:
                if name is not None:
                    self.host.open_model(str(Address(base, name)))

            self.app.push_screen(ServedModelDialog(f"Models on {server.title}", shown), named)

    def action_add(self) -> None:
        """Keep a server that was found, or name another one."""
        chosen = self.chosen
        if chosen is not None and chosen in self.found:
            self._work(self._keep(ServerForm(chosen)))
        else:
            self.app.push_screen(ServerDialog(), self._named)

    def action_edit(self) -> None:
        """Change the server under the cursor, its key too."""
        server = self.chosen
        if server is not None:

            def changed(form: ServerForm | None) -> None:
                if form is not None:
                    self._work(self._keep(form, server))

            self.app.push_screen(ServerDialog(server), changed)

    def _named(self, form: ServerForm | None) -> None:
        if form is not None:
            self._work(self._keep(form))

    async def _keep(self, form: ServerForm, before: Server | None = None) -> None:
        servers, server = self.host.context.servers, form.server
        try:
            await ask(servers.add, server)
            if form.key:
                await ask(servers.keys.keep, parse(server.address).origin, form.key)
            if before is not None and before in self.ours and before.address != server.address:
                await ask(servers.remove, before)
        except KtchatError as error:
            self.host.say(str(error), "error")
            return
        self._answers.pop(server.address, None)
        await self._list(server.address)
        await self._test(server, self.action_test)

    def action_remove(self) -> None:
        """Forget the server under the cursor, and its key, after a question."""
        server = self.chosen
        if server is None:
            return
        if server in self.found:
            self.host.say("it is on this machine and was found by itself: nothing is kept of it")
            return
        question = f"Remove {server.title} ({server.address}) and its key? Sessions stay."

        def answered(answer: str | None) -> None:
            if answer is not None:
                self._work(self._remove(server))

        self.app.push_screen(Question(question, "Remove it"), answered)

    async def _remove(self, server: Server) -> None:
        try:
            await ask(self.host.context.servers.remove, server)
        except KtchatError as error:
            self.host.say(str(error), "error")
            return
        await self._list()
        self.host.say(f"{server.title} was removed")

    def _work(self, work: Coroutine[Any, Any, object]) -> None:
        self.run_worker(work, group="server", exclusive=True, exit_on_error=False)
