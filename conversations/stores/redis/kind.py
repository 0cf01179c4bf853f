"""Whether REDIS_URL names the kind of server that answers there."""

from redis.exceptions import RedisError

from conversations.errors import StoreUnavailable, WrongServer
from conversations.stores.redis.cluster import Cluster, NoCluster
from conversations.stores.redis.patient import turns_client


def check() -> None:
    """Raise WrongServer where it does not; return where nothing answers, or the user has no right to ask."""
    try:
        client = turns_client()
        is_node = not isinstance(client, Cluster) and client.info("cluster").get("cluster_enabled")
    except StoreUnavailable as error:
        if error.reason == NoCluster.__name__:
            raise WrongServer(
                "REDIS_URL is redis+cluster://, and the server there does not run in cluster mode: use redis://"
            ) from None
        return
    except RedisError:
        return
    if is_node:
        raise WrongServer(
            "REDIS_URL is that of one server, and the one there is a node of a cluster: use redis+cluster://"
        )
