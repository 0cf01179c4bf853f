"""The end of a process that has used MongoDB's driver."""

import atexit

from pymongo.synchronous import monitor


def do_not_wait() -> None:
    """Have Python not wait at its end for the driver's threads, which watch the server.

    The driver joins them, and each sleeps for half a second between two looks, from which closing the client wakes
    none. They hold nothing that has to be finished, and as daemons they end with the process.
    """
    atexit.unregister(monitor._shutdown_resources)
