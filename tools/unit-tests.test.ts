import assert from 'node:assert/strict';
import { glob, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { run } from '#host/process/run.ts';
import { briefVariable } from '../test/property-runs.ts';
import { filesWithProperties, groupTests, inOneProcess, measuring, repo, testPatterns } from './unit-tests.ts';

test('groupTests() shares a process among the files of a layer, without those that need their own or measure it', async () => {
  const groups = await groupTests(testPatterns([]));
  assert.ok(groups.alone.includes('src/storage/watch-path.test.ts'), 'a file with a hook outside of suites');
  const wire = groups.shared.find((files) => files.includes('src/wire/figures.test.ts')) ?? [];
  assert.ok(wire.length > 1 && wire.every((file) => file.startsWith('src/wire/')), wire.join(' '));
  const all = [...groups.shared.flat(), ...groups.alone, ...Object.keys(measuring)];
  assert.deepEqual(all.sort(), (await Array.fromAsync(glob(testPatterns([]), { cwd: repo }))).sort());
});

test('each file of tests is run by a command', async () => {
  const known = new Set(await Array.fromAsync(glob(testPatterns([]), { cwd: repo })));
  const { scripts } = JSON.parse(await readFile(join(repo, 'package.json'), 'utf8')) as { scripts: object }; // SAFE: it is npm's
  const words = Object.values(scripts).join(' ').split(' ');
  const all = await Array.fromAsync(glob('{bench,deploy,examples,src,test,tools}/**/*.test.ts', { cwd: repo }));
  assert.deepEqual(
    all.filter((file) => !known.has(file) && !file.startsWith('test/vm/') && !words.includes(file)),
    [],
  );
});

test('properties get a quarter of their runs only when the variable of npm run check is set', async () => {
  const script = `import { propertyRuns } from './test/property-runs.ts'; process.stdout.write(String(propertyRuns(150)))`;
  const runs = async (value: string) => {
    const env = { ...process.env, [briefVariable]: value } as Record<string, string>; // SAFE: Node's own environment has texts only
    return (await run(process.execPath, ['--input-type=module', '-e', script], { cwd: repo, env })).stdout;
  };
  assert.equal(await runs('1'), '38');
  assert.equal(await runs(''), '150');
});

test('filesWithProperties() finds the files whose properties npm run check shortens', async () => {
  const found = await filesWithProperties();
  assert.ok(found.includes('src/cri/accepted-configs.test.ts'), found.join(' '));
  for (const file of ['src/wire/figures.test.ts', 'tools/unit-tests.test.ts']) assert.ok(!found.includes(file), file);
});

const changes = {
  'the environment variable PODVM_CHANGED': `process.env['PODVM_CHANGED'] = '1'`,
  'the working directory': `process.chdir('/')`,
  'the exit code': 'process.exitCode = 3',
  'the global setTimeout': 'globalThis.setTimeout = () => {}',
  'the global added': 'globalThis.added = 1',
  "listeners of the process's event SIGUSR2": `process.on('SIGUSR2', () => {})`,
};

test('a test that changes its process for the next one fails alone, with the name of its file', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-guard-'));
  try {
    const files: string[] = [];
    for (const [at, change] of [...Object.values(changes), ''].entries()) {
      const file = join(directory, `${at}.test.ts`);
      files.push(file);
      await writeFile(file, `import { test } from 'node:test';\ntest('number ${at}', () => { ${change} });\n`);
    }
    const args = ['--test', '--test-reporter=spec', ...inOneProcess, ...files];
    const { code, stdout } = await run(process.execPath, args, { okCodes: 'any', cwd: directory });
    assert.equal(code, 1);
    for (const [at, what] of Object.keys(changes).entries()) {
      assert.ok(stdout.includes(`changed its process for the next one: ${what}`), stdout);
      assert.match(stdout, new RegExp(`test at .*${at}\\.test\\.ts`));
    }
    assert.match(stdout, /✔ number 6/);
    assert.match(stdout, /fail 6\n/);
  } finally {
    await rm(directory, { recursive: true });
  }
});
