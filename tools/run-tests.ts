import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { text } from 'node:stream/consumers';
import { endMark } from './failed-files.ts';

const repo = join(import.meta.dirname, '..');

/** Most files that run a second time; more failures than that are no accident. */
export const mostSecondRuns = 3;

/** Files that run tests by themselves. Of a failed test that several have in common, only its own file may be known. */
const testFile = /\.test\.m?[jt]s$/;

/** Start of the line that names a file with a flaky test. `npm run check` shows these lines also when all is well. */
export const flakyMark = 'flaky: ';

export interface TestRun {
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Time for all files, e.g. `15m`. */
  readonly limit: string;
  readonly testTimeoutMs: number;
  readonly reporter: 'spec' | 'dot';
  /** Shows the output only if a test fails. */
  readonly isQuiet?: boolean;
}

/**
 * Runs Node's test runner. Returns whether all passed, and the files of tests that failed; no file if the runner was
 * ended before it had tried all, and not `passed` if it found no test.
 */
export async function runTests(run: TestRun): Promise<{ passed: boolean; failed: readonly string[] }> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-tests-'));
  const report = join(directory, 'failed');
  try {
    const to = (reporter: string, destination: string) => [
      `--test-reporter=${reporter}`,
      `--test-reporter-destination=${destination}`,
    ];
    const node = [process.execPath, '--test', `--test-timeout=${run.testTimeoutMs}`];
    const reporters = [...to(run.reporter, 'stdout'), ...to(join(import.meta.dirname, 'failed-files.ts'), report)];
    const before = process.umask(0o022); // the program sets its own, too: the modes of files do not depend on the user's
    const child = spawn('timeout', ['--foreground', '--kill-after=60', run.limit, ...node, ...reporters, ...run.args], {
      cwd: repo,
      env: run.env,
      stdio: ['inherit', run.isQuiet === true ? 'pipe' : 'inherit', 'inherit'],
    });
    process.umask(before);
    const [printed, [code]] = await Promise.all([
      child.stdout === null ? '' : text(child.stdout),
      once(child, 'exit') as Promise<[number | null]>, // SAFE: the event of a child process
    ]);
    if (code !== 0) process.stdout.write(printed);
    const lines = existsSync(report) ? (await readFile(report, 'utf8')).split('\n').filter(Boolean) : [];
    const isWhole = lines.pop() === endMark;
    return { passed: code === 0 && isWhole, failed: isWhole ? lines.map((file) => relative(repo, file)) : [] };
  } finally {
    await rm(directory, { recursive: true });
  }
}

/**
 * Runs files that failed beside others a second time, one after another. A file that passes then has a flaky test, which
 * is a bug to find: it is named, and does not stop a release. `argsOf` gives further arguments for a file, those of its first
 * run: a test that fails by them always fails. Returns whether all passed.
 */
export async function runAgain(
  failed: readonly string[],
  alone: Omit<TestRun, 'args' | 'reporter'>,
  argsOf: (file: string) => readonly string[] = () => [],
): Promise<boolean> {
  if (failed.length === 0 || failed.length > mostSecondRuns) return false;
  if (!failed.every((file) => testFile.test(file))) return false; // would run no test, and pass
  const flaky: string[] = [];
  for (const file of failed) {
    process.stdout.write(`\nrunning ${file} again, alone\n`);
    if ((await runTests({ ...alone, args: [...argsOf(file), join(repo, file)], reporter: 'spec' })).passed)
      flaky.push(file);
  }
  for (const file of flaky) process.stdout.write(`${flakyMark}${file} failed beside others and passed alone\n`);
  return flaky.length === failed.length;
}
