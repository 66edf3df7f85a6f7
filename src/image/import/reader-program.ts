import { createRequire } from 'node:module';
import { join } from 'node:path';
import { isRelease, programDirectory } from '#host/program-files.ts';
import { run } from '#host/process/run.ts';

let bundling: Promise<string> | undefined;

/**
 * The text of the program that reads images (`main.ts`), as one file. A checkout has it in some forty files, out of which
 * Node would take the types in each process again: that takes five times as much processor time as all else before it
 * reads its job. undefined: a release, whose files are such bundles. Errors: those of `run`.
 */
export async function bundledReader(): Promise<string | undefined> {
  if (isRelease) return undefined;
  bundling ??= bundle();
  try {
    return await bundling;
  } catch (error) {
    bundling = undefined; // the next image tries again
    throw error;
  }
}

/** Runs the bundler itself: its interface for Node leaves a process behind. */
async function bundle(): Promise<string> {
  const { resolve } = createRequire(createRequire(import.meta.url).resolve('esbuild'));
  const program = resolve(`@esbuild/${process.platform}-${process.arch}/bin/esbuild`);
  const entry = join(programDirectory, 'src/image/import/main.ts');
  const form = ['--bundle', '--format=esm', '--platform=node', '--target=node26', '--log-level=error'];
  return (await run(program, [entry, ...form], { cwd: programDirectory })).stdout;
}
