import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { serveFakeDelegate } from './fake-delegate.ts';
import { openFakeNode } from './fake-node.ts';
import { describeRuntime } from './runtime.conformance.ts';

describeRuntime('podvm', () => openFakeNode());

describeRuntime('the delegate in tests', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'podvm-delegate-'));
  const delegate = await serveFakeDelegate(join(directory, 'cri.sock'));
  return {
    socketPath: delegate.socketPath,
    async [Symbol.asyncDispose]() {
      await delegate[Symbol.asyncDispose]();
      await rm(directory, { recursive: true });
    },
  };
});
