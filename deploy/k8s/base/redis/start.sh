#!/bin/sh
# Start Redis with the users of the .acl files: {NAME} in them becomes the SHA-256 of the password in the secrets' file
# NAME. Where one is of replicas, this server logs in with it where it follows another. Arguments go to redis-server.
set -eu
umask 077
config=${CONFIG:-/etc/redis}
secrets=${SECRETS:-/run/secrets/redis}
users=${USERS:-/run/redis/users.acl}
data=${DATA:-/data}

cat "$config"/*.acl | grep -v '^#' | awk '/^ / { line = line $0; next } { if (line) print line; line = $0 }
    END { print line }' >"$users"
for name in $(sed -n 's/.*#{\([a-z_]*\)}.*/\1/p' "$users"); do
    password=$(cat "$secrets/$name")
    [ -n "$password" ] || { echo "start.sh: $secrets/$name is empty" >&2; exit 2; }
    hash=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
    sed -i "s/{$name}/$hash/" "$users"
    if [ "$name" = replica_password ]; then # in a file: an argument can be seen by others
        printf 'masteruser replica\nmasterauth %s\n' "$password" >"${users%/*}/replica.conf"
        set -- --include "${users%/*}/replica.conf" "$@"
    fi
done
exec redis-server "$config/redis.conf" --dir "$data" --aclfile "$users" "$@"
