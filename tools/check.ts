import { delimiter, join } from 'node:path';
import { run } from '#host/process/run.ts';
import { flakyMark } from './run-tests.ts';

/** One part of `npm run check`: a program of `node_modules/.bin` that exits with 0 if all is well. */
export interface Gate {
  readonly name: string;
  readonly command: readonly [program: string, ...args: string[]];
}

const gates: readonly Gate[] = [
  { name: 'unit tests', command: ['node', 'tools/unit-tests.ts', '--brief'] },
  // Several checkers would each check what they have in common, which takes nearly twice the processor time.
  { name: 'types', command: ['tsc', '-p', 'tsconfig.json', '--checkers', '1'] },
  { name: 'types of the guest', command: ['tsc', '-p', 'tsconfig.neutral.json'] },
  { name: 'types of its tests', command: ['tsc', '-p', 'tsconfig.agent-tests.json'] },
  { name: 'types of the pages', command: ['tsc', '-p', 'tsconfig.dashboard.json'] },
  { name: 'lint', command: ['oxlint', '--quiet'] },
  { name: 'dead code', command: ['knip', '--exclude', 'binaries', '--no-config-hints'] },
  { name: 'words', command: ['node', 'tools/check-words.ts'] },
  { name: 'format', command: ['oxfmt', '--check', '.'] },
];

const repo = join(import.meta.dirname, '..');
const timeoutMs = 20 * 60_000;

/**
 * Runs all gates side by side and reports each when it ends: its time, its flaky tests, and its output if it failed.
 * Returns the names of those that failed.
 */
export async function check(
  all: readonly Gate[],
  report: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly string[]> {
  const start = performance.now();
  const width = Math.max(...all.map(({ name }) => name.length));
  const outcomes = await Promise.all(
    all.map(async (gate) => {
      const { passed, output } = await pass(gate, signal);
      report(`${passed ? 'ok    ' : 'FAILED'} ${gate.name.padEnd(width)} ${since(start)}`);
      for (const line of output.split('\n')) if (passed && line.startsWith(flakyMark)) report(line);
      if (!passed) report(output.trimEnd().replaceAll(/^/gm, '    '));
      return passed;
    }),
  );
  const failed = all.filter((_, at) => outcomes[at] === false).map(({ name }) => name);
  const verdict = failed.length === 0 ? 'all passed' : `failed: ${failed.join(', ')}`;
  report(`${all.length} gates in ${since(start).trimStart()}; ${verdict}`);
  return failed;
}

async function pass({ command }: Gate, signal: AbortSignal): Promise<{ passed: boolean; output: string }> {
  const [program, ...args] = command;
  const path = [join(repo, 'node_modules/.bin'), process.env['PATH'] ?? '/usr/bin:/bin'].join(delimiter);
  const env = { ...(process.env as Record<string, string>), PATH: path }; // SAFE: Node's own environment has texts only
  try {
    const { code, stdout, stderr } = await run(program, args, { cwd: repo, env, okCodes: 'any', timeoutMs, signal });
    return { passed: code === 0, output: `${stdout}${stderr}` || `exit code ${code}` };
  } catch (error) {
    return { passed: false, output: String(error) }; // not installed, or took too long
  }
}

const since = (start: number): string => `${((performance.now() - start) / 1000).toFixed(1).padStart(6)} s`;

if (import.meta.main) {
  const interruption = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => interruption.abort());
  const failed = await check(gates, (line) => process.stdout.write(`${line}\n`), interruption.signal);
  process.exitCode = failed.length === 0 ? 0 : 1;
}
