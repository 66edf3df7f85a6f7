import * as v from 'valibot';
import { run } from '#host/process/run.ts';
import { sweepFileServers } from '#storage/file-server.ts';
import type { CriNode } from '../vm/cri-node.ts';

/** A node and one pod of it, to which faults happen. */
export interface Target {
  readonly node: CriNode;
  readonly sandboxId: string;
  readonly containerId: string;
  /** Pid of the VMM. */
  readonly pid: number;
  /** Address of the pod. */
  readonly address: string;
}

/** A fault of a node. `happen` resolves when the fault has happened, not when the node has recovered. */
export interface Fault {
  readonly name: string;
  /** Whether the pod's containers go on, with their processes. */
  readonly isHarmless: boolean;
  readonly happen: (target: Target) => Promise<void>;
}

const replaceDaemon =
  (how: 'SIGKILL' | 'SIGTERM') =>
  async ({ node }: Target) => {
    await node.end(how);
    await node.start();
  };

export const faults: readonly Fault[] = [
  { name: 'the daemon is killed', isHarmless: true, happen: replaceDaemon('SIGKILL') },
  { name: 'the daemon is restarted', isHarmless: true, happen: replaceDaemon('SIGTERM') },
  {
    name: 'the bridge is deleted',
    isHarmless: true,
    happen: async ({ address }) => {
      const { stdout } = await run('ip', ['-json', 'route', 'get', address]);
      const [route] = v.parse(v.tuple([v.object({ dev: v.string() })]), JSON.parse(stdout));
      await run('ip', ['link', 'delete', route.dev]);
    },
  },
  {
    name: 'the machine is killed',
    isHarmless: false,
    happen: ({ pid }) => Promise.resolve(void process.kill(pid, 'SIGKILL')),
  },
  {
    name: 'the machine is stopped',
    isHarmless: false,
    happen: ({ pid }) => Promise.resolve(void process.kill(pid, 'SIGSTOP')),
  },
  {
    name: 'the file servers are killed',
    isHarmless: false,
    happen: async ({ sandboxId }) => void (await sweepFileServers(sandboxId)),
  },
  {
    name: 'the first process ends',
    isHarmless: false,
    happen: async ({ node, containerId }) => {
      await node.runtime.execSync({ containerId, cmd: ['kill', '1'], timeout: 60n }).catch(() => undefined);
    },
  },
  {
    name: 'commands run',
    isHarmless: true,
    happen: async ({ node, containerId }) => {
      const commands = Array.from({ length: 20 }, () =>
        node.runtime.execSync({ containerId, cmd: ['true'], timeout: 60n }),
      );
      await Promise.allSettled(commands);
    },
  },
];
