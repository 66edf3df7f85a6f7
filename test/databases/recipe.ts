import type { Recipe } from '../images/recipes.ts';

/** Path of a new cluster of PostgreSQL in the image, without its first `/`. */
export const newCluster = 'var/lib/postgresql/new';

/** PostgreSQL with such a cluster, and SQLite. */
export const databasesRecipe: Recipe = {
  name: 'test/databases:1',
  packages: ['postgresql', 'postgresql-client', 'sqlite3'],
  finish: `
    for tool in "$1"/usr/lib/postgresql/*/bin/*; do ln -sf "\${tool#$1}" "$1"/usr/local/bin/; done
    rm -rf "$1"/etc/postgresql/*/main "$1"/var/lib/postgresql/*
    chroot "$1" setpriv --reuid=postgres --regid=postgres --init-groups initdb --data-checksums --wal-segsize=1 \\
      --username=postgres --auth=trust --locale=C.UTF-8 --no-sync -D /var/lib/postgresql/new
    rm -rf "$1"/usr/lib/*/libLLVM* "$1"/usr/lib/llvm* "$1"/usr/lib/postgresql/*/lib/bitcode "$1"/usr/share/locale`,
  config: { Cmd: ['sleep', '1000000'] },
};
