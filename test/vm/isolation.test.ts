import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Confinement, readConfinement, weaknesses } from '#host/jail/confinement.ts';
import { run } from '#host/process/run.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { type Node, openNode, whyNoVm } from './node.ts';

/** Our column of `docs/isolation.md`, checked against a running sandbox. */
const skip = await whyNoVm();
const image = 'localhost/podvm/base:latest';
const mebibyte = 1024 * 1024;
const minute = () => AbortSignal.timeout(60_000);

describe('docs/isolation.md', { skip, timeout: 120_000 }, () => {
  let node: Node;
  let pod: Sandbox;
  let jail: Confinement;

  before(async () => {
    node = await openNode();
    const resources = { memoryLimitBytes: 64 * mebibyte, cpuLimitMillis: 500 };
    pod = await node.sandboxes.run({ ...sandboxSpec, name: 'looked-at', resources }, minute());
    jail = await readConfinement(pod.status.vmmPid ?? 0);
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  test('describes the VMM as the host’s kernel does', async () => {
    const ours = await columnOf('## The process that a guest breaks out into');
    const cells = {
      'user and group': 'one of its own per pod, no other groups',
      capabilities: 'none',
      'new privileges': 'none',
      'system calls': `a list of what is allowed, before it starts; QEMU's list of what is denied, after: ${jail.seccompFilters} filters`,
      'namespaces of its own': jail.namespaces.join(', '),
      'root directory': 'read-only: QEMU, its libraries and plugin, one directory, the template',
      devices: 'its tap; /dev/kvm where there is one; its block volumes',
      'core dumps': 'off, to files and to programs',
      'memory beside others': 'not merged with equal pages, not swapped unless that is asked for',
      'memory on the host': "bounded: the pod's limit, 320 MiB more",
      'processor on the host': "bounded: the pod's limit, one core more",
      'threads on the host': `at most ${jail.cgroup.processes}`,
    };
    assert.deepEqual(Object.fromEntries(ours), cells);

    assert.ok(jail.uid > 0 && jail.gid === jail.uid && jail.groups.every((group) => group === jail.gid));
    assert.equal(jail.capabilities, '0');
    assert.equal(jail.noNewPrivileges, true);
    assert.equal(jail.limits.coreBytes, 1, 'which no core file has, and stops those that go to a program');
    const { memoryBytes, cpuMillis } = jail.cgroup;
    assert.deepEqual([memoryBytes, cpuMillis], [(64 + 320) * mebibyte, 500 + 1000]);
    assert.deepEqual(jail.devices.toSorted(), ['full', 'net/tun', 'null', 'random', 'tty', 'urandom', 'zero']);
    const hostMounts = jail.mounts.filter(
      ({ at, type }) => !at.startsWith('/dev/') && !['tmpfs', 'devpts'].includes(type),
    );
    assert.deepEqual(hostMounts.map(({ at }) => at).sort(), [
      ...['/machine', '/machine/devices'],
      '/plugin/discard-translations.so',
      '/template',
      '/usr',
    ]);
    for (const { at, readOnly, noSuid, noDevices } of hostMounts) {
      // Block volumes are plugged as device nodes that we put there; the VMM itself can make nothing in either.
      assert.deepEqual(
        [readOnly, noSuid, noDevices],
        [!at.startsWith('/machine'), true, at !== '/machine/devices'],
        at,
      );
    }
    assert.deepEqual(weaknesses(jail), []);
  });

  test('says that the guest’s memory is not merged, dumped or swapped, and what the kernel kills first', async () => {
    const pid = pod.status.vmmPid ?? 0;
    const areas = (await readFile(`/proc/${pid}/smaps`, 'latin1')).split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
    const flagsOf = (area: string) => /^VmFlags: (.*)$/m.exec(area)?.[1]?.trim().split(' ') ?? [];
    const guest = areas.find((area) => area.split('\n')[0]?.endsWith(' /template/memory') === true);
    assert.ok(guest, 'no area of the template');
    assert.ok(flagsOf(guest).includes('dd'), 'a core has it'); // proc_pid_smaps(5): do not include in a core dump
    assert.deepEqual(
      areas.filter((area) => flagsOf(area).includes('mg')).map((area) => area.split('\n')[0]),
      [],
    );
    // The /proc files of a process that its user cannot dump or trace belong to root (proc(5), PR_SET_DUMPABLE).
    assert.equal((await stat(`/proc/${pid}/environ`)).uid, 0);
    assert.equal(await swapOf(pod.id), '0');
    const scores = await Promise.all([pid, await parentOf(pid)].map((each) => scoreOf(each)));
    assert.deepEqual(scores, [1000, 1000], 'of the VMM and what waits for it, of a pod that asks for nothing');
  });

  test('a pod of a higher class is killed after others, with the programs that serve it', async () => {
    const resources = { oomScoreAdj: 300 }; // less than 0 is for hosts that allow it (machine.test.ts)
    const volume = await mkdtemp('/var/tmp/podvm-oom-');
    const burstable = await node.sandboxes.run({ ...sandboxSpec, name: 'burstable', resources }, minute());
    try {
      const mounts = [
        { mountPath: '/v', readOnly: false, source: { kind: 'host', path: volume, propagation: 'private' } },
      ] as const;
      await burstable.createContainer({ ...containerSpec, image, command: ['true'], mounts }, minute());
      const { stdout } = await run('pgrep', ['-f', `/shares/${burstable.id}/`]);
      const servers = stdout.trim().split('\n').map(Number);
      assert.ok(servers.length > 0);
      for (const pid of [burstable.status.vmmPid ?? 0, ...servers]) assert.equal(await scoreOf(pid), 300);
      // A container that may be killed later than its machine takes it along, as kubelet computes it for each.
      const later = { ...containerSpec, name: 'later', image, command: ['true'], oomScoreAdj: 900 };
      await pod.createContainer(later, minute());
      assert.equal(await scoreOf(pod.status.vmmPid ?? 0), 900);
    } finally {
      await burstable.remove();
      await rm(volume, { recursive: true });
    }
  });

  test('describes a container as its guest’s kernel does', async () => {
    const ours = await columnOf('## A container without special requests');
    const container = await pod.createContainer(
      {
        ...containerSpec,
        image,
        command: ['sh', '-c', whoAmI],
        security: { ...security, allowPrivilegeEscalation: false },
      },
      minute(),
    );
    const chunks: Buffer[] = [];
    const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
    await container.start(minute());
    await container.exited;
    await follower.ended;
    const said = Buffer.concat(chunks).toString();
    assert.equal(ours.get('kernel'), "a guest's own");
    assert.match(said, /^kernel .*deb13/m);
    assert.equal(ours.get('capabilities'), "containerd's 14");
    assert.match(said, /^caps 00000000a80425fb$/m);
    assert.equal(ours.get('system calls'), 'RuntimeDefault, without being asked');
    assert.match(said, /^seccomp 2$/m);
    assert.equal(ours.get('masked paths'), 'as Kubernetes has them');
    assert.match(said, /^kcore 0$/m);
    assert.equal(ours.get('mounts of the host'), 'none');
    assert.match(said, /^fuse 0$/m);
  });
});

const scoreOf = async (pid: number) => Number(await readFile(`/proc/${pid}/oom_score_adj`, 'latin1'));

async function parentOf(pid: number): Promise<number> {
  return Number(/^PPid:\t(\d+)$/m.exec(await readFile(`/proc/${pid}/status`, 'latin1'))?.[1]);
}

/** Limit of swap in the cgroup of version 2 or 1. */
async function swapOf(id: string): Promise<string> {
  const places = ['/sys/fs/cgroup', '/sys/fs/cgroup/memory'].map((root) => join(root, 'podvm', id));
  const files = [join(places[0] ?? '', 'memory.swap.max'), join(places[1] ?? '', 'memory.swappiness')];
  for (const file of files) if (existsSync(file)) return (await readFile(file, 'latin1')).trim();
  return assert.fail('no cgroup says');
}

const whoAmI = `
echo kernel $(uname -r)
echo caps $(sed -n 's/CapEff:.//p' /proc/self/status)
echo seccomp $(sed -n 's/Seccomp:.//p' /proc/self/status)
echo kcore $(head -c 100 /proc/kcore | wc -c)
echo fuse $(grep -c fuse /proc/mounts)
`;

/** The column PodVM of the table below that heading, by the row's name. */
async function columnOf(heading: string): Promise<ReadonlyMap<string, string>> {
  const page = await readFile(join(import.meta.dirname, '../../docs/isolation.md'), 'utf8');
  const [, after = assert.fail(`no ${heading}`)] = page.split(`${heading}\n`);
  const [section = ''] = after.split('\n## ');
  const rows = section
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .slice(2);
  return new Map(
    rows.map((row) => row.split('|').map((cell) => cell.trim())).map(([, name = '', ours = '']) => [name, ours]),
  );
}
