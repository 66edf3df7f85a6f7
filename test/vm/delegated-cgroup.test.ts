import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { whyNoVm } from './node.ts';
import { runOnOtherHost } from './other-host.ts';

/**
 * Like systemd with `Delegate=yes`, root gives the user a cgroup, once with all controllers and once with the two that old
 * versions pass on.
 */
const script = `
cd /sys/fs/cgroup
mkdir first
echo $$ >first/cgroup.procs
echo '+memory +pids +cpu' >cgroup.subtree_control
mkdir all.scope part part/part.scope
echo '+memory +pids' >part/cgroup.subtree_control
for scope in all.scope part/part.scope; do
  chown 1000:1000 $scope $scope/cgroup.procs $scope/cgroup.subtree_control $scope/cgroup.threads
done
as_anna() {
  echo "in: $1"
  procs=/sys/fs/cgroup/$1/cgroup.procs
  shift
  (
    sh -c 'echo $PPID' >"$procs"
    exec setpriv --reuid=1000 --regid=1000 --clear-groups env HOME=/home/anna node /program.mjs /home/anna "$@"
  )
}
as_anna first doctor
as_anna part/part.scope part
as_anna all.scope
echo "cgroups: $(find . -mindepth 1 -type d | sort | tr '\\n' ' ')"
`;

const limits = (cpu: string) => [
  'machine: 0::/podvm/machine',
  `memory.max: ${32 * 1024 ** 2}`,
  'pids.max: 512',
  `cpu.max: ${cpu}`,
  'too much memory: SIGKILL, out of memory',
  'too many processes: refused',
];
const noCpu =
  'warn the host does not limit the processor time of machines: /sys/fs/cgroup/part/part.scope lacks the controllers cpu. ' +
  'Let the host delegate these as well: `Delegate=yes` of a service, or cgroup.subtree_control of the parent.';
const expected = [
  'in: first',
  'doctor before: warn the host does not limit the memory and processor time of machines: the cgroup /first is not delegated ' +
    'to this user, and this user has no systemd. Run podvm as root where guests must not be able to exceed the limits of their pods on the host.',
  'in: part/part.scope',
  `doctor before: ${noCpu}`,
  'own: /part/part.scope/podvm-processes',
  ...limits('ENOENT'),
  `doctor with a node: ${noCpu}`,
  'in: all.scope',
  'doctor before: ok each machine has a cgroup below /sys/fs/cgroup/all.scope.',
  'own: /all.scope/podvm-processes',
  'another state directory: warn the host does not limit the memory and processor time of machines: the cgroup /all.scope is used ' +
    'by the node of another state directory, and this user has no systemd',
  'another node: /all.scope/podvm-processes false',
  ...limits('50000 100000'),
  'doctor with a node: ok each machine has a cgroup below /sys/fs/cgroup/all.scope.',
  'adopted: true',
  'too much processor time: throttled',
  `changed memory.max: ${48 * 1024 ** 2}`,
  'after: /all.scope []',
  'doctor after a killed holder: ok each machine has a cgroup below /sys/fs/cgroup/all.scope.',
  'after a killed holder: /all.scope/podvm-processes ["podvm-processes"] true',
  'after all: /all.scope []',
  'cgroups: ./all.scope ./first ./part ./part/part.scope',
];

await suite('a cgroup that the host has delegated to an ordinary user', { skip: await whyNoVm() }, () => {
  test('limits each machine of that user, passes to the next node, and is empty afterwards', async (t) => {
    const said = await runOnOtherHost('delegated-cgroup-user.ts', script);
    t.diagnostic(said);
    const lines = said.trim().split(/\r?\n/);
    assert.deepEqual(
      lines.map((line) => line.trim()).filter((line) => !line.startsWith('left: ')),
      expected,
    );
  });
});
