import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isThere } from '#host/files.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);
const image = 'localhost/podvm/base:latest';
/**
 * Longer than it takes to detect a hung machine, and longer than former timeouts of calls to agent and QEMU, in `ms`.
 */
const busyMs = 32_000;

const vmmOf = ({ status }: Sandbox) => status.vmmPid ?? assert.fail('no VMM');

test(
  'a container is made for as long as its caller waits, on a host that gives its machine no time',
  { skip },
  async () => {
    await using undo = new AsyncDisposableStack();
    const node = undo.use(await openNode());
    const [fresh, used] = await Promise.all(
      ['fresh', 'used'].map((name) => node.sandboxes.run({ ...sandboxSpec, name }, soon())),
    );
    assert.ok(fresh && used);
    const make = (sandbox: Sandbox, name: string, signal: AbortSignal) =>
      sandbox.createContainer({ ...containerSpec, name, image, command: ['true'] }, signal);
    await make(used, 'first', soon()); // so that the next needs the agent alone; that of the other needs QEMU first
    const starved = await Promise.all([fresh, used].map((sandbox) => starve(vmmOf(sandbox))));
    const feedAll = async () => void (await Promise.all(starved.map((feed) => feed())));
    undo.defer(feedAll); // also when the test fails: a starved machine takes minutes to end
    const startedMs = performance.now();
    const impatient = assert.rejects(make(used, 'impatient', AbortSignal.timeout(2000)), { kind: 'timeout' });
    const making = [make(fresh, 'late', soon()), make(used, 'late', soon())];
    await Promise.all([delay(busyMs), impatient]);
    await feedAll();
    for (const container of await Promise.all(making)) {
      await container.start(soon());
      assert.equal((await container.exited).exitCode, 0);
    }
    assert.ok(performance.now() - startedMs > busyMs);
    await undo.disposeAsync();
    assert.deepEqual(await node.leftovers(), []);
  },
);

/**
 * Times after the call at which machines are stopped, in `ms`. The agent takes about a second for so many variables, so that at
 * least one of them is in the middle of it.
 */
const momentsMs = [300, 600, 900, 1200];
const env = Array.from({ length: 4000 }, (_, at) => ({ name: `VARIABLE_${at}`, value: `value ${at}` }));
/** Longer than a call of the agent may ever have taken, in `ms`. */
const stoppedMs = 11_000;

test('a container is made though its machine was stopped in the middle of that', { skip }, async () => {
  await using node = await openNode();
  await Promise.all(
    momentsMs.map(async (ms) => {
      const sandbox = await node.sandboxes.run({ ...sandboxSpec, name: `at-${ms}` }, soon());
      const spec = { ...containerSpec, name: 'stopped', image, command: ['true'], env };
      const making = sandbox.createContainer(spec, soon());
      making.catch(() => undefined); // awaited below
      await delay(ms);
      process.kill(vmmOf(sandbox), 'SIGSTOP');
      await delay(stoppedMs);
      process.kill(vmmOf(sandbox), 'SIGCONT');
      await making;
      await sandbox.remove();
    }),
  );
  assert.deepEqual(await node.leftovers(), []);
});

/** Limits a VMM to a hundredth of a processor until the result is called. */
async function starve(pid: number): Promise<() => Promise<void>> {
  const [, path = assert.fail('no cgroup')] =
    /^\d+:(?:cpu|cpu,cpuacct)?:(\/podvm.*)$/m.exec(await readFile(`/proc/${pid}/cgroup`, 'utf8')) ?? [];
  const [two, one] = [`/sys/fs/cgroup${path}/cpu.max`, `/sys/fs/cgroup/cpu${path}/cpu.cfs_quota_us`];
  const file = (await isThere(two)) ? two : one;
  const before = await readFile(file, 'utf8');
  await writeFile(file, file === two ? '1000 100000' : '1000');
  return () => writeFile(file, before);
}
