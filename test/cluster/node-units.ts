import type { RunOptions } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import type { ClusterNode, Service } from './node-namespaces.ts';

const timeoutMs = 120_000;

interface UnitOptions {
  readonly environment: Readonly<Record<string, string>>;
  readonly logFile: string;
}

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

/** Writes the unit of a program of a node whose first process is systemd: `NAME.service`. */
export async function writeUnit(
  node: ClusterNode,
  name: string,
  words: readonly string[],
  { environment, logFile }: UnitOptions,
): Promise<void> {
  const script = `/run/.node/${name}.sh`;
  const exports = Object.entries(environment).map(([key, value]) => `export ${key}=${quoted(value)}\n`);
  const unit = `[Service]
ExecStart=/bin/sh ${script}
KillMode=process
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576
StandardOutput=append:${logFile}
StandardError=inherit
`;
  for (const [path, text] of [
    [script, `${exports.join('')}exec ${words.map(quoted).join(' ')}\n`],
    [`/etc/systemd/system/${name}.service`, unit],
  ] as const) {
    await node.run('sh', ['-c', 'cat >"$1"', 'sh', path], { input: text });
  }
  await node.run('systemctl', ['daemon-reload']);
}

/** A service of a node's systemd, which may have no unit yet. */
export function serviceOfUnit(node: ClusterNode, name: string, logFile: string): Service {
  const unit = `${name}.service`;
  const systemctl = async (words: readonly string[], options: RunOptions = {}) =>
    await node.run('systemctl', [...words, unit], { timeoutMs, ...options });
  const isRunning = async () => {
    const { stdout } = await systemctl(['is-active'], { okCodes: 'any' });
    return /^(?:active|activating|deactivating|reloading)$/.test(stdout.trim());
  };
  const service: Service = {
    logFile,
    isRunning,
    begin: async () => void (await systemctl(['start'])),
    end: async (signal) => {
      if (!(await isRunning())) return;
      if (signal === 'SIGTERM') return void (await systemctl(['stop']));
      await systemctl(['kill', '--kill-whom=main', `--signal=${signal}`]);
      const hasEnded = async () => ((await isRunning()) ? undefined : true);
      await poll(hasEnded, { everyMs: 100, signal: AbortSignal.timeout(timeoutMs) });
    },
    [Symbol.asyncDispose]: () => service.end('SIGTERM'),
  };
  return service;
}
