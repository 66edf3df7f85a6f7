import assert from 'node:assert/strict';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { describeSandboxes } from '#sandbox/testing/sandbox.conformance.ts';
import { openNode, whyNoVm } from './node.ts';

const soon = () => AbortSignal.timeout(60_000);

describeSandboxes(
  'machine',
  async () => {
    const node = await openNode();
    return {
      sandboxes: node.sandboxes,
      sandboxSpec,
      containerSpec: {
        ...containerSpec,
        image: 'localhost/podvm/base:latest',
        command: ['sh', '-c', 'until test -e /exit; do sleep 0.1; done; exit $(cat /exit)'],
      },
      async exit(container, exitCode) {
        const command = ['sh', '-c', `echo ${exitCode} > /new; mv /new /exit`];
        await container.exec({ command, tty: false, stdin: false }, soon());
      },
      crash: async ({ status: { vmmPid } }) => void process.kill(vmmPid ?? assert.fail('no VMM'), 'SIGKILL'),
      async [Symbol.asyncDispose]() {
        await node[Symbol.asyncDispose]();
        assert.deepEqual(await node.leftovers(), []);
      },
    };
  },
  await whyNoVm(),
);
