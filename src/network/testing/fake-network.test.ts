import { createFakeNetwork, FakeHostNetwork } from './fake-network.ts';
import { describeNetwork } from './network.conformance.ts';

describeNetwork(
  'fake',
  async () => {
    const host = new FakeHostNetwork();
    let made = 0;
    return {
      open: () => createFakeNetwork(host),
      makeRequest: () => ({
        sandboxId: `fake-${(made += 1)}`,
        podName: 'pod',
        podNamespace: 'default',
        podUid: 'uid',
        mode: 'cni',
        hostPorts: [],
        tapOwnerUid: 1000,
      }),
      leftovers: async (sandboxId) => (host.attached.has(sandboxId) ? [`attachment ${sandboxId}`] : []),
      forwards: async (sandboxId) => host.forwards(sandboxId),
      holderOf: async ({ protocol, port }) => host.holderOf(protocol, port),
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  },
  { abortsAtMs: [0] },
);
