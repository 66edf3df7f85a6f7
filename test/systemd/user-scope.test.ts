import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { whyNoVm } from '../vm/node.ts';
import { runOnOtherHost } from '../vm/other-host.ts';

/**
 * Starts systemd as the first process of namespaces. Its services run the module as a user, one after the other: with a systemd of
 * that user that ends with the sessions; when it lasts; and as a service with `Delegate=yes`.
 */
const script = `
write() { cat >"/etc/systemd/system/$1"; }
mkdir -p /etc/systemd/system /var/lib/systemd/linger /mnt
touch /etc/machine-id /said
echo 'messagebus:x:100:100::/nonexistent:/bin/false' >>/etc/passwd
echo 'messagebus:x:100:' >>/etc/group
write dbus.socket <<END
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
END
write dbus.service <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
END
write user@.service <<END
[Unit]
DefaultDependencies=no
Requires=dbus.service
After=dbus.service
[Service]
User=%i
Type=notify
Slice=user-%i.slice
RuntimeDirectory=user/%i
Environment=XDG_RUNTIME_DIR=/run/user/%i
ExecStart=/usr/lib/systemd/systemd --user
Delegate=pids memory cpu
KillMode=mixed
TimeoutStartSec=infinity
END
step() { # NAME AFTER WORDS OF-SERVICE OF-UNIT
  write "$1.service" <<END
[Unit]
DefaultDependencies=no
Requires=user@1000.service
After=user@1000.service $2
FailureAction=exit-force
$5
[Service]
Type=oneshot
User=anna
Environment=HOME=/home/anna
StandardOutput=append:/said
StandardError=append:/said
$4
ExecStart=/usr/bin/node /program.mjs /home/anna $3
END
}
step short dbus.service doctor
step lasting short.service scope 'ExecStartPre=+/usr/bin/touch /var/lib/systemd/linger/anna'
step service lasting.service '' Delegate=yes SuccessAction=exit-force
write test.target <<END
[Unit]
DefaultDependencies=no
Requires=short.service lasting.service service.service
END
cd /sys/fs/cgroup
mkdir first other
echo $$ >first/cgroup.procs
echo '+memory +pids +cpu' >cgroup.subtree_control
export inside='
  mount -t cgroup2 cgroup2 /mnt
  mount --move /mnt /sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs /run
  exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    /usr/lib/systemd/systemd --unit=test.target --log-target=console --show-status=no'
# The first process that is in the cgroup is systemd: it could not move others that its namespace does not show.
unshare --pid --fork sh -ec '
  echo 0 >/sys/fs/cgroup/other/cgroup.procs
  exec unshare --cgroup --mount --uts --ipc --mount-proc sh -ec "$inside"
' || echo "systemd ended with $?"
sed 's/run-r[0-9a-f]*/run-r/' /said
`;
const files = {
  programs: ['/usr/lib/systemd/systemd', 'systemctl', 'systemd-run', 'dbus-daemon', 'env', 'sed', 'touch'],
  trees: ['/usr/lib/systemd/user', '/usr/lib/systemd/system', '/usr/share/dbus-1'],
};

await suite('the systemd of an ordinary user', { skip: await whyNoVm() }, () => {
  test('gives a node in the background a scope with limits when it lasts, and that of the host a service', async (t) => {
    const said = await runOnOtherHost('delegated-cgroup-user.ts', script, files);
    t.diagnostic(said);
    const scope = '/user.slice/user-1000.slice/user@1000.service/app.slice/run-r.scope';
    const lines = said.split(/\r?\n/).map((line) => line.trim());
    const limited = (cgroup: string) => [
      `doctor before: ok each machine has a cgroup below /sys/fs/cgroup${cgroup}.`,
      `own: ${cgroup}/podvm-processes`,
      'machine: 0::/podvm/machine',
      `memory.max: ${32 * 1024 ** 2}`,
      'pids.max: 512',
      'cpu.max: 50000 100000',
      'too much memory: SIGKILL, out of memory',
      'too many processes: refused',
      `doctor with a node: ok each machine has a cgroup below /sys/fs/cgroup${cgroup}.`,
      'adopted: true',
      'too much processor time: throttled',
      `changed memory.max: ${48 * 1024 ** 2}`,
      `after: ${cgroup} []`,
      `after a killed holder: ${cgroup}/podvm-processes ["podvm-processes"] true`,
      `after all: ${cgroup} []`,
    ];
    const begin = lines.findIndex((line) => line.startsWith('doctor before'));
    assert.deepEqual(
      lines.slice(begin).filter((line) => line !== '' && !line.startsWith('left: ')),
      [
        'doctor before: warn the host does not limit the memory and processor time of machines: the cgroup ' +
          '/system.slice/short.service is not delegated to this user, and the systemd of this user ends with the last session, ' +
          'as pods in it would. Run `loginctl enable-linger anna` as root, or begin the command that starts the node with ' +
          '`systemd-run --user --scope --property=Delegate=yes`. Run podvm as root where guests must not be able to exceed the ' +
          'limits of their pods on the host.',
        'doctor before: ok each machine has a cgroup below a scope of this user’s systemd.',
        ...limited(scope),
        ...limited('/system.slice/service.service'),
      ],
    );
  });
});
