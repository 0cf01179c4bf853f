"""Make, list and revoke the tokens of the API's clients."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError, CommandParser

from conversations.tokens import DAYS, MOST_DAYS, SCOPES, ordered
from conversations.turns import SESSION_ID
from ops import tokens
from ops.management.base import COULD_NOT_RUN, OperatorCommand, Result


class Command(OperatorCommand):
    help = "Make a token for `Authorization: Bearer`, list those that were made, or revoke one."

    def options(self, parser: CommandParser) -> None:
        parser.add_argument("action", choices=("create", "list", "revoke"))
        parser.add_argument("subject", nargs="?", metavar="NAME|ID", help="whose token to create, or which to revoke")
        parser.add_argument("--tenant", help="whose conversations it sees; unset: those of this token alone")
        parser.add_argument("--scopes", help=f"what it may do: some of {','.join(SCOPES)} (all)")
        parser.add_argument("--days", type=int, help=f"how long it is good for ({DAYS})")

    def would_change(self, options: dict[str, Any]) -> bool:
        return bool(options["action"] != "list")

    def _alone(self) -> AbstractContextManager[None]:
        """Hold no lease: a copy of everything may have it for an hour, and a token has to be revoked at once."""
        return nullcontext()

    def run(self, *, action: str, subject: str | None, **options: Any) -> Result:
        given = {name: options[name] for name in ("tenant", "scopes", "days") if options[name] is not None}
        if (subject is None) != (action == "list"):
            raise CommandError(f"{action} takes {'no' if subject else 'a'} NAME or ID", returncode=COULD_NOT_RUN)
        if given and action != "create":
            raise CommandError(f"{action} takes no --{next(iter(given))}", returncode=COULD_NOT_RUN)
        if action == "create":
            return self._create(str(subject), **given)
        return self._list() if action == "list" else self._revoke(str(subject))

    def _create(self, name: str, tenant: str | None = None, scopes: str = ",".join(SCOPES), days: int = DAYS) -> Result:
        if not 1 <= days <= MOST_DAYS:
            raise CommandError(f"--days must be 1 to {MOST_DAYS}", returncode=COULD_NOT_RUN)
        try:
            claims, token = tokens.create(name, tenant, tuple(scopes.replace(" ", "").split(",")), days)
        except ValueError as error:
            raise CommandError(str(error), returncode=COULD_NOT_RUN) from None
        report = {"action": "create", "id": claims.id, "token": token, "name": name, "tenant": claims.tenant,
                  "scopes": ordered(claims.scopes), "key": claims.key, "until": _time(claims.until)}  # fmt: skip
        if not self.as_json:  # not among the output, which a shell reads as the token
            self.stderr.write(f"id {claims.id}, tenant {claims.tenant or '(none)'}, good until {report['until']}")
        return Result(report, unlogged=("token",), document=token)

    def _list(self) -> Result:
        found = tokens.listed()
        keys = tokens.keys(found)
        report = {"tokens": [each.as_dict() for each in found], "keys": [asdict(key) for key in keys]}
        return Result(report, [*map(_line, found), *map(_key_line, keys)])

    def _revoke(self, identity: str) -> Result:
        if not SESSION_ID.fullmatch(identity) or len(identity) > 32:
            raise CommandError("that is no id of a token; `token list` has them", returncode=COULD_NOT_RUN)
        done = tokens.revoke(identity)
        report = {"action": "revoke", "id": identity, "name": done.token.name if done.token else None,
                  "noted": done.noted, "missed": done.missed}  # fmt: skip
        lines = [f"revoked {identity}{f' of {done.token.name}' if done.token else ''}; noted in {_and(done.noted)}"]
        if done.missed:
            lines.append(f"not noted in {_and(done.missed)}: run it again when that is back")
        return Result(report, lines, _trouble(done))


def _trouble(done: tokens.Revocation) -> str:
    if not done.in_a_store:
        return "only the processes with this VAR_DIR follow: no store took it; run it again when one is back"
    if done.token is None and tokens.DEFAULT in done.noted:
        return "no token of this id is listed; it is revoked all the same, but look whether the id is right"
    return ""


def _line(each: tokens.Listed) -> str:
    one = each.token
    whose = f"{one.name}  tenant {one.tenant or '(none)'}  {','.join(one.scopes)}"
    return f"{one.id}  {each.state:<7}  until {one.until:%Y-%m-%d}  key {one.key}  {whose}"


def _key_line(key: tokens.Key) -> str:
    words = "signs" if key.signs else "verifies" if key.there else "is not in CHAT_KEYS"
    last = f", the last until {key.last_until:%Y-%m-%d %H:%M}Z" if key.last_until else ""
    return f"key {key.id} {words}: {key.tokens} tokens that are neither expired nor revoked{last}"


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _and(places: tuple[str, ...]) -> str:
    return " and ".join(places)
