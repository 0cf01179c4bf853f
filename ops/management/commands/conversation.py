"""Show, export or delete one conversation."""

from typing import Any

import orjson
from django.core.management.base import CommandError, CommandParser

from conversations import history
from conversations.errors import Unknown
from conversations.runtime import switching
from conversations.transcript import markdown
from ops import transcript
from ops.management.base import TROUBLE, OperatorCommand, Result
from ops.transcript import Shown
from telemetry.logs import hashed


class Command(OperatorCommand):
    help = "Show a conversation and what each store holds of it, export it, or delete it from both stores."

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=("show", "export", "delete"))
        parser.add_argument("session", help="the session_id, or tenant:session_id")
        parser.add_argument("--as", choices=("json", "markdown"), default="json", dest="form", help="export as (json)")
        parser.add_argument("--noinput", action="store_true", help="delete without asking")

    def would_change(self, options: dict[str, Any]) -> bool:
        return bool(options["action"] == "delete")

    def run(self, *, action: str, session: str, form: str, noinput: bool, **options: Any) -> Result:
        shown = transcript.look(session)
        known = bool(shown.history) if action == "export" else shown.known
        if not known and not (action == "delete" and shown.unseen):
            seen = f" ({shown.unseen[0]} is out)" if shown.unseen else ""
            raise CommandError(f"{Unknown().detail[:-1]}{seen}", returncode=TROUBLE)
        if action == "delete":
            return self._delete(shown, noinput)
        conversation = {
            "session_id": session,
            "stores": {alias: one.as_dict() for alias, one in shown.stores.items()},
            "messages": [message.as_dict() for message in shown.history],
        }
        if action == "show":
            return Result(conversation, transcript.lines(shown))
        if form == "markdown":
            return Result(conversation, document=markdown(conversation))
        return Result(conversation, [orjson.dumps(conversation, option=orjson.OPT_INDENT_2).decode()])

    def _delete(self, shown: Shown, noinput: bool) -> Result:
        self.confirm(f"Delete {shown.session} from every store, for good?", shown.session, noinput)
        if not history.delete(shown.session):
            raise CommandError("it was deleted before", returncode=TROUBLE)
        where = " and ".join(alias for alias in shown.stores if alias not in shown.unseen)
        later = "".join(f"; {alias} is out, and deletes it when it is back" for alias in shown.unseen)
        report = {"session": hashed(shown.session), "deleted": True, "primary": switching.current().primary}
        return Result(report, [f"deleted from {where}{later}"], before={"messages": len(shown.history)})
