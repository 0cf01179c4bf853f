"""SecantusDB with one user, whose password is in a file: a program, run by `embedded.children`.

With SecantusDB's own command a client without a password makes the user, so at every start the server would be open
to every user of the machine for a moment.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

from secantus.auth import SCRAM_SHA_256, derive_credentials
from secantus.server import SecantusDBServer

DATABASE = "onesource"  # of our address, where a driver looks for the user


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--home", required=True)
    parser.add_argument("--user", required=True)
    parser.add_argument("--password-file", type=Path, required=True)
    parser.add_argument("--cache-size", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    server = SecantusDBServer(
        "127.0.0.1",
        options.port,
        options.home,
        replica_set_name=None,  # standalone: no second copy of every write for replicas, of which there are none
        require_auth=True,
        enable_test_commands=False,
        cache_size=options.cache_size,
    )
    allow(server, options.user, options.password_file.read_text().strip())
    serve(server)


def allow(server: SecantusDBServer, user: str, password: str) -> None:
    """Let this user do everything. What an earlier start allowed with another password is replaced."""
    user_of = {"user": user, "db": DATABASE}
    credentials = derive_credentials(password, mechanism=SCRAM_SHA_256, username=user).to_doc()
    roles = [{"role": "root", "db": "admin"}]
    record = {"_id": f"{DATABASE}.{user}", **user_of, "credentials": credentials, "roles": roles}
    server.storage.add_user(DATABASE, user, record | {"mechanisms": [SCRAM_SHA_256]}, replace=True)


def serve(server: SecantusDBServer) -> None:
    """Answer until a signal; return when the data is on the disk."""

    def stop(*_: object) -> None:
        server.stop()
        sys.exit(0)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stop)
    server.start()
    server.wait()


if __name__ == "__main__":
    main()
