import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { repo } from './cli-node.ts';

/** Another build of the program. Disposing removes it. */
export interface AnotherBuild extends AsyncDisposable {
  /** Path of its `podvm`. */
  readonly program: string;
}

/** A change of a source file: `from` becomes `to`. */
type Change = readonly [file: string, from: string, to: string];

/** Another agent, and other arguments of VMMs, and so other templates. */
const otherParts: readonly Change[] = [
  ['src/agent/main.ts', 'engine.print(`ready: ', 'engine.print(`another build is ready: '],
  ['src/vm/qemu/command-line.ts', 'translatedCodeMiB = 96', 'translatedCodeMiB = 80'],
];

/** A protocol that no agent of the checkout speaks. */
export const otherProtocol: readonly Change[] = [
  ['src/wire/messages.ts', 'protocolVersions = [2, 1]', 'protocolVersions = [3]'],
];

/** Files of the checkout without which a program does not run. */
const ofProgram = ['src', 'podvm', 'package.json', 'package-lock.json'];

/** Makes the same program with these changes, in a directory with `more` of the checkout's files. */
export async function makeAnotherBuild(changes = otherParts, more: readonly string[] = []): Promise<AnotherBuild> {
  const directory = await mkdtemp('/var/tmp/podvm-build-');
  const sources = [...ofProgram, ...more];
  await run('cp', ['-a', ...sources.map((name) => join(repo, name)), directory], { timeoutMs: 120_000 });
  const packages = join(directory, 'node_modules');
  await mkdir(packages);
  await run('mount', ['--bind', '-o', 'ro', join(repo, 'node_modules'), packages]); // 400 MB
  for (const [file, from, to] of changes) {
    const text = await readFile(join(directory, file), 'utf8');
    assert.ok(text.includes(from), `${file} has no ${from}`);
    await writeFile(join(directory, file), text.replace(from, to));
  }
  return {
    program: join(directory, 'podvm'),
    async [Symbol.asyncDispose]() {
      await run('umount', [packages]);
      await rm(directory, { recursive: true });
    },
  };
}
