#!/bin/sh
# Start the sentinel beside a Redis. Arguments go to it.
set -eu
umask 077
secrets=${SECRETS:-/run/secrets/redis}
file=${DATA:-/data}/sentinel.conf
me=${ME:-$(hostname).redis}
nodes=${NODES:-redis-0.redis redis-1.redis redis-2.redis}

# Written anew but for what the sentinel has found out: a password may have changed.
{
    if [ -s "$file" ]; then
        grep -Ev '^(requirepass|sentinel (sentinel-pass|auth-pass|announce-ip)) ' "$file"
    else
        sed "s/{primary}/${nodes%% *}/; s/{port}/${REDIS_PORT:-6379}/" "${CONFIG:-/etc/redis}/sentinel.conf" | grep -v '^#'
    fi
    printf 'sentinel announce-ip %s\n' "$me"
    printf 'requirepass %s\nsentinel sentinel-pass %s\n' "$(cat "$secrets/sentinels_password")" "$(cat "$secrets/sentinels_password")"
    printf 'sentinel auth-pass mymaster %s\n' "$(cat "$secrets/sentinel_password")"
} >"$file.new"
mv "$file.new" "$file"
exec redis-server "$file" --sentinel "$@"
