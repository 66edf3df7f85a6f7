import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
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
