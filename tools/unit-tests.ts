import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { layers } from './layers.ts';

/**
 * `npm run test:unit` runs every unit test; `npm run test:layer -- sandbox vm` those of the named layers only, without
 * the layers that these import. `npm run check` runs all of them with `--brief`, which prints failures only.
 */
export const repo = join(import.meta.dirname, '..');

const everywhere = [
  'src/**/*.test.ts',
  'tools/**/*.test.ts',
  'test/conformance/**/*.test.ts',
  'test/fuzz/**/*.test.ts',
];

/** Where the tests of these layers are; of everything, if none is named. Errors: a name that is no layer. */
export function testPatterns(names: readonly string[]): readonly string[] {
  const unknown = names.filter((name) => !(name in layers));
  if (unknown.length > 0)
    throw new Error(`Cannot run unit tests: no layer ${unknown.join(', ')}; layers: ${Object.keys(layers).join(', ')}`);
  return names.length === 0 ? everywhere : names.map((name) => `src/${name}/**/*.test.ts`);
}

/** Environment of the tests: compiled code is kept, which saves each of some 150 processes a third of its start. */
export const testEnv = (): NodeJS.ProcessEnv => ({
  NODE_COMPILE_CACHE: join(repo, 'node_modules/.cache/node'),
  ...process.env,
});

/** Node's own default leaves one of two cores idle, and many tests wait for processes or timers. */
export const concurrency = `--test-concurrency=${availableParallelism() + 1}`;

if (import.meta.main) {
  const words = process.argv.slice(2);
  const names = words.filter((word) => !word.startsWith('--'));
  if (words.includes('--layers') && names.length === 0) {
    process.stderr.write(`usage: npm run test:layer -- LAYER...; layers: ${Object.keys(layers).join(', ')}\n`);
    process.exit(2);
  }
  const args = [
    ...['--foreground', '--kill-after=10', '15m', process.execPath, '--test', '--test-timeout=120000', concurrency],
    ...(words.includes('--brief') ? ['--test-reporter=dot'] : []),
    ...testPatterns(names),
  ];
  const child = spawn('timeout', args, { cwd: repo, env: testEnv(), stdio: 'inherit' });
  const [code] = (await once(child, 'exit')) as [number | null]; // SAFE: the event of a child process
  process.exitCode = code ?? 1;
}
