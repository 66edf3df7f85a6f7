import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { it } from 'node:test';
import { run } from '#host/process/run.ts';
import { inOneProcess, repo } from './unit-tests.ts';

const bodies = {
  passes: '',
  'fails once': `import { existsSync, writeFileSync } from 'node:fs';
    const before = new URL('before', import.meta.url);
    if (!existsSync(before)) { writeFileSync(before, ''); throw new Error('lost a race'); }`,
  fails: "throw new Error('wrong')",
  'ends its process': 'process.exit(1)',
  'changes its process': "process.env.CHANGED = 'yes'",
  'has the umask of the program': `if (process.umask() !== 0o022) throw new Error('another umask')`,
  'fails in common': '',
  'fails once in common': '',
};

/** Tests of another file, as those of a contract that several files have in common. */
const common = `import { existsSync, writeFileSync } from 'node:fs';
  import { describe, test } from 'node:test';
  const before = new URL('common-before', import.meta.url);
  export const contract = (isLasting) => describe('contract', () => test('holds', () => {
    if (!isLasting && existsSync(before)) return;
    writeFileSync(before, '');
    throw new Error('broken');
  }));`;

/** Runs these files as `npm run test:vm` does. Returns its exit code and its last line. */
async function outcome(...names: (keyof typeof bodies)[]): Promise<[code: number, last: string]> {
  return await outcomeOf(['--test-isolation=none'], names);
}

/** The same, with these arguments of Node. */
async function outcomeOf(
  nodeArgs: readonly string[],
  names: readonly (keyof typeof bodies)[],
): Promise<[code: number, last: string]> {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-twice-'));
  try {
    await writeFile(join(directory, 'common.mjs'), common);
    for (const [at, name] of names.entries()) {
      const [imports = '', body = ''] = bodies[name].startsWith('import') ? split(bodies[name]) : ['', bodies[name]];
      const text = name.endsWith(' in common')
        ? `import { contract } from './common.mjs';\ncontract(${name === 'fails in common'});\n`
        : `import { test } from 'node:test';\n${imports}\ntest('${name}', () => { ${body} });\n`;
      await writeFile(join(directory, `${at}.test.mjs`), text);
    }
    const limits = `{ env: process.env, limit: '1m', testTimeoutMs: 50_000, isQuiet: true }`;
    const script = `
      import { runAgain, runTests } from ${JSON.stringify(join(repo, 'tools/run-tests.ts'))};
      const first = await runTests({ ...${limits}, args: [...${JSON.stringify(nodeArgs)}, ...process.argv.slice(1)], reporter: 'dot' });
      process.exitCode = first.passed || (await runAgain(first.failed, ${limits}, () => ${JSON.stringify(nodeArgs)})) ? 0 : 1;`;
    const files = names.map((_, at) => join(directory, `${at}.test.mjs`));
    const { NODE_TEST_CONTEXT: _, ...outside } = process.env; // a runner inside of a test would run nothing
    const env = outside as Record<string, string>; // SAFE: Node's own environment has texts only
    const args = ['--input-type=module-typescript', '-e', script, ...files];
    const { code, stdout } = await run(process.execPath, args, { cwd: repo, env, okCodes: 'any', timeoutMs: 100_000 });
    const last = stdout.trimEnd().split('\n').at(-1) ?? '';
    return [code ?? -1, last.replace(relative(repo, directory), 'DIR')];
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Separates a body's import from the rest. */
const split = (body: string) => [body.slice(0, body.indexOf('\n')), body.slice(body.indexOf('\n'))];

it('passes, with the name of the file, where a failed file passes alone', async () => {
  const [code, last] = await outcome('passes', 'fails once');
  assert.deepEqual([code, last], [0, 'flaky: DIR/1.test.mjs failed beside others and passed alone']);
});

it('fails where a file fails again, where too many fail, and where a process ended before all were tried', async () => {
  assert.equal((await outcome('fails', 'fails once'))[0], 1);
  assert.equal((await outcome('fails once', 'fails', 'fails', 'fails'))[0], 1);
  assert.equal((await outcome('ends its process', 'passes'))[0], 1);
});

it('fails where a test that files have in common fails again, and names the file that runs it', async () => {
  for (const args of [['--test-isolation=none'], ['--test-isolation=process']])
    assert.equal((await outcomeOf(args, ['passes', 'fails in common']))[0], 1, args.join());
  const [code, last] = await outcomeOf(['--test-isolation=process'], ['passes', 'fails once in common']);
  assert.deepEqual([code, last], [0, 'flaky: DIR/1.test.mjs failed beside others and passed alone']);
});

it('fails where a test changes the process that it shares, which only the arguments of the first run tell', async () => {
  assert.equal((await outcomeOf(inOneProcess, ['passes', 'changes its process']))[0], 1);
});

it('gives tests the umask of the program, whatever the user has', async () => {
  const before = process.umask(0o077);
  try {
    assert.equal((await outcome('has the umask of the program'))[0], 0);
  } finally {
    process.umask(before);
  }
});
