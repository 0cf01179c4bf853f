#!/bin/sh
# Start Redis as the sentinels want it: as the server that takes writes, or as a replica of that. Where none answers, as
# at the first start or after all were stopped, the sentinel's file beside the data names it, or else it is the first.
set -eu
config=${CONFIG:-/etc/redis} data=${DATA:-/data} port=${REDIS_PORT:-6379}
me=${ME:-$(hostname).redis}
nodes=${NODES:-redis-0.redis redis-1.redis redis-2.redis}

password=$(cat "${SECRETS:-/run/secrets/redis}/sentinels_password")
primary=
for node in $nodes; do
    primary=$(REDISCLI_AUTH=$password timeout 3 redis-cli -h "$node" -p "${SENTINEL_PORT:-26379}" \
        sentinel get-master-addr-by-name mymaster 2>/dev/null | head -n 1) || true
    case "$primary" in "" | *" "*) primary= ;; *) break ;; esac
done
[ -n "$primary" ] || primary=$(sed -n 's/^sentinel monitor mymaster "\{0,1\}\([^ "]*\).*/\1/p' "$data/sentinel.conf" 2>/dev/null) || true
[ -n "$primary" ] || primary=${nodes%% *}
[ "$primary" = "$me" ] || set -- --replicaof "$primary" "$port" "$@"
# A primary that has lost its replicas refuses writes, which then go to MongoDB, instead of losing them to the other.
exec sh "$config/start.sh" --replica-announce-ip "$me" --min-replicas-to-write 1 --min-replicas-max-lag 2 "$@"
