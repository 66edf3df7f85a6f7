import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { poll, within } from '#host/wait.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import type { Parts } from '#sandbox/parts.ts';
import type { Machine } from '#vm/driver.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';
import { openNode, readAssets, templatesDirectory, whyNoVm, type Node } from './node.ts';

const minutes = () => AbortSignal.timeout(180_000);
const MiB = 1024 * 1024;
/** What a machine has translated when its container runs is more; what it needs while idle is less. */
const some = 16 * MiB;

/** Counts in a shell, which takes both processors of the machine some time, and prints the sums. */
const script = 'sum() { i=0; s=0; while [ $i -lt 1000 ]; do i=$((i+1)); s=$((s+i)); done; echo $s; }; sum & sum; wait';
const sums = '500500\n500500\n';

describe('memory of translated code', { skip: await whyNoVm(), timeout: 900_000 }, () => {
  let node: Node;
  let machines: Machine[];

  /** Keeps the machines that the driver makes. */
  const around = (parts: Parts): Parts => ({
    ...parts,
    driver: {
      ...parts.driver,
      async start(...request) {
        const machine = await parts.driver.start(...request);
        machines.push(machine);
        return machine;
      },
    },
  });
  before(async () => {
    machines = [];
    node = await openNode({ around });
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  const start = async (of: Node, name: string) => {
    const sandbox = await of.sandboxes.run({ ...sandboxSpec, name }, minutes());
    const spec = { ...containerSpec, image: 'localhost/podvm/base:latest', command: ['sleep', '100000'] };
    const container = await sandbox.createContainer(spec, minutes());
    await container.start(minutes());
    return { sandbox, container, machine: machines.at(-1) ?? assert.fail('no machine') };
  };
  const textOf = async (container: Container) => {
    const exec = await container.exec({ command: ['sh', '-c', script], tty: false, stdin: false }, minutes());
    exec.stderr?.resume();
    const chunks = (await Array.fromAsync(exec.stdout)) as Buffer[]; // SAFE: the link's streams carry bytes
    assert.equal((await exec.exited).exitCode, 0);
    return Buffer.concat(chunks).toString();
  };
  const bytesOf = async (sandbox: Sandbox) => (await sandbox.hostFigures(minutes())).translatedCode?.bytes ?? 0;
  const isDiscarded = async (sandbox: Sandbox) => {
    const isLess = async () => ((await bytesOf(sandbox)) < some ? true : undefined);
    return await poll(isLess, { everyMs: 100, signal: minutes() });
  };

  it('is given back when it is asked for, and the guest goes on with what it was doing', async () => {
    const { sandbox, container, machine } = await start(node, 'asked');
    assert.ok((await bytesOf(sandbox)) > some);
    for (let count = 0; count < 3; count += 1) {
      assert.equal(await textOf(container), sums);
      await machine.discardTranslations();
      assert.ok(await isDiscarded(sandbox), `still ${await bytesOf(sandbox)} bytes`);
    }
    const working = Promise.all([textOf(container), textOf(container), textOf(container)]);
    while ((await within(working, { ms: 100 })) === undefined) await machine.discardTranslations();
    assert.deepEqual(await working, [sums, sums, sums]);
    await sandbox.remove();
  });

  it('is given back by itself when a pod rests', async () => {
    const { sandbox, container } = await start(node, 'resting');
    assert.ok((await bytesOf(sandbox)) > some);
    assert.ok(await isDiscarded(sandbox), `still ${await bytesOf(sandbox)} bytes`);
    assert.equal(await textOf(container), sums);
    await sandbox.remove();
  });

  it('stays in a machine whose QEMU has no plugin, as those of an earlier podvm', async () => {
    const { plugin: _, ...assets } = (await readAssets()) ?? assert.fail('no assets');
    const driver = createQemuDriver({ assets, accelerator: 'tcg', templates: templatesDirectory });
    await using earlier = await openNode({ around: (parts) => around({ ...parts, driver }) });
    const { sandbox, container, machine } = await start(earlier, 'earlier');
    const bytes = await bytesOf(sandbox);
    await machine.discardTranslations();
    assert.equal(await textOf(container), sums);
    assert.ok((await bytesOf(sandbox)) >= bytes);
    await sandbox.remove();
  });
});
