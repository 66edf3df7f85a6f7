import { runAgain, runTests } from './run-tests.ts';

/** `npm run test:vm`: all whole-VM tests, one file after another. */
const limits = { env: process.env, testTimeoutMs: 900_000 };
const files = ['--test-concurrency=1', 'test/vm/**/*.test.ts'];
const first = await runTests({ ...limits, args: files, limit: '90m', reporter: 'spec' });
const passed = first.passed || (await runAgain(first.failed, { ...limits, limit: '15m' }));
process.exitCode = passed ? 0 : 1;
