import { copyFile, mkdtemp, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { runInBuildRoot } from '#setup/parts/build-root.ts';
import { assetsRoot } from './node.ts';

/** Compiles a probe, a C file beside this one, for a guest that has no libraries, with set-up's own compiler. */
export async function buildProbe(target: string, probe: 'sctp-probe' | 'share-probe' | 'volume-probe'): Promise<void> {
  const parts = join(assetsRoot, 'parts');
  const name = (await readdir(parts)).find((entry) => entry.startsWith('build-root-'));
  if (name === undefined) throw new Error(`no build root in ${parts}`);
  const workDir = await mkdtemp('/var/tmp/podvm-probe-');
  try {
    await copyFile(join(import.meta.dirname, `${probe}.c`), join(workDir, 'probe.c'));
    await runInBuildRoot({
      buildRoot: join(parts, name, 'root'),
      workDir,
      program: 'gcc',
      args: ['-std=gnu17', '-O2', '-Wall', '-Wextra', '-Werror', '-static', '-s', '-o', 'probe', 'probe.c'],
      signal: AbortSignal.timeout(60_000),
    });
    await copyFile(join(workDir, 'probe'), target);
  } finally {
    await rm(workDir, { recursive: true });
  }
}
