import type { Recipe } from './recipes.ts';

/*
 * Images of `examples/wordpress.yaml` and `examples/prometheus.yaml`. They take the variables, ports and directories of the
 * images that users of such files have from a registry, and are made of Debian's packages.
 */

/** `--init-file` runs at each start, so that a first start that was interrupted is completed by the next. */
const mariadbEntrypoint = `#!/bin/sh
set -eu
data=/var/lib/mysql
mkdir -p /run/mysqld
chown mysql:mysql /run/mysqld "$data"
if [ ! -d "$data/mysql" ]; then
  rm -rf "$data/new"
  mariadb-install-db --user=mysql --datadir="$data/new" --auth-root-authentication-method=normal --skip-test-db >/dev/null
  mv "$data"/new/* "$data"
  rmdir "$data/new"
fi
umask 077
cat >/run/mysqld/init.sql <<END
create database if not exists $MYSQL_DATABASE;
create or replace user '$MYSQL_USER'@'%' identified by '$MYSQL_PASSWORD';
grant all on $MYSQL_DATABASE.* to '$MYSQL_USER'@'%';
alter user root@localhost identified by '$MYSQL_ROOT_PASSWORD';
END
chown mysql:mysql /run/mysqld/init.sql
exec mariadbd --user=mysql --bind-address=0.0.0.0 --log-warnings=1 --init-file=/run/mysqld/init.sql "$@"
`;

const wordpressEntrypoint = `#!/bin/sh
set -eu
cd /var/www/html
if [ ! -e wp-config.php ]; then
  cp -r /usr/src/wordpress/. .
  chown -R www-data:www-data .
  cp /usr/src/wp-config.php .
fi
set +u
. /etc/apache2/envvars
mkdir -p "$APACHE_RUN_DIR" "$APACHE_LOCK_DIR"
exec apache2 -DFOREGROUND "$@"
`;

const wordpressConfig = `<?php
define('DB_HOST', getenv('WORDPRESS_DB_HOST'));
define('DB_NAME', getenv('WORDPRESS_DB_NAME'));
define('DB_USER', getenv('WORDPRESS_DB_USER'));
define('DB_PASSWORD', getenv('WORDPRESS_DB_PASSWORD'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
defined('ABSPATH') || define('ABSPATH', __DIR__ . '/');
$table_prefix = 'wp_';
require_once ABSPATH . 'wp-settings.php';
`;

export const wordpressRecipes: readonly Recipe[] = [
  {
    name: 'site/mariadb:1',
    packages: ['mariadb-server'],
    finish: `
      rm -rf "$1"/var/lib/mysql/*
      cat >"$1"/usr/local/bin/entrypoint <<'FILE'
${mariadbEntrypoint}FILE
      chmod 755 "$1"/usr/local/bin/entrypoint`,
    config: { Entrypoint: ['/usr/local/bin/entrypoint'], Cmd: [] },
  },
  {
    name: 'site/wordpress:1',
    packages: ['wordpress', 'wordpress-theme-twentytwentyfive'],
    finish: `
      mkdir -p "$1"/usr/src
      rm -f "$1"/usr/share/wordpress/wp-config.php
      chroot "$1" cp -rL /usr/share/wordpress /usr/src/wordpress
      rm -rf "$1"/usr/share/wordpress "$1"/var/www/html/*
      cat >"$1"/usr/src/wp-config.php <<'FILE'
${wordpressConfig}FILE
      cat >"$1"/usr/local/bin/entrypoint <<'FILE'
${wordpressEntrypoint}FILE
      chmod 755 "$1"/usr/local/bin/entrypoint
      echo 'ServerName localhost' >>"$1"/etc/apache2/apache2.conf
      ln -sf /dev/stdout "$1"/var/log/apache2/access.log
      ln -sf /dev/stdout "$1"/var/log/apache2/other_vhosts_access.log
      ln -sf /dev/stderr "$1"/var/log/apache2/error.log`,
    config: { Entrypoint: ['/usr/local/bin/entrypoint'], Cmd: [] },
  },
];

export const prometheusRecipe: Recipe = {
  name: 'site/prometheus:1',
  packages: ['prometheus', 'ca-certificates'],
  variant: 'extract', // of programs without set-up a fraction of the time
  finish: `
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$1/$name"; done
    mkdir -p "$1"/prometheus "$1"/tmp
    chown 65534:65534 "$1"/prometheus
    chmod 1777 "$1"/tmp`,
  config: {
    Entrypoint: ['prometheus'],
    Cmd: ['--config.file=/etc/prometheus/prometheus.yml', '--storage.tsdb.path=/prometheus'],
    User: '65534:65534',
  },
};
