import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { PodvmError } from '#base/errors.ts';
import { isDeaf, startChild } from './start-child.ts';

const here = (file: string) => JSON.stringify(join(import.meta.dirname, file));

test('startChild() reads all output, and the end, of a program that ends at once', async () => {
  for (let round = 0; round < 50; round += 1) {
    const child = await startChild('echo', ['hi'], { stdio: ['ignore', 'pipe', 'ignore'] });
    const text = child.stdout?.setEncoding('utf8').toArray();
    assert.deepEqual(await once(child, 'exit'), [0, null]);
    assert.deepEqual(await text, ['hi\n']);
  }
});

test('startChild() reports a missing program, with a fix', async () => {
  await assert.rejects(startChild('no-such-program', [], {}), (error) => {
    assert.ok(error instanceof PodvmError && error.kind === 'failedPrecondition');
    assert.equal(error.message, 'Cannot run no-such-program: no such program');
    assert.match(error.fix ?? '', /podvm setup/);
    return true;
  });
  await assert.rejects(startChild('/', [], { failing: 'Cannot look' }), {
    kind: 'internal',
    message: /^Cannot look: /,
  });
});

test('isDeaf() is true for a reset, a closed and an abandoned pipe, and for no other error', async () => {
  for (const code of ['EPIPE', 'ECONNRESET', 'ECANCELED', 'ERR_STREAM_PREMATURE_CLOSE'])
    assert.equal(isDeaf(Object.assign(new Error(code), { code })), true, code);
  for (const error of [new Error('EPIPE'), Object.assign(new Error(), { code: 'ENOSPC' })])
    assert.equal(isDeaf(error), false);
});

/** Runs a module under a limit, with functions that take all descriptors and give some back. */
async function underLimit(limit: string, script: string): Promise<string> {
  const whole = `
    import { closeSync, openSync, readdirSync } from 'node:fs';
    import { readFile } from 'node:fs/promises';
    import { kindOf } from ${here('../../base/errors.ts')};
    import { run } from ${here('run.ts')};
    import { spawnJailed } from ${here('../jail/jailed-process.ts')};
    const taken = [];
    const takeAll = () => { try { for (;;) taken.push(openSync('/dev/null')); } catch {} };
    const giveBack = (count) => { for (const fd of taken.splice(-Math.min(count, taken.length))) closeSync(fd); };
    const said = (promise) => promise.then(() => 'done', (error) => kindOf(error) + ': ' + error.message);
    ${script}`;
  const args = ['-c', `${limit} && exec "$@"`, 'sh', process.execPath, '--input-type=module-typescript', '-e', whole];
  const { stdout } = await promisify(execFile)('bash', args, { timeout: 60_000 });
  return stdout;
}

test('a full descriptor table fails one call at any point, and the process continues', async () => {
  const stdout = await underLimit(
    'ulimit -n 80',
    `await run('true', []); // loads what is loaded once
    await said(spawnJailed({ what: 'it', command: ['/bin/false'], output: '/dev/null' }));
    const before = readdirSync('/proc/self/fd').length;
    takeAll();
    const outcomes = new Set();
    for (let left = 0; left < 24; left += 1) {
      outcomes.add(await said(run('true', [], { inherited: [Buffer.from('x')] })));
      outcomes.add((await said(spawnJailed({ what: 'it', command: ['/bin/false'], output: '/dev/null' }))).slice(0, 90));
      giveBack(1);
    }
    giveBack(Infinity);
    outcomes.add(readdirSync('/proc/self/fd').length - before + ' left open');
    console.log([...outcomes].sort().join('\\n'));`,
  );
  assert.deepEqual(stdout.trim().split('\n'), [
    '0 left open',
    'done',
    'exhausted: Cannot run true: podvm is short of file descriptors',
    'exhausted: Cannot start it: cannot run /bin/false: podvm is short of file descriptors',
    "exhausted: EMFILE: too many open files, open '/dev/null'",
    'internal: Cannot start it: its jail could not be built',
  ]);
});

test('a node’s limit on processes fails one call, and the process continues', async () => {
  // Runs as a user without capabilities, because the limit does not apply to root.
  const stdout = await underLimit(
    'true',
    `import { spawnSync } from 'node:child_process';
    await run('true', []);
    await readFile('/dev/null'); // starts libuv's threads, without which there is no process at all
    spawnSync('prlimit', ['--pid', String(process.pid), '--nproc=1:1']);
    process.setgroups([]);
    process.setgid(1999998);
    process.setuid(1999998);
    console.log(await said(run('true', [])));
    console.log(await said(spawnJailed({ what: 'it', command: ['/bin/false'], output: '/dev/null' })));`,
  );
  assert.deepEqual(stdout.trim().split('\n'), [
    'exhausted: Cannot run true: the node allows podvm no more processes',
    'exhausted: Cannot start it: cannot run /bin/false: the node allows podvm no more processes',
  ]);
});
