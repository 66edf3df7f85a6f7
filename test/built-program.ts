import { createHash } from 'node:crypto';
import { globSync } from 'node:fs';
import { chmod, copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { hashProgramSources } from '#setup/parts/program-sources.ts';
import type { ProgramBuild } from '#setup/parts/build-program.ts';

/** The tree with compilers that set-up made in the state directory of the tests; empty if there is none. */
export const buildRoot =
  globSync(`${process.env['PODVM_ROOT'] ?? '/var/lib/podvm'}/{build-root,parts/build-root-*/root}`)[0] ?? '';

/**
 * `buildProgram()` for tests: a program whose sources, tools and options are those of the last time is copied from
 * `node_modules/.cache`, and not compiled again. A copy of its own lets a test keep, change or delete its program.
 * Errors: those of `buildProgram()`.
 */
export async function builtProgram(options: ProgramBuild): Promise<void> {
  const { repo, buildRoot, outFile, entry, calls, sanitize = false } = options;
  const cache = join(repo, 'node_modules/.cache/test-programs');
  const name = `${basename(dirname(entry))}${sanitize ? '-sanitized' : ''}`;
  const inputs = [await hashProgramSources(repo), buildRoot, entry, calls, sanitize];
  const key = createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16);
  const kept = join(cache, `${name}-${key}`);
  const isKept = await copyFile(kept, outFile).then(
    () => true,
    () => false, // not built yet
  );
  if (isKept) return;
  // Loaded here and not above: a test that is skipped needs no bundler.
  const { buildProgram } = await import('#setup/parts/build-program.ts');
  await buildProgram(options);
  await chmod(outFile, 0o755); // some tests run it as another user, whatever the umask
  await mkdir(cache, { recursive: true });
  for (const old of await readdir(cache)) {
    if (old.startsWith(`${name}-`) && /^[0-9a-f]{16}$/.test(old.slice(name.length + 1)))
      await rm(join(cache, old), { force: true });
  }
  const written = `${kept}.${process.pid}.tmp`;
  await copyFile(outFile, written);
  await rename(written, kept);
}

/** The agent, built as a file of this directory. Errors: those of `buildProgram()`. */
export async function builtAgent(directory: string, buildRoot: string): Promise<void> {
  await builtProgram({
    repo: join(import.meta.dirname, '..'),
    buildRoot,
    outFile: join(directory, 'agent'),
    entry: 'src/agent/main.ts',
    calls: 'guest',
    signal: AbortSignal.timeout(120_000),
  });
}
