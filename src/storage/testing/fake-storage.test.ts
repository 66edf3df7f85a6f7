import { duplexPair } from 'node:stream';
import { createFakeStorage } from './fake-storage.ts';
import { describeClaims, describeDisks, describeFileServers } from './storage.conformance.ts';

const storage = createFakeStorage();
const nothing = { [Symbol.asyncDispose]: () => Promise.resolve() };

describeDisks('fake', storage);
describeClaims('fake', async () => ({ claimBlock: storage.claimBlock, vmmPid: process.pid, ...nothing }));
describeFileServers('fake', async () => ({
  files: storage.files,
  connect: async () => {
    const [channel, client] = duplexPair();
    client.once('close', () => channel.destroy()); // as the two ends of a socket
    return { channel, client };
  },
  ...nothing,
}));
