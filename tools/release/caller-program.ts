import { copyFile, mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runInBuildRoot } from '#setup/parts/build-root.ts';

const source = 'src/cli/served/caller.c';
const warnings = ['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Wno-sign-conversion', '-Werror'];
const hardening = ['-fstack-protector-strong', '-D_FORTIFY_SOURCE=3'];

/**
 * Compiles the caller to the static program `outFile`. `buildRoot`: extracted Debian packages with gcc. Errors: those of
 * `runInBuildRoot`.
 */
export async function buildCaller(
  { repo, buildRoot }: { readonly repo: string; readonly buildRoot: string },
  outFile: string,
  signal: AbortSignal,
): Promise<void> {
  await using work = await mkdtempDisposable(join(tmpdir(), 'podvm-caller-'));
  await runInBuildRoot({
    buildRoot,
    workDir: work.path,
    program: 'gcc',
    args: ['-std=gnu17', ...warnings, ...hardening, '-Os', '-static', '-s', '-o', 'caller', '/caller.c'],
    readOnly: { '/caller.c': join(repo, source) },
    signal,
  });
  await copyFile(join(work.path, 'caller'), outFile);
}
