import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Files, FileStatus } from '#engine/engine.ts';
import type { ContainerParams } from '#wire/container-params.ts';
import type { Disks } from '../volume/disks.ts';
import { containerDevices } from './devices.ts';

const devices: Readonly<Record<string, string>> = {
  null: 'c 1 3 666',
  sda: 'b 8 0 600',
  vport0p1: 'c 240 1 600',
  console: 'c 5 1 600',
  'pts/0': 'c 136 0 620',
  'net/tun': 'c 10 200 600',
  'input/mice': 'c 13 63 600',
};

const statusOf = (path: string): FileStatus | undefined => {
  const name = path.slice('/dev/'.length);
  const [type, major = 0, minor = 0, mode = '0'] = devices[name]?.split(' ') ?? [];
  const rest = {
    uid: 0,
    gid: 0,
    size: 0,
    inode: 1,
    device: 1,
    modifiedMs: 0,
    major: Number(major),
    minor: Number(minor),
  };
  if (type !== undefined)
    return { kind: type === 'c' ? 'characterDevice' : 'blockDevice', mode: Number.parseInt(mode, 8), ...rest };
  const isDirectory = Object.keys(devices).some((each) => each.startsWith(`${name}/`));
  return isDirectory ? { kind: 'directory', mode: 0o755, ...rest } : undefined;
};
const files = {
  status: statusOf,
  list: (path: string) => {
    const below = path === '/dev' ? '' : `${path.slice('/dev/'.length)}/`;
    const names = Object.keys(devices).filter((name) => name.startsWith(below));
    return [...new Set(names.map((name) => name.slice(below.length).split('/')[0] ?? ''))];
  },
  readText: () => 'Character devices:\n240 virtio-portsdev\n',
} as unknown as Files; // SAFE: all methods that are called
const disks = {} as unknown as Disks; // SAFE: no disk is used

const devicesOf = (privileged: boolean, capabilities: readonly string[]) => {
  const params = { privileged, process: { capabilities } } as unknown as ContainerParams; // SAFE: all fields that are read
  const user = { uid: 0, gid: 0, additionalGids: [], home: '/' };
  return containerDevices(files, disks, { params, user, users: undefined });
};

test('containerDevices() gives only containers with CAP_NET_ADMIN /dev/net/tun', () => {
  const none = { nodes: [], rules: [{ allow: false, access: 'rwm' }], areUsual: true };
  assert.deepEqual(devicesOf(false, ['CAP_NET_RAW']), none);
  const { nodes, rules } = devicesOf(false, ['CAP_NET_ADMIN']);
  assert.deepEqual(nodes, [{ path: '/dev/net/tun', type: 'c', major: 10, minor: 200, fileMode: 0o666 }]);
  assert.deepEqual(rules[1], { allow: true, type: 'c', major: 10, minor: 200, access: 'rwm' });
});

test('containerDevices() gives a privileged container all devices except the channel, including those in directories', () => {
  const { nodes, rules, areUsual } = devicesOf(true, ['CAP_NET_ADMIN']);
  assert.equal(areUsual, false);
  assert.deepEqual(nodes.map(({ path }) => path).sort(), ['/dev/input/mice', '/dev/net/tun', '/dev/null', '/dev/sda']);
  assert.deepEqual(rules.at(-1), { allow: false, type: 'c', major: 240, access: 'rwm' });
});
