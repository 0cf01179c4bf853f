"""A plan for people."""

from ops.capacity.plan import Nodes, Plan, Share

_SIZES = ((10**15, "PB"), (10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB"))
_TIMES = ((86_400, "days"), (3600, "hours"), (60, "minutes"))


def lines(plan: Plan) -> list[str]:
    """Return the plan: what was asked, what is needed, what ends first, and what is next."""
    return [*_asked(plan), "", "Needed", *_needed(plan), "", "Ends first", *_ends(plan), "", "Next", *_next(plan)]


def trouble(plan: Plan) -> str:
    """Return what no number of nodes carries, or nothing."""
    over = [share.what for share in plan.limits if share.used > 1]
    return f"more nodes do not carry it: {'; '.join(over)}" if over else ""


def _asked(plan: Plan) -> list[str]:
    demand, node = plan.demand, plan.node
    return [
        f"{demand.conversations:,} conversations of {demand.messages:,} messages of {demand.bytes_per_message:,} bytes",
        f"tenants: {demand.tenants:,}; {demand.asks_per_second:,.10g} asks a second; dual write",
        f"nodes of {node.cores} cores, {size(node.memory)} of memory, {size(node.disk)} of disk, "
        f"{node.network * 8 / 10**9:,.4g} Gbit/s",
    ]


def _needed(plan: Plan) -> list[str]:
    redis, mongo, service = plan.redis, plan.mongo, plan.service
    cluster = f"{redis.number:,} masters with a replica each" if redis.number > 1 else "a master with two replicas"
    shards = f"{mongo.number:,} shards of three, three config servers" if mongo.number > 1 else "a replica set of three"
    keys = f"; Idempotency-Keys of a day take up to {size(plan.redis_keys)} of it" if plan.redis_keys else ""
    return [
        f"  Redis    {size(plan.redis_bytes)}, {plan.redis_each:,} bytes a conversation{keys}",
        f"           {redis.servers:,} servers: {cluster}; {_fullest(redis)}",
        f"  MongoDB  {size(plan.mongo_bytes)} on disk three times, {plan.mongo_each:,} bytes a conversation",
        f"           {mongo.servers:,} servers: {shards}; {_fullest(mongo)}",
        f"  service  {plan.processes:,} processes on {service.number:,} machines; {_fullest(service)}",
        "  a core   "
        + ", ".join(f"{name} {turns:,} turns/s" for name, turns in plan.turns_a_core.items())
        + " (MongoDB as SecantusDB: no other was measured)",
        "  network  " + ", ".join(f"{kind.kind} {_network(kind)}" for kind in (redis, mongo, service)),
        "  commands " + ", ".join(f"{name} {time(seconds)}" for name, seconds in plan.commands.items()),
    ]


def _ends(plan: Plan) -> list[str]:
    return [f"  {number}. {_end(share)}" for number, share in enumerate(plan.shares[:4], 1)]


def _end(share: Share) -> str:
    if share.used > 1:
        return f"{share.what}: {share.used:,.3g} times what it carries"
    return f"{share.what}: {share.used:.1%} used, ends at {share.times():,.3g} times this"


def _next(plan: Plan) -> list[str]:
    overlay = "cluster" if plan.redis.number > 1 else "sentinel"
    found = [f"deploy/k8s/overlays/{overlay}" + (f" with {plan.redis.servers:,} nodes" if overlay == "cluster" else "")]
    found += [f"{share.what}: {share.cure}" for share in plan.shares if share.used > 1]
    if plan.turns_each > plan.demand.messages / 2:
        found.append(f"a conversation gets {plan.turns_each:,.0f} turns in its TTL: is --messages more than that?")
    found.append("fill one node of each with a hundredth of it, and compare with `status`: these figures are of few")
    return [f"  - {each}" for each in found]


def _fullest(nodes: Nodes) -> str:
    return f"{nodes.fullest.what} {nodes.fullest.used:.0%}"


def _network(nodes: Nodes) -> str:
    (share,) = [each.used for each in nodes.shares if each.what.startswith("network")]
    return f"{share:.1%}"


def size(number: float) -> str:
    """Return bytes in the largest unit of which there is one."""
    for unit, name in _SIZES:
        if number >= unit:
            return f"{number / unit:,.3g} {name}" if number < 1000 * unit else f"{number / unit:,.0f} {name}"
    return f"{number:,.0f} bytes"


def time(seconds: float) -> str:
    """Return a time in the largest unit of which there is one."""
    for unit, name in _TIMES:
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:,.1f} s"
