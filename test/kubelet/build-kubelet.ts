import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { isThere } from '#host/file/files.ts';
import { type GoModule, goEnv, sourceOf } from '../conformance/go-module.ts';

export const version = 'v1.35.4';
/** Kubernetes' own module. */
export const kubernetes: GoModule = {
  path: 'k8s.io/kubernetes',
  version,
  sum: 'h1:o/8dBC/pHVpYoGV4OAIytAlNPZbdYVTXJHoYvXC4qzM=',
};
const buildTimeoutMs = 60 * 60_000;

/**
 * Builds a kubelet from Kubernetes' own module, once, into `cache`, and returns its path. The environment determines
 * where the module comes from (GOPROXY, GOFLAGS, GOMODCACHE).
 */
export async function buildKubelet(cache: string, signal: AbortSignal): Promise<string> {
  const kubelet = join(cache, `kubelet-${version}`);
  if (await isThere(kubelet)) return kubelet;
  await mkdir(cache, { recursive: true });
  const work = await mkdtemp(join(cache, '.building-'));
  try {
    const options = { signal, env: { ...goEnv(), CGO_ENABLED: '0' }, timeoutMs: buildTimeoutMs, cwd: work };
    await writeFile(join(work, 'go.mod'), await goModOf(await sourceOf(kubernetes, options)));
    await writeFile(
      join(work, 'tools.go'),
      `//go:build tools\n\npackage tools\n\nimport _ "${kubernetes.path}/cmd/kubelet"\n`,
    );
    const flags = ['-mod=mod', '-trimpath', '-buildvcs=false', '-ldflags=-s -w', '-o', 'kubelet'];
    await run('go', ['build', ...flags, `${kubernetes.path}/cmd/kubelet`], options);
    await rename(join(work, 'kubelet'), kubelet);
    return kubelet;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Returns the text of a `go.mod` that requires the module, whose source is given. The module itself takes its parts
 * from its own tree; for others they are published as `v0.` of the same version.
 */
export async function goModOf(source: string): Promise<string> {
  const theirs = await readFile(join(source, 'go.mod'), 'utf8');
  const go = /^go .*$/m.exec(theirs)?.[0] ?? '';
  const parts = [...theirs.matchAll(/^\s*(k8s\.io\/[a-z0-9-]+) => \.\/staging/gm)].map(([, name = '']) => name);
  const partVersion = version.replace(/^v1\./, 'v0.');
  const replaced = parts.map((name) => `replace ${name} => ${name} ${partVersion}\n`);
  return [`module podvm.invalid/kubelet\n\n${go}\n\nrequire ${kubernetes.path} ${version}\n\n`, ...replaced].join('');
}
