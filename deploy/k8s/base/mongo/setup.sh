#!/bin/sh
# Run setup.js until it has worked. Beside another member than the first there is nothing to do; with STAY=1 it stays,
# since a sidecar that ends is started again.
set -eu
config=${CONFIG:-/etc/mongo}
stay() { [ "${STAY-}" != 1 ] || exec sleep infinity; exit 0; }

case "$(hostname)" in *-[1-9] | *-[1-9][0-9]) stay ;; esac
until mongosh --quiet --norc --host 127.0.0.1 --port 27017 "$config/setup.js"; do
    sleep 2
done
stay
