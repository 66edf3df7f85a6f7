import { type Setting, type SettingType, settings } from '../../src/daemon/configuration/settings.ts';
import { code, page, table } from './markdown.ts';

export async function settingsPage(): Promise<string> {
  const rows = Object.entries<Setting>(settings).map(([key, row]) => [
    code(key),
    code(row.env),
    typeOf(row.type),
    defaultOf(row),
    row.about,
  ]);
  return await page(
    'Settings',
    '`src/daemon/configuration/settings.ts`',
    '`podvm daemon --config FILE` reads a YAML file with these keys. All commands read the environment. Command-line ' +
      'options take precedence over the environment, and the environment over the file. Every setting is optional. ' +
      '[Configuration](../configuration.md) explains them in use.',
    table(['key', 'environment', 'type', 'default', 'meaning'], rows),
  );
}

function typeOf(type: SettingType): string {
  switch (type.kind) {
    case 'path':
      return 'path';
    case 'paths':
      return 'absolute paths, separated by `:`';
    case 'group':
      return 'name of a group';
    case 'address':
      return 'IP address and port, such as `127.0.0.1:10010` or `[::1]:10010`';
    case 'url':
      return 'URL';
    case 'cniConfig':
      return 'absolute path, or `built-in`';
    case 'endpoint':
      return '`unix://` and an absolute path';
    case 'namespaces':
      return 'names, separated by `,`; or `*` for all';
    case 'rate':
      return 'bytes a second, as a Kubernetes quantity of 1M or more';
    case 'word':
      return type.words.map(code).join(', ');
    case 'number':
      return `whole number from ${type.min} to ${type.max}${type.or === undefined ? '' : `, or ${code(type.or)}`}`;
  }
}

function defaultOf(row: Setting): string {
  if (row.default === undefined) return row.otherwise ?? 'none';
  return row.daemonDefault === undefined
    ? code(row.default)
    : `${code(row.default)}; with \`podvm daemon\`, ${code(row.daemonDefault)}`;
}
