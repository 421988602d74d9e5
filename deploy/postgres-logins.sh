#!/bin/sh
# The logins of worker and API, with the passwords of this installation; run once, when the database is made.
# `firstcome migrate` gives their roles the rights that they have.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --set worker="$(cat /run/firstcome/postgres-worker)" --set api="$(cat /run/firstcome/postgres-api)" <<'SQL'
CREATE ROLE firstcome_writer NOLOGIN;
CREATE ROLE firstcome_reader NOLOGIN;
CREATE ROLE firstcome_worker LOGIN PASSWORD :'worker' IN ROLE firstcome_writer;
CREATE ROLE firstcome_api LOGIN PASSWORD :'api' IN ROLE firstcome_reader;
SQL
