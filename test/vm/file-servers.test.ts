import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createFileServers } from '#storage/file-server.ts';
import { describeFileServers } from '#storage/testing/storage.conformance.ts';
import { readAssets, whyNoVm } from './node.ts';

describeFileServers(
  'real',
  async () => {
    const directory = await mkdtemp(join(tmpdir(), 'podvm-servers-'));
    const path = join(directory, 'socket');
    const listener = createServer().listen(path);
    await once(listener, 'listening');
    return {
      files: createFileServers((await readAssets()) ?? assert.fail('no assets')),
      async connect() {
        const connected = once(listener, 'connection') as Promise<[Socket]>;
        const channel = connect(path);
        const [client] = await connected;
        if (channel.connecting) await once(channel, 'connect');
        return { channel, client };
      },
      async [Symbol.asyncDispose]() {
        listener.close();
        await rm(directory, { recursive: true });
      },
    };
  },
  await whyNoVm(),
);
