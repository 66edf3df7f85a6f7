import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Link } from '#link/link.ts';
import { rehearsedContainer } from '#sandbox/start/exercise.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { openNode, whyNoVm } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(120_000);

test('rehearsed containers leave nothing in the guest, and the pod makes its own meanwhile', { skip }, async () => {
  const links: Link[] = [];
  await using node = await openNode({
    around: (parts) => ({
      ...parts,
      async connectLink(...request) {
        const link = await parts.connectLink(...request);
        links.push(link);
        return link;
      },
    }),
  });
  const sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'rehearsal' }, soon());
  const link = links.at(-1) ?? assert.fail('no link');
  const rehearse = () => link.call('rehearse', rehearsedContainer(link.welcome), soon());
  const spec = { ...containerSpec, image: 'localhost/podvm/base:latest' };
  const [container] = await Promise.all([
    sandbox.createContainer({ ...spec, command: ['sh', '-c', 'exit 7'] }, soon()),
    rehearse(),
  ]);
  await container.start(soon());
  assert.equal((await container.exited).exitCode, 7);

  const { agentFds: before } = await link.call('stats', {}, soon());
  // crun refuses a container that exists, and the agent cannot remove a directory that is mounted.
  for (let count = 0; count < 2; count += 1) await rehearse();
  const { agentFds: after, containers, pod } = await link.call('stats', {}, soon());
  assert.equal(after, before);
  assert.deepEqual([containers.length, pod.pids], [1, 0]);
  await sandbox.remove();
});
