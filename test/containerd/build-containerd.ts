import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/files.ts';
import { run, type RunOptions } from '#host/run.ts';
import { goEnv } from '../conformance/cri-tools.ts';

/** Containerd's programs, and runc. */
export interface ContainerdPrograms {
  readonly containerd: string;
  readonly ctr: string;
  readonly runc: string;
  /** `2.4.2` */
  readonly version: string;
}

const module = 'github.com/containerd/containerd/v2';
export const version = 'v2.4.2';
/** Hash of the module's source, as in `go.sum`: changes with the version. */
const sum = 'h1:p6Qg+xbEz8lvwdhHDx0U469xENvp4LgGBx+E7djXkGw=';
const buildTimeoutMs = 60 * 60_000;

const downloaded = v.object({ Dir: v.string(), Sum: v.string() });

/**
 * Builds containerd out of its module, once, into `cache`; nothing is installed. Where the module comes from is the
 * environment's to say (GOPROXY, GOFLAGS, GOMODCACHE).
 */
export async function buildContainerd(cache: string, signal: AbortSignal): Promise<ContainerdPrograms> {
  const home = join(cache, `containerd-${version}`);
  await inNewDirectory(home, async (work) => {
    const env = { ...goEnv(), CGO_ENABLED: '0' };
    const options: RunOptions = { signal, env, timeoutMs: buildTimeoutMs, cwd: work };
    const { stdout } = await run('go', ['mod', 'download', '-json', `${module}@${version}`], options);
    const source = v.parse(downloaded, JSON.parse(stdout));
    if (source.Sum !== sum) {
      throw new PodvmError('corrupt', `Cannot use ${module} ${version}: expected the sum ${sum}, got ${source.Sum}`);
    }
    const flags = ['-trimpath', '-buildvcs=false', '-ldflags=-s -w', '-o', work];
    const commands = ['./cmd/ctr', './cmd/containerd-shim-runc-v2', './cmd/containerd'];
    await run('go', ['build', ...flags, ...commands], { ...options, cwd: source.Dir });
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

/** Has a directory filled, unless it is there; it appears when it is complete. */
async function inNewDirectory(path: string, fill: (work: string) => Promise<void>): Promise<void> {
  if (await isThere(path)) return;
  await mkdir(dirname(path), { recursive: true });
  const work = await mkdtemp(join(dirname(path), '.building-'));
  try {
    await fill(work);
    await rename(work, path);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
