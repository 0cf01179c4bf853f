"""Every error of this app. One of an operator's command or page is one line for a person, and has no HTTP status."""


class OperatorError(Exception):
    """An operator's command or page could not do what it was asked for"""

    def __str__(self) -> str:
        return ": ".join([" ".join((self.__doc__ or "").split()), *map(str, self.args)])


class Refused(OperatorError):
    """Refused, and nothing was changed"""


class Busy(OperatorError):
    """Another operator is changing something"""

    def __init__(self, holder: str | None) -> None:
        super().__init__(holder)
        self.holder = holder or "who is not known"

    def __str__(self) -> str:
        return (
            f"another operator's command is running: {self.holder}. Nothing was changed; its lease ends ten seconds "
            "after it at the latest"
        )


class Overtaken(OperatorError):
    """Somebody has switched since this page was shown; nothing was changed. Look again"""


class NoServer(OperatorError):
    """Nothing that speaks HTTP answers there"""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class CannotWrite(OperatorError):
    """The backup was not written; what was begun of it is removed, and older backups are as they were"""


class BackupRunning(OperatorError):
    """Another backup is being written to this folder"""


class CannotRead(OperatorError):
    """The backup cannot be read, and nothing was changed"""


class BadBackup(OperatorError):
    """This file cannot be restored"""


class NothingOfTenant(OperatorError):
    """The backup has nothing of this tenant; nothing was changed"""


class BadKeys(OperatorError):
    """BACKUP_KEY_FILE is not usable"""


class OutOfReach(OperatorError):
    """Nothing was done: a store that may have conversations of this user alone cannot be reached"""


class NotVerified(OperatorError):
    """The backup could not be tried out"""


class NoMemoryLimit(OperatorError):
    """A percentage is of a maxmemory that is not set"""

    def __init__(self, owner: str) -> None:
        super().__init__()
        self.owner = owner

    def __str__(self) -> str:
        return f"A percentage is of {self.owner} maxmemory, which is not set; say how many bytes, as in --to-memory 2gb"


class NoMemoryStore(OperatorError):
    """No store in use keeps conversations in a memory that can be full"""


class NotInOther(OperatorError):
    """A store gives up only what the other one has, which cannot be reached"""

    def __init__(self, full: str, other: str) -> None:
        super().__init__()
        self.full, self.other = full, other

    def __str__(self) -> str:
        return (
            f"{self.other} cannot be reached, and {self.full} gives up only what {self.other} has;"
            " --discard deletes it for good"
        )


class CannotListen(Exception):
    """A port where this machine cannot listen, in one line for the person who starts the service."""


class RequestRefused(Exception):
    """A request that Django never sees."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class ClientGone(Exception):
    """The client has closed its connection."""


class NoTokenList(OperatorError):
    """`default`, which lists the tokens, cannot be used, and no token was made: start it, or run `manage.py migrate`"""


class NotRevoked(OperatorError):
    """No store can be reached, and VAR_DIR cannot be written: the token is as good as before. Run it again"""


class TooManyRevoked(OperatorError):
    """There is no room for another revoked token. Take its key out of CHAT_KEYS instead: that ends all its tokens"""
