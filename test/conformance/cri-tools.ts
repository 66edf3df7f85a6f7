import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/files.ts';
import { run, type RunOptions } from '#host/run.ts';
import { callersEnv } from './callers-env.ts';

/** The suite and its client, of one version. */
export interface CriTools {
  readonly crictl: string;
  readonly critest: string;
}

const module = 'sigs.k8s.io/cri-tools';
export const version = 'v1.36.0';
/** Hash of the module's source, as in `go.sum`: changes with the version. */
const sum = 'h1:Xt+LLvBVH1Fnp/AR2EyHApyWS/88y2KlWjlDc2HR+aw=';
const buildTimeoutMs = 30 * 60_000;

const downloaded = v.object({ Dir: v.string(), Sum: v.string() });

/** Version of the Go toolchain of this machine, or undefined if there is none. */
export async function goVersion(signal: AbortSignal): Promise<string | undefined> {
  try {
    return (await run('go', ['env', 'GOVERSION'], { signal, env: goEnv() })).stdout.trim();
  } catch (error) {
    if (error instanceof PodvmError && error.kind === 'failedPrecondition') return undefined;
    throw error;
  }
}

/**
 * Builds crictl and critest out of the module's source, once, into `cache`. Where the module comes from is the
 * environment's to say (GOPROXY, GOFLAGS, GOMODCACHE).
 */
export async function buildCriTools(cache: string, signal: AbortSignal): Promise<CriTools> {
  const home = join(cache, `cri-tools-${version}`);
  const tools = { crictl: join(home, 'crictl'), critest: join(home, 'critest') };
  if (await isThere(tools.critest)) return tools;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, '.building-'));
  try {
    const options: RunOptions = { signal, env: goEnv(), timeoutMs: buildTimeoutMs, cwd: work };
    const { stdout } = await run('go', ['mod', 'download', '-json', `${module}@${version}`], options);
    const source = v.parse(downloaded, JSON.parse(stdout));
    if (source.Sum !== sum) {
      throw new PodvmError('corrupt', `Cannot use ${module} ${version}: expected the sum ${sum}, got ${source.Sum}`);
    }
    const inSource = { ...options, cwd: source.Dir };
    const flags = ['-trimpath', '-buildvcs=false', '-o', work];
    await run('go', ['build', ...flags, './cmd/crictl'], inSource);
    await run('go', ['test', '-c', ...flags, './cmd/critest'], inSource);
    await rename(join(work, 'critest.test'), join(work, 'critest'));
    await rename(work, home);
    return tools;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Go finds its caches and proxies by the caller's environment. */
export function goEnv(): Record<string, string> {
  return callersEnv({ PATH: `${process.env['PATH'] ?? ''}:/usr/local/go/bin`, HOME: process.env['HOME'] ?? '/root' });
}
