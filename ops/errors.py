"""Every error of operators' commands and pages on one screen: one line for a person, and no HTTP status."""


class OperatorError(Exception):
    """An operator's command or page could not do what it was asked for"""

    def __str__(self) -> str:
        return ": ".join([" ".join((self.__doc__ or "").split()), *map(str, self.args)])


class Refused(OperatorError):
    """Refused, and nothing was changed"""


class Busy(OperatorError):
    """another operator's command is running; it keeps its lease until ten seconds after it ends"""


class Overtaken(OperatorError):
    """Somebody has switched since this page was shown; nothing was changed. Look again"""


class NoServer(OperatorError):
    """Nothing that speaks HTTP answers there"""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
