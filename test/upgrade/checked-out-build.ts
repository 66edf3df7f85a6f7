import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '#host/process/run.ts';
import { repo } from '../vm/cli-node.ts';

/** The build of a commit of this repository. Disposing removes it. */
export interface CheckedOutBuild extends AsyncDisposable {
  /** Path of its `podvm`, which installs the packages of its own lock file when it first runs. */
  readonly program: string;
  /** Whether its pods of `podvm run`, too, outlive their node. */
  readonly keepsOwnPods: boolean;
}

/** Errors: the pods of the commit's build end with their daemon. */
export async function checkOutBuild(commit: string): Promise<CheckedOutBuild> {
  const directory = await mkdtemp('/var/tmp/podvm-build-');
  const remove = () => rm(directory, { recursive: true });
  try {
    const unpack =
      'git -C "$1" archive --output="$2/build.tar" "$3" && tar -xf "$2/build.tar" -C "$2" && rm "$2/build.tar"';
    await run('sh', ['-ec', unpack, 'sh', repo, directory, commit], { timeoutMs: 120_000 });
    const kept = join(directory, 'src/sandbox/recovery/spec-record.ts');
    const text = await readFile(kept, 'utf8').catch((cause: unknown) => {
      throw new Error(`the pods of the build of ${commit} end with its daemon`, { cause });
    });
    return {
      program: join(directory, 'podvm'),
      keepsOwnPods: text.includes("'podvm'"),
      [Symbol.asyncDispose]: remove,
    };
  } catch (error) {
    await remove();
    throw error;
  }
}
