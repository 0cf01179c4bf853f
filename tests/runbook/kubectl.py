"""What the stand-in for kubectl does: the words that the document uses, and no others.

Each verb prints what kubectl prints, and does to a Cluster's processes what kubectl would do to a cluster. It
differs in that a store is restarted when the command returns, and in that `logs -f` ends by itself.
"""

import json
import re
import shutil
import socketserver
import threading
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.deploy.files import manifest
from tests.faults.service import ROOT
from tests.runbook.cluster import Cluster
from tests.servers import eventually

FOLLOW_SECONDS = "2"  # what `logs -f` follows, where a person watches for ten minutes
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Answer:
    """What kubectl prints and the code it ends with, or the program that it runs in a pod."""

    out: str = ""
    err: str = ""
    code: int = 0
    plugin: str = ""
    program: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = str(ROOT)
    reads: bool = False


class Refused(Exception):
    """kubectl, or its stand-in, cannot do that"""


class _Parser(ArgumentParser):
    def error(self, message: str) -> Any:
        raise Refused(f"the stand-in for kubectl does not know this: {message}")


class Kubectl:
    """Answers the words of one command line."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._parser = _Parser(allow_abbrev=False, add_help=False)
        self._verbs = self._parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)
        self._verb("set", "what", "target", "variables*")
        self._verb("rollout", "what", "target")
        self._verb("delete", "kind", "-l")
        self._verb("wait", "target+", "-l", "--for", "--timeout")
        self._verb("logs", "target?", "-f!", "-l", "--since", "--tail")
        self._verb("exec", "target", "-i!", "-t!")
        self._verb("cp", "source", "to")
        self._verb("get", "kind", "name?", "-l", "-o")
        self._verb("create", "kind?", "name?", "--from", "--dry-run", "-o", "-f")
        self._verb("port-forward", "target", "port")

    def _verb(self, name: str, *options: str) -> None:
        parser = self._verbs.add_parser(name, allow_abbrev=False, add_help=False)
        for option in options:
            word = option.rstrip("!?*+")
            if option.endswith("!"):
                parser.add_argument(word, action="store_true", dest=word.strip("-"))
            elif option.startswith("-"):
                parser.add_argument(word, dest=f"_{word.strip('-').replace('-', '_')}")
            else:
                parser.add_argument(word, nargs=option[-1] if option[-1] in "?*+" else None)

    def answer(self, words: list[str], typed: str, folder: str) -> Answer:
        """Return the result of the command."""
        if words[0] not in self._verbs.choices and shutil.which(f"kubectl-{words[0]}", path=self._cluster.desk_path):
            return Answer(plugin=f"kubectl-{words[0]}")
        inside = words[words.index("--") + 1 :] if "--" in words else []
        try:
            args = self._parser.parse_args(words[: len(words) - len(inside) - 1] if inside else words)
            args.inside, args.typed, args.folder = inside, typed, folder
            output = getattr(self, f"_{args.verb.replace('-', '_')}")(args)
        except Refused as refusal:
            return Answer(err=f"{refusal}\n", code=1)
        return output if isinstance(output, Answer) else Answer(out=f"{output}\n" if output else "")

    # --- the verbs ----------------------------------------------------------------------------------

    def _set(self, args: Namespace) -> str:
        _only(args.what == "env" and args.target == "deployment/onesource")
        news = self._cluster.set_variables(dict(each.split("=", 1) for each in args.variables))
        return "deployment.apps/onesource env updated" if news else ""

    def _rollout(self, args: Namespace) -> str:
        cluster = self._cluster
        restart = {
            "deployment/onesource": cluster.roll,
            "deployment/redis": cluster.restart_redis,
            "statefulset/mongo": cluster.restart_mongo,
        }
        _only(args.what in ("status", "restart") and args.target in restart)
        kind, name = args.target.split("/")
        if args.what == "restart":
            restart[args.target]()
            return f"{kind}.apps/{name} restarted"
        if name == "onesource":
            cluster.wait_for_rollout()
        if kind == "statefulset":
            return f"statefulset rolling update complete 3 pods at revision {name}-7c9f6b5d48..."
        return f'deployment "{name}" successfully rolled out'

    def _delete(self, args: Namespace) -> str:
        _only(args.kind == "pod" and args._l == "app=redis")
        name = self._cluster.pod_name("redis")
        self._cluster.restart_redis()
        return f'pod "{name}" deleted'

    def _wait(self, args: Namespace) -> str:
        if args._for == "condition=complete":
            name = args.target[0].removeprefix("job/")
            if self._job(name)[0]:
                raise Refused(f"error: timed out waiting for the condition on jobs/{name}")
            return f"job.batch/{name} condition met"
        _only(args._for == "condition=ready" and args.target == ["pod"] and args._l == "app=redis")
        name = self._cluster.pod_name("redis")
        try:
            eventually(self._cluster.redis.answers, "", _seconds(args._timeout))
        except AssertionError:
            raise Refused(f"error: timed out waiting for the condition on pods/{name}") from None
        return f"pod/{name} condition met"

    def _logs(self, args: Namespace) -> Answer:
        if args.target:
            return Answer(self._job(args.target.removeprefix("job/"))[1])
        _only(args._l == "app=onesource")
        tail = args._tail or "10"  # kubectl's own where pods are named by a label
        log = str(self._cluster.pod.log)
        if args.f:
            return Answer(program=["timeout", FOLLOW_SECONDS, "tail", "-n", tail, "-F", log])
        since = datetime.now(UTC) - timedelta(seconds=_seconds(args._since)) if args._since else None
        lines = [line for line in Path(log).read_text().splitlines(keepends=True) if not since or _at(line) >= since]
        return Answer("".join(lines if tail == "-1" else lines[-int(tail) :]))

    def _exec(self, args: Namespace) -> Answer:
        environments = {
            "deployment/onesource": self._cluster.pod_environment,
            "deployment/redis": self._cluster.desk_environment,
        }
        _only(args.target in environments and bool(args.inside))
        if args.target == "deployment/redis" and not self._cluster.redis.answers():
            raise Refused('error: unable to upgrade connection: container not found ("redis")')
        return Answer(program=args.inside, environment=environments[args.target](), reads=args.i)

    def _cp(self, args: Namespace) -> str:
        pod, _, path = args.source.partition(":")
        if pod != self._cluster.pod_name("redis"):
            raise Refused(f'Error from server (NotFound): pods "{pod}" not found')
        _only(path.startswith("/data/"))
        shutil.copy(self._cluster.redis.directory / path.removeprefix("/data/"), Path(args.folder, args.to))
        return ""

    def _get(self, args: Namespace) -> str:
        if args.kind == "job":
            rows = [(name, "Failed" if code else "Complete") for name, (code, _) in self._cluster.jobs.items()]
            return _table(("NAME", "STATUS"), *rows)
        answers = {"redis": self._cluster.redis.answers, "onesource": self._cluster.answers}
        app = args._l.removeprefix("app=")
        _only(args.kind == "pod" and app in answers and args._o in (None, "name"))
        name = self._cluster.pod_name(app)
        if args._o:
            return f"pod/{name}"
        state = ("1/1", "Running") if answers[app]() else ("0/1", "Error")
        return _table(("NAME", "READY", "STATUS", "RESTARTS", "AGE"), (name, *state, "0", "1m"))

    def _create(self, args: Namespace) -> str:
        if args._f:
            _only(args._f == "-")
            job = json.loads(args.typed)
        else:
            _only(args.kind == "job" and args._from == "cronjob/onesource-backup")
            spec = manifest("CronJob", "onesource-backup")["spec"]["jobTemplate"]["spec"]
            job = {"metadata": {"name": args.name}, "spec": spec}
            if args._dry_run:
                _only(args._dry_run == "client" and args._o == "json")
                return json.dumps(job)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        name = job["metadata"]["name"]
        self._cluster.run_job(name, container["command"])
        return f"job.batch/{name} created"

    def _port_forward(self, args: Namespace) -> str:
        """Do nothing: .curlrc forwards."""
        _only((args.target, args.port) == ("service/onesource", "8001"))
        return "Forwarding from 127.0.0.1:8001 -> 8001"

    def _job(self, name: str) -> tuple[int, str]:
        if name not in self._cluster.jobs:
            raise Refused(f'Error from server (NotFound): jobs.batch "{name}" not found')
        return self._cluster.jobs[name]


class Desk(socketserver.ThreadingTCPServer):
    """Answers the kubectl of the operator's shell, on `port`."""

    daemon_threads = True

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.kubectl = Kubectl(cluster)
        self.port = int(self.server_address[1])
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Call(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        args = json.loads(self.rfile.readline())
        assert isinstance(self.server, Desk)
        try:
            answer = self.server.kubectl.answer(**args)
        except Exception as error:  # it must be seen at the shell
            answer = Answer(err=f"the stand-in for kubectl failed: {error!r}\n", code=3)
        self.wfile.write(json.dumps(asdict(answer)).encode() + b"\n")


def _table(*rows: tuple[str, ...]) -> str:
    return "\n".join("   ".join(row) for row in rows)


def _only(known: bool) -> None:
    if not known:
        raise Refused("the stand-in for kubectl does not know these words")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+)([smh])", text)
    if not match:
        raise Refused(f"the stand-in for kubectl does not know how long {text} is")
    return int(match[1]) * _UNITS[match[2]]


def _at(line: str) -> datetime:
    """Return when the line was logged; what is no line of ours counts as new."""
    try:
        return datetime.fromisoformat(json.loads(line)["at"])
    except (ValueError, KeyError, TypeError):
        return datetime.now(UTC)
