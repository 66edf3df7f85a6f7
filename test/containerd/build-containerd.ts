import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run, type RunOptions } from '#host/process/run.ts';
import { goEnv, type GoModule, inNewDirectory, sourceOf } from '../conformance/go-module.ts';

/** Containerd's programs, and runc. */
export interface ContainerdPrograms {
  readonly containerd: string;
  readonly ctr: string;
  readonly runc: string;
  /** `2.4.2` */
  readonly version: string;
}

/** Versions that can be built: the newest patch of each, by their minor version. */
export const modules = {
  '1.7': {
    path: 'github.com/containerd/containerd',
    version: 'v1.7.35',
    sum: 'h1:7AU2T1qI2OdNBmKkreWZ7kASHUNFItN5Hgejd9sY938=',
  },
  '2.2': {
    path: 'github.com/containerd/containerd/v2',
    version: 'v2.2.9',
    sum: 'h1:ddw9THGOXhcKnHORjkKoXtazPjwtcPwmqk8AVyRpfZw=',
  },
  '2.4': {
    path: 'github.com/containerd/containerd/v2',
    version: 'v2.4.2',
    sum: 'h1:p6Qg+xbEz8lvwdhHDx0U469xENvp4LgGBx+E7djXkGw=',
  },
} as const satisfies Record<string, GoModule>;
export type MinorVersion = keyof typeof modules;
export const newest: MinorVersion = '2.4';

export const isMinorVersion = (text: string): text is MinorVersion => Object.hasOwn(modules, text);

const buildTimeoutMs = 60 * 60_000;

/**
 * Builds containerd from its module, once, into `cache`; nothing is installed. The environment determines where the
 * module comes from (GOPROXY, GOFLAGS, GOMODCACHE).
 */
export async function buildContainerd(
  cache: string,
  signal: AbortSignal,
  minor: MinorVersion = newest,
): Promise<ContainerdPrograms> {
  const module = modules[minor];
  const { version } = module;
  const home = join(cache, `containerd-${version}`);
  await inNewDirectory(home, async (work) => {
    const env = { ...goEnv(), CGO_ENABLED: '0' };
    const options: RunOptions = { signal, env, timeoutMs: buildTimeoutMs, cwd: work };
    const flags = ['-trimpath', '-buildvcs=false', '-ldflags=-s -w', '-o', work];
    const commands = ['./cmd/ctr', './cmd/containerd-shim-runc-v2', './cmd/containerd'];
    await run('go', ['build', ...flags, ...commands], { ...options, cwd: await sourceOf(module, options) });
  });
  const { runc } = await debianContainerd(cache, signal);
  return { containerd: join(home, 'containerd'), ctr: join(home, 'ctr'), runc, version: version.slice(1) };
}

/** Gets the containerd and runc of the host's Debian, an older version, once, into `cache`; nothing is installed. */
export async function debianContainerd(cache: string, signal: AbortSignal): Promise<ContainerdPrograms> {
  const home = join(cache, 'containerd-debian');
  await inNewDirectory(home, async (work) => {
    await run('apt-get', ['download', 'containerd', 'runc'], { signal, cwd: work });
    for (const name of (await readdir(work)).filter((file) => file.endsWith('.deb'))) {
      await run('dpkg', ['-x', name, work], { signal, cwd: work });
    }
  });
  const containerd = join(home, 'usr/bin/containerd');
  const { stdout } = await run(containerd, ['--version'], { signal });
  const [found = ''] = /\d+\.\d+\.\d+/.exec(stdout) ?? [];
  return { containerd, ctr: join(home, 'usr/bin/ctr'), runc: join(home, 'usr/sbin/runc'), version: found };
}
