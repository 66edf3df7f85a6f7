import { glob, readFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { briefVariable } from '../test/property-runs.ts';
import { layers } from './layers.ts';
import { runAgain, runTests } from './run-tests.ts';

/**
 * `npm run test:unit` runs every unit test; `npm run test:layer -- sandbox vm` those of the named layers only, without
 * the layers that these import. Both give each file a process of its own.
 *
 * `npm run check` runs them with `--brief`, which prints failures only. The files of a layer then share a process, which
 * loads the modules that they have in common once. `test-guard.ts` fails a test that changes that process. Two things are
 * left to `npm run test:measuring`, which runs one file after another: tests that measure their process, and three
 * quarters of the runs of each property of `propertyRuns()`. Up to three files that fail run again, alone: see
 * `run-tests.ts`.
 */
export const repo = join(import.meta.dirname, '..');

const everywhere = [
  'src/**/*.test.ts',
  'tools/**/*.test.ts',
  'bench/**/*.test.ts',
  'test/cluster/**/*.test.ts',
  'test/conformance/**/*.test.ts',
  'test/containerd/**/*.test.ts',
  'test/fuzz/**/*.test.ts',
];

/** Files that measure their process, with the measured quantity. They take a fifth of the time of all unit tests. */
export const measuring: Readonly<Record<string, string>> = {
  'src/admin/server.test.ts': 'how long its event loop is blocked',
  'src/cri/held-memory.test.ts': 'its memory',
  'src/host/deadline.test.ts': 'its memory',
  'src/pod/manifest/read-manifests.test.ts': 'its memory',
  'src/sandbox/held-memory.test.ts': 'its memory',
};

/** Files whose properties `npm run check` tries with fewer runs. */
export async function filesWithProperties(): Promise<readonly string[]> {
  const found: string[] = [];
  const beside = everywhere.filter((pattern) => !pattern.startsWith('tools/')); // its tests name the function in texts
  for await (const file of glob(beside, { cwd: repo })) {
    if (/\bpropertyRuns\(/.test(await readFile(join(repo, file), 'utf8'))) found.push(file);
  }
  return found.toSorted();
}

/** Returns glob patterns for the tests of these layers; of all tests if none is named. Errors: an unknown layer. */
export function testPatterns(names: readonly string[]): readonly string[] {
  const unknown = names.filter((name) => !(name in layers));
  if (unknown.length > 0)
    throw new Error(`Cannot run unit tests: no layer ${unknown.join(', ')}; layers: ${Object.keys(layers).join(', ')}`);
  return names.length === 0 ? everywhere : names.map((name) => `src/${name}/**/*.test.ts`);
}

/**
 * Groups of files that share a process, the largest first, and the files that have their own because they have hooks
 * outside of suites, which would be for every test of their process. Without those that measure.
 */
export async function groupTests(patterns: readonly string[]): Promise<{ shared: string[][]; alone: string[] }> {
  const byFolder = new Map<string, string[]>();
  const own: string[] = [];
  for await (const file of glob(patterns, { cwd: repo })) {
    if (file in measuring) continue;
    const [top = '', second = ''] = file.split('/');
    const folder = top === 'src' ? second : top;
    const hasHooks = /^(before|after)(Each)?\(/m.test(await readFile(join(repo, file), 'utf8'));
    if (hasHooks) own.push(file);
    else byFolder.set(folder, [...(byFolder.get(folder) ?? []), file]);
  }
  const shared = [...byFolder.values()].toSorted((one, other) => other.length - one.length);
  return { shared, alone: own };
}

/** Environment of the tests: compiled code is kept, which saves each process a third of its start. */
export const testEnv = (): NodeJS.ProcessEnv => ({
  NODE_COMPILE_CACHE: join(repo, 'node_modules/.cache/node'),
  ...process.env,
});

/** Node's own default leaves one of two cores idle, and many tests wait for processes or timers. */
const most = availableParallelism() + 1;
export const concurrency = `--test-concurrency=${most}`;

/** Arguments of Node for files that share a process. */
export const inOneProcess = ['--test-isolation=none', `--import=${join(import.meta.dirname, 'test-guard.ts')}`];

/** Node's own limits, with room for a busy machine. */
const limits = { limit: '15m', testTimeoutMs: 300_000 };

/**
 * Runs all that `groupTests()` finds, and shows the output of each process that fails. Files with a process of their own
 * mostly wait, for programs and timers, so they have a place of their own beside the groups. Returns whether all passed.
 */
async function runAll(): Promise<boolean> {
  const { shared, alone } = await groupTests(everywhere);
  const brief = { ...limits, env: { ...testEnv(), [briefVariable]: '1' }, isQuiet: true };
  let isLost = false;
  const failed: string[] = [];
  const work = async (left: (readonly string[])[]) => {
    for (let args = left.shift(); args !== undefined; args = left.shift()) {
      const outcome = await runTests({ ...brief, args, reporter: 'dot' });
      isLost ||= !outcome.passed && outcome.failed.length === 0; // a process that ended without a report
      failed.push(...outcome.failed);
    }
  };
  const argsOf = (file: string) => (alone.includes(file) ? ['--test-isolation=none'] : inOneProcess); // no second process for one file
  const groups = shared.map((files) => [...inOneProcess, ...files]);
  const files = alone.map((file) => [...argsOf(file), file]);
  await Promise.all([work(files), ...Array.from({ length: most }, () => work(groups))]);
  if (isLost) return false;
  return failed.length === 0 || (await runAgain(failed, { ...brief, isQuiet: false }, argsOf));
}

if (import.meta.main) {
  const words = process.argv.slice(2);
  const names = words.filter((word) => !word.startsWith('--'));
  if (words.includes('--layers') && names.length === 0) {
    process.stderr.write(`usage: npm run test:layer -- LAYER...; layers: ${Object.keys(layers).join(', ')}\n`);
    process.exit(2);
  }
  const full = { ...limits, env: testEnv(), reporter: 'spec' } as const;
  let passed: boolean;
  if (words.includes('--brief')) passed = await runAll();
  else if (words.includes('--measuring')) {
    const args = ['--test-concurrency=1', ...Object.keys(measuring), ...(await filesWithProperties())];
    const first = await runTests({ ...full, args });
    passed = first.passed || (await runAgain(first.failed, full));
  } else ({ passed } = await runTests({ ...full, args: [concurrency, ...testPatterns(names)] }));
  process.exitCode = passed ? 0 : 1;
}
