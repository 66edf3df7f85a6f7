import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { type Confinement, readConfinement, weaknesses } from '#host/confinement.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/examples.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { type House, openHouse, whyNoVm } from './house.ts';

/** Our column of `docs/isolation.md`, read from a sandbox that runs. */
const skip = await whyNoVm();
const image = 'localhost/podvm/base:latest';
const mebibyte = 1024 * 1024;
const minute = () => AbortSignal.timeout(60_000);

describe('docs/isolation.md', { skip, timeout: 120_000 }, () => {
  let house: House;
  let pod: Sandbox;
  let jail: Confinement;

  before(async () => {
    house = await openHouse();
    const resources = { memoryLimitBytes: 64 * mebibyte, cpuLimitMillis: 500 };
    pod = await house.sandboxes.run({ ...sandboxSpec, name: 'looked-at', resources }, minute());
    jail = await readConfinement(pod.status.vmmPid ?? 0);
  });
  after(async () => {
    await house[Symbol.asyncDispose]();
    assert.deepEqual(await house.leftovers(), []);
  });

  test('tells of the VMM what the host’s kernel says of it', async () => {
    const ours = await columnOf('## The process that a guest breaks out into');
    const cells = {
      'user and group': 'one of its own per pod, no other groups',
      capabilities: 'none',
      'new privileges': 'none',
      'system calls': `a list of what is allowed, before it starts; QEMU's list of what is denied, after: ${jail.seccompFilters} filters`,
      'namespaces of its own': jail.namespaces.join(', '),
      'root directory': 'read-only: QEMU and its libraries, one directory, the template',
      devices: 'its tap; /dev/kvm where there is one; its block volumes',
      'core dumps': 'off',
      'memory on the host': "bounded: the pod's limit, 320 MiB more",
      'processor on the host': "bounded: the pod's limit, one core more",
      'threads on the host': `at most ${jail.cgroup.processes}`,
    };
    assert.deepEqual(Object.fromEntries(ours), cells);

    assert.ok(jail.uid > 0 && jail.gid === jail.uid && jail.groups.every((group) => group === jail.gid));
    assert.equal(jail.capabilities, '0');
    assert.equal(jail.noNewPrivileges, true);
    assert.equal(jail.limits.coreBytes, 0);
    const { memoryBytes, cpuMillis } = jail.cgroup;
    assert.deepEqual([memoryBytes, cpuMillis], [(64 + 320) * mebibyte, 500 + 1000]);
    assert.deepEqual(jail.devices.toSorted(), ['full', 'net/tun', 'null', 'random', 'tty', 'urandom', 'zero']);
    const hostMounts = jail.mounts.filter(
      ({ at, type }) => !at.startsWith('/dev/') && !['tmpfs', 'devpts'].includes(type),
    );
    assert.deepEqual(hostMounts.map(({ at }) => at).sort(), ['/machine', '/machine/devices', '/template', '/usr']);
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

  test('tells of a container what its guest’s kernel says of it', async () => {
    const ours = await columnOf('## A container that asks for nothing');
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
    assert.equal(ours.get('kernel'), 'a guest’s own');
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
