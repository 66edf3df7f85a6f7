import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { PodvmError } from '#base/errors.ts';
import { isThere } from '#host/file/files.ts';
import { run, type RunOptions } from '#host/process/run.ts';
import { callersEnv } from './callers-env.ts';

/** A Go module of one version. */
export interface GoModule {
  readonly path: string;
  readonly version: string;
  /** Hash of its source, as in `go.sum`: changes with the version. */
  readonly sum: string;
}

const buildTimeoutMs = 60 * 60_000;
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
 * Returns the directory with the module's source. The environment determines where it comes from (GOPROXY, GOFLAGS,
 * GOMODCACHE). Errors: `corrupt` for a source with another hash.
 */
export async function sourceOf({ path, version, sum }: GoModule, options: RunOptions): Promise<string> {
  const { stdout } = await run('go', ['mod', 'download', '-json', `${path}@${version}`], options);
  const source = v.parse(downloaded, JSON.parse(stdout));
  if (source.Sum === sum) return source.Dir;
  throw new PodvmError('corrupt', `Cannot use ${path} ${version}: expected the sum ${sum}, got ${source.Sum}`);
}

/**
 * Builds the package `cmd/NAME` of a module with the versions of other modules that its own `go.mod` has, unless the
 * directory `cache` has it. Returns the path of the program.
 */
export async function buildProgram(
  cache: string,
  name: string,
  module: GoModule,
  signal: AbortSignal,
): Promise<string> {
  const home = join(cache, `${name}-${module.version}`);
  await inNewDirectory(home, async (work) => {
    const env = { ...goEnv(), CGO_ENABLED: '0', GOTMPDIR: work }; // /tmp may be cleaned meanwhile
    const options = { signal, env, timeoutMs: buildTimeoutMs, cwd: work };
    const flags = ['-trimpath', '-buildvcs=false', '-ldflags=-s -w', '-o', work];
    await run('go', ['build', ...flags, `./cmd/${name}`], { ...options, cwd: await sourceOf(module, options) });
  });
  return join(home, name);
}

/** Go finds its caches and proxies by the caller's environment. */
export function goEnv(): Record<string, string> {
  return callersEnv({ PATH: `${process.env['PATH'] ?? ''}:/usr/local/go/bin`, HOME: process.env['HOME'] ?? '/root' });
}

/** Fills a directory unless it exists; it appears when it is complete. */
export async function inNewDirectory(path: string, fill: (work: string) => Promise<void>): Promise<void> {
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
