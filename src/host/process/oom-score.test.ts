import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { identify } from './process-identity.ts';
import { setOomScore } from './oom-score.ts';

const scoreOf = async (pid: number) => Number(await readFile(`/proc/${pid}/oom_score_adj`, 'latin1'));

test('setOomScore() sets the score of the process, and not of a parent that is not a jail', async () => {
  const child = spawn('sleep', ['100'], { stdio: 'ignore' });
  await once(child, 'spawn');
  const pid = child.pid ?? assert.fail('no pid');
  const { startTicks } = (await identify(pid)) ?? assert.fail('gone');
  const ours = await scoreOf(process.pid);
  try {
    await setOomScore({ pid, startTicks }, 900);
    assert.equal(await scoreOf(pid), 900);
    assert.equal(await scoreOf(process.pid), ours);
    await assert.rejects(setOomScore({ pid, startTicks }, 1001), { code: 'EINVAL' });
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  await setOomScore({ pid, startTicks }, 900);
});
