import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isThere } from '#host/file/files.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);
const image = 'localhost/podvm/base:latest';
/** Longer than the detection of a hung machine takes, and than former timeouts of calls to agent and QEMU, in `ms`. */
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
