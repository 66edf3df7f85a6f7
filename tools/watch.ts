import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { concurrency, repo, testEnv, testPatterns } from './unit-tests.ts';

/**
 * `npm run watch`: checks types and runs unit tests again when a file changes, the tests only that import it.
 * `npm run watch -- sandbox` watches the tests of one layer.
 */
const projects = ['tsconfig.json', 'tsconfig.neutral.json', 'tsconfig.agent-tests.json'];
const commands = [
  ...projects.map((project) => [
    join(repo, 'node_modules/.bin/tsc'),
    '-p',
    project,
    '--watch',
    '--preserveWatchOutput',
  ]),
  [process.execPath, '--test', '--watch', concurrency, '--test-reporter=dot', ...testPatterns(process.argv.slice(2))],
];

const ending = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(name, () => ending.abort());
for (const [program = '', ...args] of commands) {
  const child = spawn(program, args, { cwd: repo, env: testEnv(), stdio: 'inherit', signal: ending.signal });
  child.once('error', () => ending.abort());
  child.once('exit', () => ending.abort());
}
