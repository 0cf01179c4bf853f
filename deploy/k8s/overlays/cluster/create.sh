#!/bin/sh
# Make the cluster of the servers in NODES, with a replica for each master. Where it is made already, introduce the
# servers to each other: after all were stopped at once they have other addresses than they know of each other.
set -eu
port=${REDIS_PORT:-6379}
REDISCLI_AUTH=$(cat "${SECRETS:-/run/secrets/redis}/cluster_password")
export REDISCLI_AUTH
cli() { timeout 60 redis-cli --user cluster -p "$port" "$@"; }
address() { getent hosts "$1" | { read -r found _ && echo "$found"; } || echo "$1"; }

addresses=
for node in $NODES; do
    until cli -h "$node" ping 2>/dev/null | grep -q PONG; do sleep 1; done
    addresses="$addresses $(address "$node")" # not its name, which Redis takes for no address here
done
first=${NODES%% *}
if cli -h "$first" cluster info | tr -d '\r' | grep -qx cluster_known_nodes:1; then
    # shellcheck disable=SC2046,SC2086
    cli --cluster create $(printf "%s:$port " $addresses) --cluster-replicas 1 --cluster-yes
else
    for each in $addresses; do cli -h "$first" cluster meet "$each" "$port"; done
fi
tries=0
until cli -h "$first" cluster info | tr -d '\r' | grep -qx cluster_state:ok; do
    tries=$((tries + 1))
    [ $tries -lt 60 ] || { echo "create.sh: the cluster is not whole" >&2; exit 1; }
    sleep 1
done
echo "the cluster is whole"
