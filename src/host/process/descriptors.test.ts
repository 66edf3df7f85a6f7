import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const module = JSON.stringify(join(import.meta.dirname, 'descriptors.ts'));

/** Runs a module with a limit of descriptors; `use` takes as many as it can, and `giveBack` closes some of those. */
async function withLimit(limit: number, script: string): Promise<readonly string[]> {
  const whole = `
    import { spawnSync } from 'node:child_process';
    import { closeSync, openSync } from 'node:fs';
    import { setTimeout as delay } from 'node:timers/promises';
    import { descriptors } from ${module};
    const taken = [];
    const use = () => { try { for (;;) taken.push(openSync('/dev/null')); } catch { return taken.length; } };
    const giveBack = (count) => { for (const fd of taken.splice(0, count)) closeSync(fd); };
    const say = (text) => console.log(String(text));
    ${script}`;
  const args = [
    '-c',
    `ulimit -n ${limit} && exec "$@"`,
    'sh',
    process.execPath,
    '--input-type=module-typescript',
    '-e',
  ];
  const { stdout } = await promisify(execFile)('bash', [...args, whole], { timeout: 60_000 });
  return stdout.trim().split('\n');
}

test('the reserve is released when all other descriptors are used, and taken again when there are enough', async () => {
  const said = await withLimit(
    300,
    `const held = descriptors.hold((isShort, counts) => say((isShort ? 'short' : 'enough') + ' of ' + counts?.limit));
    say(descriptors.hasRoomFor(100));
    say(descriptors.hasRoomFor(250));
    const first = use();
    say(descriptors.isShort);
    say(descriptors.makeRoom());
    say(descriptors.isShort);
    say(descriptors.hasRoomFor(1));
    say(use() - first);
    say(descriptors.makeRoom());
    giveBack(100);
    say(descriptors.hasRoomFor(1));
    giveBack(100);
    while (descriptors.isShort) await delay(20);
    say(descriptors.hasRoomFor(20));
    giveBack(Infinity);
    held[Symbol.dispose]();
    say(use() - first);`,
  );
  assert.deepEqual(said, [
    ...['true', 'false', 'false'], // room, no room, not short
    ...['short of 300', 'true', 'true', 'false'], // all of them taken
    ...['64', 'false', 'false'], // the reserve is used up as well, and 100 free descriptors are not enough
    ...['enough of 300', 'true', '64'],
  ]);
});

test('lowering the limit at run time reduces the reserve to the rest of the table', async () => {
  const said = await withLimit(
    4096,
    `const held = descriptors.hold((isShort) => say(isShort ? 'short' : 'enough'));
    say(descriptors.makeRoom());
    const lowest = openSync('/dev/null');
    spawnSync('prlimit', ['--pid', String(process.pid), '--nofile=' + lowest + ':4096']);
    try { openSync('/dev/null'); } catch (error) { say(error.code); }
    say(descriptors.hasRoomFor(1));
    say(descriptors.makeRoom());
    closeSync(openSync('/dev/null'));
    spawnSync('prlimit', ['--pid', String(process.pid), '--nofile=4096:4096']);
    say(descriptors.hasRoomFor(1));
    say(descriptors.isShort);`,
  );
  assert.deepEqual(said, ['true', 'EMFILE', 'short', 'false', 'true', 'enough', 'true', 'false']);
});
