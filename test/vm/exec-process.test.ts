import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Container, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type Node } from './node.ts';

const minute = () => AbortSignal.timeout(60_000);
const skip = await whyNoVm();

/**
 * Prints the kernel's properties of the container's first process and of the shell of a command in it. The shell reads
 * them by itself: while it starts a program, it blocks all signals.
 */
const script = `
of() {
  while read -r line; do
    case $line in Umask*|Uid*|Gid*|Groups*|SigBlk*|Cap*|NoNewPrivs*|Seccomp*) echo "$line";; esac
  done <$1/status
  cat $1/limits $1/cgroup $1/uid_map
  tr '\\0' '\\n' <$1/environ
  for each in cgroup ipc mnt net pid user uts; do readlink $1/ns/$each; done
  readlink $1/root; readlink $1/cwd
}
of /proc/1; echo ==; of /proc/$$`;

const cases: Readonly<Record<string, Partial<ContainerSpec>>> = {
  'as containers come': {},
  'as another user with groups, without new privileges': {
    workingDir: '/tmp',
    env: [{ name: 'SAID', value: 'a = b' }],
    security: {
      ...security,
      runAsUser: 1000,
      runAsGroup: 3000,
      supplementalGroups: [4000, 5000],
      allowPrivilegeEscalation: false,
    },
  },
  'with more capabilities and fewer': {
    security: { ...security, runAsUser: 1000, addCapabilities: ['SYS_TIME'], dropCapabilities: ['CHOWN'] },
  },
  'with capabilities that another user keeps': {
    security: { ...security, runAsUser: 1000, ambientCapabilities: ['NET_BIND_SERVICE'] },
  },
  'without a filter': { security: { ...security, seccomp: { kind: 'unconfined' } } },
  'with a filter of its own, which is logged': {
    security: {
      ...security,
      seccomp: {
        kind: 'localhost',
        profile: { defaultAction: 'SCMP_ACT_ALLOW', flags: ['SECCOMP_FILTER_FLAG_LOG'] },
      },
    },
  },
  privileged: { security: { ...security, privileged: true, seccomp: { kind: 'unconfined' } } },
};

let attempts = 0;

/** Makes a container that sleeps. */
async function withContainer(sandbox: Sandbox, more: Partial<ContainerSpec>, use: (container: Container) => unknown) {
  const image = 'localhost/podvm/base:latest';
  const spec = { ...containerSpec, image, name: `c${(attempts += 1)}`, command: ['sleep', '600'], ...more };
  const container = await sandbox.createContainer(spec, minute());
  await container.start(minute());
  await use(container);
  await container.stop(0, minute());
  await container.remove(minute());
}

async function execText(container: Container, ...command: readonly string[]): Promise<string> {
  const exec = await container.exec({ command, tty: false, stdin: false }, minute());
  const bytesOf = async (stream: AsyncIterable<unknown> | undefined) =>
    Buffer.concat((await Array.fromAsync(stream ?? [])) as Buffer[]).toString(); // SAFE: the link's streams carry bytes
  const [output, errors] = await Promise.all([bytesOf(exec.stdout), bytesOf(exec.stderr)]);
  assert.deepEqual([(await exec.exited).exitCode, errors], [0, '']);
  return output;
}

for (const hasUsers of [false, true]) {
  describe(
    `commands in containers of a pod ${hasUsers ? 'with' : 'without'} its own users`,
    { skip, timeout: 300_000 },
    () => {
      let node: Node;
      let sandbox: Sandbox;

      before(async () => {
        node = await openNode();
        const ids = { containerId: 0, hostId: 65_536, size: 65_536 };
        const users = hasUsers ? { userNamespace: { uids: [ids], gids: [ids] } } : {};
        sandbox = await node.sandboxes.run(
          { ...sandboxSpec, name: 'exec', hostname: 'exec', fsGroup: 2000, ...users },
          minute(),
        );
      });
      after(async () => {
        await node[Symbol.asyncDispose]();
        assert.deepEqual(await node.leftovers(), []);
      });

      for (const [name, spec] of Object.entries(cases)) {
        test(`a command is all that the container's first process is, ${name}`, async () => {
          await withContainer(sandbox, spec, async (container) => {
            const [first, command] = (await execText(container, 'sh', '-c', script)).split('==\n');
            assert.ok((first?.split('\n').length ?? 0) > 30, first ?? '');
            assert.deepEqual(command?.split('\n'), first?.split('\n'));
          });
        });
      }

      test('a command runs in a container that has as many processes as it may', async () => {
        await withContainer(sandbox, { resources: { pidsLimit: 1 } }, async (container) => {
          assert.equal(await execText(container, 'cat', '/proc/self/cgroup'), '0::/\n');
        });
      });

      if (hasUsers) return; // its root does not own the cgroup, nor the pipes

      test('a command runs in a container that has made cgroups of its own', async () => {
        await withContainer(sandbox, cases['privileged'] ?? {}, async (container) => {
          const divide =
            'cd /sys/fs/cgroup && mkdir inner && echo 1 >inner/cgroup.procs && echo $$ >inner/cgroup.procs && echo +pids >cgroup.subtree_control';
          await execText(container, 'sh', '-c', divide);
          assert.equal(await execText(container, 'cat', '/proc/self/cgroup'), '0::/inner\n');
        });
      });

      test('another user writes to the command’s own streams by their names', async () => {
        await withContainer(sandbox, { security: { ...security, runAsUser: 1000 } }, async (container) => {
          const said = await execText(container, 'sh', '-c', 'echo out >/dev/stdout');
          assert.equal(said, 'out\n');
        });
      });
    },
  );
}
