/** Commands by the headings of the help, in their order there. */
export const commandGroups: Readonly<Record<string, readonly string[]>> = {
  'Running pods:': ['run', 'start', 'stop', 'restart', 'rm', 'kill', 'pause', 'unpause', 'rename', 'wait'],
  'Looking at pods, and into them:': [
    ...['ps', 'logs', 'events', 'describe', 'inspect', 'top', 'stats', 'exec', 'attach', 'debug', 'cp', 'port-forward'],
    'console',
  ],
  'Files of clusters:': ['apply', 'diff', 'delete', 'get'],
  'Images, registries and volumes:': ['image', 'images', 'login', 'logout', 'volume'],
  'This host:': [
    ...[
      'doctor',
      'info',
      'version',
      'system',
      'dashboard',
      'overhead',
      'drain',
      'daemon',
      'setup',
      'install',
      'uninstall',
    ],
    ...['support-bundle', 'completion', 'help'],
  ],
};
