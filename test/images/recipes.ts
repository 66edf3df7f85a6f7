/** An image made of Debian packages, for tests and examples. */
export interface Recipe {
  /** `shop/nginx:1`. */
  readonly name: string;
  readonly packages: readonly string[];
  /** `extract`: the packages are only unpacked, without dpkg and apt in the tree. */
  readonly variant?: 'extract';
  /** Shell commands that finish the tree; its root is `$1`. */
  readonly finish: string;
  readonly config: {
    readonly Entrypoint?: readonly string[];
    readonly Cmd: readonly string[];
    readonly Env?: readonly string[];
    readonly User?: string;
    readonly StopSignal?: string;
  };
}

const postgresEntrypoint = `#!/bin/sh
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
PATH=$bin:$PATH
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /run/postgresql
  chown -R postgres:postgres "$PGDATA" /run/postgresql
  chmod 700 "$PGDATA"
  exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  echo "\${POSTGRES_PASSWORD:-postgres}" >/tmp/password
  initdb --data-checksums --username=postgres --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  rm /tmp/password
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/run/postgresql -c shared_buffers=16MB "$@"
`;

export const recipes: readonly Recipe[] = [
  {
    name: 'shop/nginx:1',
    packages: ['nginx-light'],
    finish: `
      rm -f "$1"/etc/nginx/sites-enabled/default
      printf 'server { listen 80; root /usr/share/nginx/html; }\\n' >"$1"/etc/nginx/conf.d/default.conf
      ln -sf /dev/stdout "$1"/var/log/nginx/access.log
      ln -sf /dev/stderr "$1"/var/log/nginx/error.log`,
    config: { Cmd: ['nginx', '-g', 'daemon off;'], StopSignal: 'SIGQUIT' },
  },
  {
    name: 'shop/redis:1',
    packages: ['redis-server', 'redis-tools'],
    finish: 'mkdir -p "$1"/data',
    config: { Cmd: ['redis-server', '--protected-mode', 'no', '--dir', '/data'] },
  },
  {
    name: 'shop/postgres:1',
    packages: ['postgresql', 'postgresql-client'],
    finish: `
      rm -rf "$1"/etc/postgresql/*/main "$1"/var/lib/postgresql/*
      cat >"$1"/usr/local/bin/entrypoint <<'END'
${postgresEntrypoint}END
      chmod 755 "$1"/usr/local/bin/entrypoint
      for tool in "$1"/usr/lib/postgresql/*/bin/*; do ln -sf "\${tool#$1}" "$1"/usr/local/bin/; done`,
    config: {
      Entrypoint: ['/usr/local/bin/entrypoint'],
      Cmd: [],
      Env: ['PGDATA=/var/lib/postgresql/data/pgdata', 'LANG=C.UTF-8'],
    },
  },
];

/** Image that `npm run bench -- versus --rows net` runs in pods, and as containers beside them. */
export const iperfRecipe: Recipe = {
  name: 'bench/iperf:1',
  packages: ['iperf3', 'iproute2', 'iputils-ping'],
  finish: 'true',
  config: { Cmd: ['iperf3', '--server'] },
};

/** Debian's tools for rules, links and tables of the kernel, for pods that administer their network. */
export const networkToolsRecipe: Recipe = {
  name: 'test/network-tools:1',
  packages: ['iptables', 'nftables', 'iproute2', 'ipset', 'ipvsadm', 'iputils-ping', 'busybox-static'],
  finish: 'true',
  config: { Cmd: ['sleep', '1000000'] },
};

/** A Docker daemon. */
export const dockerRecipe: Recipe = {
  name: 'test/docker:1',
  packages: ['docker.io', 'docker-cli', 'iptables', 'busybox-static', 'ca-certificates'],
  finish: 'true',
  config: { Cmd: ['dockerd'] },
};
