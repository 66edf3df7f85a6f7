import assert from 'node:assert/strict';
import type { Link } from '#link/link.ts';
import { describeContainers } from '#link/testing/containers.conformance.ts';
import { sandboxSpec } from '#sandbox/testing/examples.ts';
import { openNode, whyNoVm } from './node.ts';

const soon = () => AbortSignal.timeout(60_000);

describeContainers(
  'real',
  async () => {
    const links: Link[] = [];
    const node = await openNode({
      around: (parts) => ({
        ...parts,
        async connectLink(...request) {
          const link = await parts.connectLink(...request);
          links.push(link);
          return link;
        },
      }),
    });
    const images = ['localhost/podvm/base:latest'];
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'agent', images }, soon());
    return {
      link: links.at(-1) ?? assert.fail('no link'),
      imageDisk: 'image-0', // plugged with the sandbox
      async [Symbol.asyncDispose]() {
        await sandbox.remove();
        await node[Symbol.asyncDispose]();
        assert.deepEqual(await node.leftovers(), []);
      },
    };
  },
  await whyNoVm(),
);
