import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/run.ts';
import { repo } from './cli-node.ts';

/** Another build of the program. Disposing removes it. */
export interface AnotherBuild extends AsyncDisposable {
  /** Path of its `podvm`. */
  readonly program: string;
}

/** Makes the same program with another agent, other arguments of its VMMs, and so other templates. */
export async function makeAnotherBuild(): Promise<AnotherBuild> {
  const directory = await mkdtemp('/var/tmp/podvm-build-');
  const sources = ['src', 'podvm', 'package.json', 'package-lock.json'];
  await run('cp', ['-a', ...sources.map((name) => join(repo, name)), directory], { timeoutMs: 120_000 });
  const packages = join(directory, 'node_modules');
  await mkdir(packages);
  await run('mount', ['--bind', '-o', 'ro', join(repo, 'node_modules'), packages]); // 400 MB
  const change = async (file: string, from: string, to: string) => {
    const text = await readFile(join(directory, file), 'utf8');
    assert.ok(text.includes(from), `${file} has no ${from}`);
    await writeFile(join(directory, file), text.replace(from, to));
  };
  await change('src/agent/main.ts', 'engine.print(`ready: ', 'engine.print(`another build is ready: ');
  await change('src/vm/qemu/command-line.ts', 'translatedCodeMiB = 96', 'translatedCodeMiB = 80');
  return {
    program: join(directory, 'podvm'),
    async [Symbol.asyncDispose]() {
      await run('umount', [packages]);
      await rm(directory, { recursive: true });
    },
  };
}
