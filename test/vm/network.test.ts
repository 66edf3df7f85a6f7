import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { silentLog } from '#host/log.ts';
import { run } from '#host/run.ts';
import { removeDefaultNetwork } from '#network/default-network.ts';
import { createHostNetwork } from '#network/host-network.ts';
import { describeNetwork, type NetworkBench } from '#network/network.conformance.ts';
import { tracesOf } from '../leaks.ts';
import { whyNoVm } from './house.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);

async function openBench(): Promise<NetworkBench> {
  const directory = await mkdtemp('/var/tmp/podvm-network-');
  const stateDir = join(directory, 'network');
  const mark = directory.slice(-6).toLowerCase();
  let made = 0;
  return {
    open: () => createHostNetwork({ stateDir, mayOpenTunDevice: true, log: silentLog }),
    makeRequest: () => ({
      sandboxId: `n-${mark}-${(made += 1)}`,
      podName: 'pod',
      podNamespace: 'default',
      podUid: 'uid',
      mode: 'cni',
      hostPorts: [],
      tapOwnerUid: 64_999,
    }),
    leftovers: async (sandboxId) => [
      ...(await tracesOf({ ids: [sandboxId] })),
      ...(await filesNaming(sandboxId, stateDir)),
    ],
    async [Symbol.asyncDispose]() {
      await createHostNetwork({ stateDir, log: silentLog }).collect(new Set(), soon());
      await removeDefaultNetwork(stateDir, soon());
      await rm(directory, { recursive: true });
    },
  };
}

/** Records, and addresses that host-local keeps. */
async function filesNaming(id: string, directory: string): Promise<readonly string[]> {
  const { stdout } = await run('grep', ['-rl', id, directory], { okCodes: [0, 1, 2] }); // 2: no directory yet
  return stdout.split('\n').filter((path) => path !== '');
}

describeNetwork('host', openBench, { skip, abortsAtMs: [0, 10, 20, 30, 40, 60, 80, 100, 150, 220] });
