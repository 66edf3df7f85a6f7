import assert from 'node:assert/strict';
import { access, mkdtemp, rm, stat } from 'node:fs/promises';
import { test } from 'node:test';
import type { Accelerator } from '../driver.ts';
import { kvmDevice } from './jail/device-nodes.ts';
import { jailOf } from './qemu-driver.ts';

const hasKvm = await access(kvmDevice.path).then(
  () => true,
  () => false,
);
const skip = process.getuid?.() !== 0 ? 'making device nodes needs root' : !hasKvm && 'this host has no /dev/kvm';
const uid = 64_322;

test(
  'jailOf() passes /dev/kvm to a machine with KVM, for its user alone, and no device without it',
  { skip },
  async () => {
    const directory = await mkdtemp('/var/tmp/podvm-devices-');
    try {
      const spec = { id: 'm', directory, uid, memoryMiB: 256, vcpus: 1 };
      const assets = { sysroot: '/s', kernel: '/k', initramfs: '/i' };
      const devicesWith = async (accelerator: Accelerator) =>
        (await jailOf({ assets, accelerator }, spec, { kind: 'boot' }, AbortSignal.timeout(60_000))).devices;
      assert.deepEqual(await devicesWith('tcg'), []);
      const devices = await devicesWith('kvm');
      assert.deepEqual(
        devices.map(([, inside]) => inside),
        [kvmDevice.path],
      );
      const found = await stat(devices[0]?.[0] ?? '');
      assert.equal(found.rdev, (kvmDevice.major << 8) | kvmDevice.minor);
      const isOpenToAll = ((await stat(kvmDevice.path)).mode & 0o006) === 0o006;
      if (!isOpenToAll) assert.deepEqual([found.uid, found.mode & 0o777], [uid, 0o600]);
    } finally {
      await rm(directory, { recursive: true });
    }
  },
);
