import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { assertReachable, inside, jailedCommand, type JailSpec } from './jail.ts';

const spec: JailSpec = {
  uid: 64_999,
  sysroot: '/sysroot',
  directory: '/state/m-1',
  kernel: '/parts/vmlinux',
  initramfs: '/parts/initramfs',
  template: undefined,
  netns: '/run/netns/podvm-x',
  devices: [['/state/m-1/dev-200', '/dev/net/tun']],
  maxFileBytes: 4096,
};
/** Returns the bind mounts as `[how, outside, inside]`. */
const bindsOf = (command: readonly string[]) =>
  command.flatMap((word, at) => (/^--(ro-|dev-)?bind$/.test(word) ? [command.slice(at, at + 3)] : []));

test('jailedCommand() enters the netns as root, then drops user and capabilities, then builds the jail', () => {
  const command = jailedCommand(spec, ['/usr/bin/qemu', '-S']);
  const order = ['nsenter', 'prlimit', 'setpriv', 'bwrap', '/usr/bin/qemu'].map((program) => command.indexOf(program));
  assert.deepEqual(
    order,
    order.toSorted((a, b) => a - b),
  );
  assert.ok(order.every((at) => at >= 0));
  for (const word of ['--reuid=64999', '--regid=64999', '--clear-groups', '--no-new-privs', '--bounding-set=-all']) {
    assert.ok(command.includes(word), word);
  }
  assert.deepEqual(command.slice(-3), ['--', '/usr/bin/qemu', '-S']);
});

test('jailedCommand() forbids core dumps, and limits the size of files', () => {
  const command = jailedCommand(spec, ['x']);
  for (const word of ['--core=1:1', '--fsize=4096:4096']) assert.ok(command.includes(word), word);
  const without = jailedCommand({ ...spec, maxFileBytes: undefined }, ['x']);
  assert.ok(!without.some((word) => word.startsWith('--fsize')));
});

test('jailedCommand() shows a booting VMM only its own directory and read-only parts', () => {
  assert.deepEqual(bindsOf(jailedCommand(spec, ['x'])), [
    ['--ro-bind', '/sysroot/usr', '/usr'],
    ['--dev-bind', '/state/m-1/dev-200', '/dev/net/tun'],
    ['--ro-bind', '/parts/vmlinux', '/boot/vmlinux'],
    ['--ro-bind', '/parts/initramfs', '/boot/initramfs'],
    ['--bind', '/state/m-1', '/machine'],
    ['--dev-bind', '/state/m-1/devices', '/machine/devices'],
  ]);
});

test('jailedCommand() shows a VMM its plugin read-only', () => {
  const binds = bindsOf(jailedCommand({ ...spec, plugin: '/parts/p.so' }, ['x']));
  assert.ok(binds.some((bind) => bind.join(' ') === `--ro-bind /parts/p.so ${inside.plugin}`));
});

test('jailedCommand() shows a restored VMM its template read-only, and no kernel', () => {
  const binds = bindsOf(jailedCommand({ ...spec, template: '/templates/t', devices: [] }, ['x']));
  assert.deepEqual(binds, [
    ['--ro-bind', '/sysroot/usr', '/usr'],
    ['--ro-bind', '/templates/t', '/template'],
    ['--bind', '/state/m-1', '/machine'],
    ['--dev-bind', '/state/m-1/devices', '/machine/devices'],
  ]);
});

test('jailedCommand() gives a VMM without a netns an empty network', () => {
  const command = jailedCommand({ ...spec, netns: undefined }, ['x']);
  assert.ok(command.includes('--unshare-net'));
  assert.equal(command.includes('nsenter'), false);
  assert.equal(jailedCommand(spec, ['x']).includes('--unshare-net'), false);
});

test('assertReachable() names the closed directory and the command that opens it', async () => {
  const root = await mkdtemp(join(tmpdir(), 'podvm-jail-'));
  try {
    await mkdir(join(root, 'a'));
    await chmod(root, 0o700);
    await assert.rejects(assertReachable(join(root, 'a/file')), (error: Error & { fix?: string }) => {
      assert.match(error.message, new RegExp(`${root} is closed`));
      assert.equal(error.fix?.includes(`chmod o+x ${root}`), true);
      return true;
    });
    await chmod(root, 0o711);
    await assertReachable(join(root, 'a/file'));
  } finally {
    await rm(root, { recursive: true });
  }
});
