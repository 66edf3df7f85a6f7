import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';

const from = (path: string) => JSON.stringify(join(import.meta.dirname, path));

test('an unhandled rejection is logged; an uncaught exception is logged and ends the process', async () => {
  const script = `
    import { createLog } from ${from('../../host/log/log.ts')};
    import { outliveRejections } from ${from('outlive-rejections.ts')};
    outliveRejections(process, createLog('info', (line) => process.stdout.write(line)));
    void Promise.reject(new Error('of one pod'));
    setTimeout(() => {
      console.log('goes on');
      setTimeout(() => { throw new Error('of unknown reach'); });
    }, 10);
    setTimeout(() => console.log('never'), 60_000);`;
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [said, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
  const lines = said.trim().split('\n');
  assert.match(lines[0] ?? '', / error bug in podvm: unhandled rejection at="at .*" err="of one pod"$/);
  assert.equal(lines[1], 'goes on');
  assert.match(lines[2] ?? '', / error podvm ends because of a bug at="at .*" fix="Start .*" err="of unknown reach"$/);
  assert.equal(lines.length, 3);
  assert.match(stderr, /Error: of unknown reach/);
  assert.equal(code, 1);
});
