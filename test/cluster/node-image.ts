import { mkdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { run } from '#host/process/run.ts';
import { makeImage } from '../../tools/release/make-all.ts';
import { readRelease } from '../../tools/release/release.ts';
import { makeSecondState } from '../../tools/release/second-state.ts';
import { callersEnv } from '../conformance/callers-env.ts';
import { repo } from '../vm/cli-node.ts';
import { makeAnotherBuild } from '../vm/make-another-build.ts';

/** State directory with what `podvm setup` of the checkout made. */
export const setUpRoot = process.env['PODVM_ROOT'] ?? '/var/lib/podvm';

/** Makes the node image of the checkout in a directory, as that `version`; default: its own. Returns its OCI layout. */
export async function makeNodeImage(directory: string, version?: string): Promise<string> {
  await mkdir(directory);
  const release = await readRelease(repo, setUpRoot, new AbortController().signal);
  const { image } = await makeImage({ ...release, ...(version === undefined ? {} : { version }) }, directory);
  return join(directory, basename(image, '.tar'));
}

/** Files of a checkout that a release needs besides the program. */
const ofRelease = [
  '.git',
  'CHANGELOG.md',
  'LICENSE',
  'README.md',
  'docs',
  'examples',
  'tools',
  'tsconfig.dashboard.json',
  'tsconfig.json',
];

/** The same of another build, with another agent and other arguments of VMMs, as that `version`. */
export async function makeNextNodeImage(directory: string, version: string, signal: AbortSignal): Promise<string> {
  await using another = await makeAnotherBuild(undefined, ofRelease);
  const state = join(directory, 'state');
  await makeSecondState(setUpRoot, state, signal);
  const env = callersEnv({ PODVM_ROOT: state, PODVM_TEMPLATE: 'off' });
  await run(another.program, ['setup'], { env, timeoutMs: 30 * 60_000, signal });
  const release = await readRelease(dirname(another.program), state, signal);
  const { image } = await makeImage({ ...release, version }, directory);
  return join(directory, basename(image, '.tar'));
}
