import { join } from 'node:path';
import { run, type RunOptions } from '#host/process/run.ts';
import { goEnv, inNewDirectory, sourceOf } from '../../test/conformance/go-module.ts';

/** gVisor's runtime. */
export interface GvisorPrograms {
  readonly runsc: string;
  readonly version: string;
}

/** Module of the branch `go`, which includes the generated sources. */
const module = {
  path: 'gvisor.dev/gvisor',
  version: 'v0.0.0-20260905035102-160fafc42237',
  sum: 'h1:AU5+CtCvnBnxdZRNcZt1NfSLqgkXZVT3N/u6u1aXg44=',
};
const buildTimeoutMs = 60 * 60_000;

/** Builds it from the module, once, into `cache`. It takes two minutes of two cores. */
export async function buildGvisor(cache: string, signal: AbortSignal): Promise<GvisorPrograms> {
  const home = join(cache, `gvisor-${module.version}`);
  await inNewDirectory(home, async (work) => {
    const options: RunOptions = {
      signal,
      env: { ...goEnv(), CGO_ENABLED: '0' },
      timeoutMs: buildTimeoutMs,
      cwd: work,
    };
    const flags = ['-trimpath', '-buildvcs=false', '-ldflags=-s -w', '-o', work];
    await run('go', ['build', ...flags, './runsc'], { ...options, cwd: await sourceOf(module, options) });
  });
  return { runsc: join(home, 'runsc'), version: module.version };
}
