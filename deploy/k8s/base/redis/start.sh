#!/bin/sh
# Start Redis with the users of users.acl: {NAME} in it becomes the SHA-256 of the password in the secrets' file
# NAME. Arguments go to redis-server.
set -eu
umask 077
config=${CONFIG:-/etc/redis}
secrets=${SECRETS:-/run/secrets/redis}
users=${USERS:-/run/redis/users.acl}
data=${DATA:-/data}

grep -v '^#' "$config/users.acl" | awk '/^ / { line = line $0; next } { if (line) print line; line = $0 }
    END { print line }' >"$users"
for name in operator_password onesource_password jobs_password; do
    password=$(cat "$secrets/$name")
    [ -n "$password" ] || { echo "start.sh: $secrets/$name is empty" >&2; exit 2; }
    hash=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
    sed -i "s/{$name}/$hash/" "$users"
done
exec redis-server "$config/redis.conf" --dir "$data" --aclfile "$users" "$@"
