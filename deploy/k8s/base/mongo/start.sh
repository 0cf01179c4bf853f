#!/bin/sh
# Start a member of the replica set. MongoDB refuses a keyfile that a group may read, which is how Kubernetes mounts
# secrets, so it gets a copy. Arguments go to mongod.
set -eu
umask 077
secrets=${SECRETS:-/run/secrets/mongo}
keyfile=${KEYFILE:-/tmp/keyfile}

rm -f "$keyfile"
cp "$secrets/keyfile" "$keyfile"
chmod 400 "$keyfile"
exec mongod --replSet rs0 --keyFile "$keyfile" --bind_ip_all --dbpath /data/db "$@"
