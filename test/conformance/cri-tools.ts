import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { run, type RunOptions } from '#host/process/run.ts';
import { goEnv, inNewDirectory, sourceOf } from './go-module.ts';

/** The suite and its client, of one version. */
export interface CriTools {
  readonly crictl: string;
  readonly critest: string;
}

export const version = 'v1.36.0';
const module = {
  path: 'sigs.k8s.io/cri-tools',
  version,
  sum: 'h1:Xt+LLvBVH1Fnp/AR2EyHApyWS/88y2KlWjlDc2HR+aw=',
};
const buildTimeoutMs = 30 * 60_000;

/**
 * Builds crictl and critest from the module's source, once, into `cache`. The environment determines where the module
 * comes from (GOPROXY, GOFLAGS, GOMODCACHE).
 */
export async function buildCriTools(cache: string, signal: AbortSignal): Promise<CriTools> {
  const home = join(cache, `cri-tools-${version}`);
  const tools = { crictl: join(home, 'crictl'), critest: join(home, 'critest') };
  await inNewDirectory(home, async (work) => {
    const options: RunOptions = { signal, env: goEnv(), timeoutMs: buildTimeoutMs, cwd: work };
    const inSource = { ...options, cwd: await sourceOf(module, options) };
    const flags = ['-trimpath', '-buildvcs=false', '-o', work];
    await run('go', ['build', ...flags, './cmd/crictl'], inSource);
    await run('go', ['test', '-c', ...flags, './cmd/critest'], inSource);
    await rename(join(work, 'critest.test'), join(work, 'critest'));
  });
  return tools;
}
