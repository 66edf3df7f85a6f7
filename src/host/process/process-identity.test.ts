import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { identify, isRunning, signalIfHandled } from './process-identity.ts';
import { run } from './run.ts';

/** Runs the script in a process with 200 descriptors, and returns the JSON that it prints. */
async function withFewDescriptors(script: string): Promise<unknown> {
  const here = (file: string) => JSON.stringify(join(import.meta.dirname, file));
  const whole = `
    import { openSync } from 'node:fs';
    import { descriptors } from ${here('descriptors.ts')};
    import { identify, isRunning, killProcess, waitUntilGone } from ${here('process-identity.ts')};
    import { within } from ${here('../wait.ts')};
    const me = await identify(process.pid);
    const takeAll = () => { try { for (;;) openSync('/dev/null'); } catch {} };
    ${script}`;
  const node = [process.execPath, '--input-type=module', '--eval', whole];
  const { stdout } = await run('prlimit', ['--nofile=200:200', '--', ...node]);
  return JSON.parse(stdout);
}

test('a process that cannot be looked up for lack of descriptors is not considered ended', async () => {
  const told = await withFewDescriptors(`
    takeAll();
    const codeOf = (error) => error.code;
    const gone = waitUntilGone(me, new AbortController().signal).then(() => 'gone');
    console.log(JSON.stringify([
      await isRunning(me).catch(codeOf), await identify(process.pid).catch(codeOf), await killProcess(me).catch(codeOf),
      (await within(gone, { ms: 200 })) ?? 'waits',
    ]));
    process.exit();`);
  assert.deepEqual(told, ['EMFILE', 'EMFILE', 'EMFILE', 'waits']);
});

test('a process is looked up with the reserve when all other descriptors are used up', async () => {
  const told = await withFewDescriptors(`
    using _held = descriptors.hold(() => {});
    takeAll();
    console.log(JSON.stringify([await isRunning(me), await isRunning({ ...me, startTicks: '1' })]));`);
  assert.deepEqual(told, [true, false]);
});

test('signalIfHandled() signals a process that handles the signal, and leaves others alone', async () => {
  const handler = `process.on('SIGUSR2', () => { process.stdout.write('told'); process.exit(); });`;
  const script = (first: string) => `${first} process.stdout.write('ready'); setInterval(() => {}, 1000);`;
  for (const [first, end] of [
    [handler, 'told'],
    ['', 'lives'],
  ] as const) {
    const child = spawn(process.execPath, ['--eval', script(first)], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    const identity = (await identify(child.pid ?? 0)) ?? assert.fail('it is gone');
    await signalIfHandled({ ...identity, startTicks: '1' }, constants.signals.SIGUSR2);
    assert.ok(await isRunning(identity));
    await signalIfHandled(identity, constants.signals.SIGUSR2);
    if (end === 'told') assert.equal(String((await once(child.stdout, 'data'))[0]), end);
    else assert.ok(await isRunning(identity));
    child.kill('SIGKILL');
    await ended;
  }
});
