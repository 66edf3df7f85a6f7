const server = `
start() {
  cd /
  mkdir -p /run/postgresql && chown postgres:postgres /run/postgresql
  setpriv --reuid=postgres --regid=postgres --init-groups postgres -D "$@" \\
    -c unix_socket_directories=/run/postgresql -c listen_addresses= -c shared_buffers=4MB -c max_connections=10 \\
    -c jit=off -c max_wal_size=2MB >&2 &
  until pg_isready -q -h /run/postgresql -U postgres; do kill -0 $!; sleep 0.1; done
}
sql() { stdbuf -oL psql -h /run/postgresql -U postgres -qAt -v ON_ERROR_STOP=1 "$@"; }
`;

/**
 * Shell scripts, by what they do; `$1` is a volume, `$2` the journal of SQLite. Those that write print each row's number once it
 * is committed. Those that check print `row N` for each that is found, and end with 0 if all that the database has is whole.
 */
export const scripts = {
  // Segments of 1 MiB and 2 of them at most: checkpoints sync the tables' files all the time.
  'postgres-write': `set -eu
${server}
test -d "$1/postgres" || cp -a /var/lib/postgresql/new "$1/postgres"
start "$1/postgres"
test "$(sql -c 'show fsync')" = on
sql -c 'create table rows (n int primary key, filler text)'
i=0
while :; do i=$((i+1)); printf "insert into rows values (%d, repeat('%d ', 200));\\n\\\\\\\\echo %d\\n" $i $i $i; done | sql`,
  // Each page of tables and indexes is read, with its checksum. Before recovery, the server would sync a thousand files one by one.
  'postgres-check': `set -eu
${server}
rm -f "$1/postgres/postmaster.pid"
start "$1/postgres" -c recovery_init_sync_method=syncfs
test "$(sql -c 'show data_checksums')" = on
sql -c "select 'row ' || n from rows order by n"
pg_amcheck -h /run/postgresql -U postgres --install-missing --heapallindexed postgres`,
  // With a journal that is deleted, a commit is the deletion: only "extra" syncs the directory, too.
  'sqlite-write': `set -eu
{
  echo "pragma journal_mode=$2; pragma synchronous=extra; create table rows (n integer primary key, filler text);"
  i=0
  while :; do i=$((i+1)); echo "insert into rows values ($i, '$i is a row');"; echo "select $i;"; done
} | stdbuf -oL sqlite3 -bail "$1/$2.sqlite"`,
  'sqlite-check': `set -eu
sqlite3 -bail "$1/$2.sqlite" "select 'row ' || n from rows order by n"
test "$(sqlite3 -bail "$1/$2.sqlite" 'pragma integrity_check')" = ok`,
};
