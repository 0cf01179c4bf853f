"""Show, export or delete one conversation, or export or delete all of a user."""

import os
from argparse import ArgumentTypeError
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from django.core.management.base import CommandError, CommandParser

from conversations import history
from conversations.clock import now
from conversations.errors import Unknown
from conversations.runtime import switching
from conversations.transcript import markdown
from conversations.turns import USER
from ops import transcript, users
from ops.management.base import COULD_NOT_RUN, TROUBLE, OperatorCommand, Result, tenant_named
from ops.transcript import Shown
from ops.users import Theirs, User
from telemetry.logs import hashed


class Command(OperatorCommand):
    help = (
        "Show a conversation and what each store holds of it, export it, or delete it from both stores; or export or "
        "delete all conversations of a user (--user), which are found by a walk over both stores."
    )

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=("show", "export", "delete"))
        parser.add_argument("session", nargs="?", default="", help="the session_id, or tenant:session_id")
        parser.add_argument("--user", type=user_named, help="export or delete all conversations of this user instead")
        parser.add_argument("--tenant", type=tenant_named, help="with --user: the user's tenant; without, none")
        parser.add_argument(
            "--to", type=Path, metavar="FILE", help="export --user: the archive, which is not there yet"
        )
        parser.add_argument("--as", choices=("json", "markdown"), default="json", dest="form", help="export as (json)")
        parser.add_argument("--noinput", action="store_true", help="delete without asking")

    def would_change(self, options: dict[str, Any]) -> bool:
        return bool(options["action"] == "delete")

    def is_audited(self, options: dict[str, Any]) -> bool:
        return self.would_change(options) or bool(options["user"])

    def run(
        self,
        *,
        action: str,
        session: str,
        user: str | None,
        tenant: str | None,
        to: Path | None,
        form: str,
        noinput: bool,
        **options: Any,
    ) -> Result:
        if user is None:
            if not session or tenant is not None or to:
                raise _cannot("name a session; --tenant and --to go with --user")
            return self._run_one(action, session, form, noinput)
        if session or action == "show" or (to and action == "delete"):
            raise _cannot("with --user either export, perhaps --to FILE, or delete, and name no session")
        with self.progress("Looking at conversations") as advance:
            theirs = users.find(User(user, tenant or ""), advance)
        if not theirs.sessions:
            raise CommandError("No conversation of this user", returncode=TROUBLE)  # the audit log has no name
        self.before = theirs.logged()
        return self._delete_all(theirs, noinput) if action == "delete" else self._export_all(theirs, to)

    def _export_all(self, theirs: Theirs, to: Path | None) -> Result:
        path = to or Path(f"onesource-user-{now():%Y%m%dT%H%M%SZ}.zip")
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # nothing is overwritten
        except OSError as error:
            raise _cannot(f"{path}: {(error.strerror or str(error)).lower()}") from error
        try:
            with os.fdopen(file, "wb") as archive, self.progress("Exporting") as advance:
                users.export(theirs, archive, advance)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        report = theirs.as_dict() | {"file": str(path), "file_bytes": path.stat().st_size}
        lines = [f"{path}: {report['file_bytes']:,} bytes", f"  {_counted(theirs)}"]
        trouble = f"{len(theirs.corrupt):,} of them have something that is no history, which is not in it"
        return Result(
            report,
            [*lines, *_shared(theirs)],
            trouble=trouble if theirs.corrupt else "",
            unlogged=("user", "file"),
        )

    def _delete_all(self, theirs: Theirs, noinput: bool) -> Result:
        for line in (f"{theirs.user} has {_counted(theirs)}", *_shared(theirs)):
            self.say(line)
        self.confirm("Delete all of them from every store, for good?", theirs.user.name, noinput)
        with self.progress("Deleting") as advance:
            receipt = users.delete(theirs, advance)
        until = _shown_time(receipt.until)
        lines = [f"deleted {receipt.deleted:,} of {len(theirs.sessions):,} conversations at {_shown_time(receipt.at)}"]
        lines += [f"  tombstones in {alias}: {number:,}, until {until}" for alias, number in receipt.tombstones.items()]
        lines += [f"  in the audit log as {theirs.user.logged()['user']}"]
        lines += ["Backups may still contain these conversations, and others of this user that neither store had any"]
        lines += ["more. A restore leaves out what was deleted here. Run this again after a restore, for the others."]
        return Result(
            receipt.as_dict(),
            lines,
            trouble=users.trouble(receipt),
            unlogged=("user", "left"),
        )

    def _run_one(self, action: str, session: str, form: str, noinput: bool) -> Result:
        shown = transcript.look(session)
        known = bool(shown.history) if action == "export" else shown.known
        if not known and not (action == "delete" and shown.unseen):
            seen = f" ({shown.unseen[0]} is out)" if shown.unseen else ""
            raise CommandError(f"{Unknown().detail[:-1]}{seen}", returncode=TROUBLE)
        if action == "delete":
            return self._delete(shown, noinput)
        conversation = transcript.document(shown)
        if action == "show":
            return Result(conversation, transcript.lines(shown))
        if form == "markdown":
            return Result(conversation, document=markdown(conversation))
        return Result(conversation, [orjson.dumps(conversation, option=orjson.OPT_INDENT_2).decode()])

    def _delete(self, shown: Shown, noinput: bool) -> Result:
        self.confirm(f"Delete {shown.session} from every store, for good?", shown.session, noinput)
        self.before = {"messages": len(shown.history)}
        if not history.delete(shown.session):
            raise CommandError("it was deleted before", returncode=TROUBLE)
        where = " and ".join(alias for alias in shown.stores if alias not in shown.unseen)
        later = "".join(f"; {alias} is out, and deletes it when it is back" for alias in shown.unseen)
        report = {"session": hashed(shown.session), "deleted": True, "primary": switching.current().primary}
        return Result(report, [f"deleted from {where}{later}"])


def user_named(text: str) -> str:
    if not USER.fullmatch(text):
        raise ArgumentTypeError(f"{text!r} is no user: it has 1 to 128 of the characters A-Z a-z 0-9 @ . _ + : -")
    return text


def _cannot(reason: str) -> CommandError:
    return CommandError(reason, returncode=COULD_NOT_RUN)


def _counted(theirs: Theirs) -> str:
    return f"{len(theirs.sessions):,} conversations, {theirs.messages:,} messages, {theirs.bytes:,} bytes"


def _shared(theirs: Theirs) -> list[str]:
    number = len(theirs.shared)
    return [f"  of these {number:,} have questions of another user too"] if number else []


def _shown_time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
