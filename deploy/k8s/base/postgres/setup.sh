#!/bin/sh
# Make the service's database and its user, once, when the data is made. That user owns the database and is no superuser,
# who could read files and run programs. The image runs this as the superuser, on the server's socket.
set -eu
password=${SECRETS:-/run/secrets/postgres}/onesource_password
[ -s "$password" ] || { echo "setup.sh: $password is empty" >&2; exit 2; }
# psql reads the file itself: a password in an argument can be seen by others.
psql --quiet --no-psqlrc --username postgres --dbname postgres --set ON_ERROR_STOP=1 --set file="$password" <<'SQL'
\set password `cat :'file'`
CREATE ROLE onesource LOGIN PASSWORD :'password';
CREATE DATABASE onesource OWNER onesource;
REVOKE ALL ON DATABASE onesource, postgres, template1 FROM PUBLIC;
SQL
