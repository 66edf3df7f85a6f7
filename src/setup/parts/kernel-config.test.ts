import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { idleOptions, mergeConfig, refusedOptions } from './kernel-config.ts';
import { fragmentFile } from './small-kernel.ts';

const debian = `# Linux/x86 6.12 Kernel Configuration
CONFIG_HZ=250
CONFIG_HZ_250=y
# CONFIG_HZ_100 is not set
CONFIG_LSM="landlock,yama"
CONFIG_NUMA=y
CONFIG_VETH=m
`;
const fragment = '# A reason.\nCONFIG_HZ_250=n\nCONFIG_HZ_100=y\nCONFIG_NUMA=n\nCONFIG_LSM="yama"\n';

test('mergeConfig() replaces the options of the fragment, and keeps the others and those with longer names', () => {
  const merged = mergeConfig(debian, fragment);
  assert.deepEqual(merged.trimEnd().split('\n'), [
    '# Linux/x86 6.12 Kernel Configuration',
    'CONFIG_HZ=250',
    'CONFIG_VETH=m',
    '# CONFIG_HZ_250 is not set',
    'CONFIG_HZ_100=y',
    '# CONFIG_NUMA is not set',
    'CONFIG_LSM="yama"',
  ]);
  assert.deepEqual(refusedOptions(fragment, merged), []);
  assert.equal(mergeConfig(merged, fragment), merged);
});

test("idleOptions() finds options that Debian's configuration does not have, or has in the same way", () => {
  assert.deepEqual(idleOptions(fragment, debian), []);
  assert.deepEqual(idleOptions('CONFIG_NUMMA=n\nCONFIG_VETH=m\nCONFIG_HZ_100=n\nCONFIG_NUMA=n\n', debian), [
    'CONFIG_NUMMA',
    'CONFIG_VETH',
    'CONFIG_HZ_100',
  ]);
});

test('refusedOptions() finds options that the kernel has turned on again, or does not have', () => {
  const final = 'CONFIG_HZ_100=y\nCONFIG_NUMA=y\n';
  assert.deepEqual(refusedOptions('CONFIG_HZ_100=y\nCONFIG_NUMA=n\nCONFIG_EFI=n\nCONFIG_SCSI=y\n', final), [
    'CONFIG_NUMA',
    'CONFIG_SCSI',
  ]);
});

test('the fragment gives a reason for each group, and weakens neither hardening nor mitigations', async () => {
  const text = await readFile(fragmentFile, 'utf8');
  const groups = text.trim().split('\n\n').slice(1);
  assert.ok(groups.length > 5);
  for (const group of groups) assert.match(group, /^(?:# [^\n]+\n)+(?:CONFIG_\w+=[^\n]+(?:\n|$))+$/);
  const kept =
    /MITIGATION|HARDEN|FORTIFY|STACKPROTECTOR|RANDOM|STRICT_|INIT_ON|SECCOMP|LANDLOCK|YAMA|MODULE_SIG|IBT|VMAP_STACK/;
  assert.deepEqual(
    text
      .split('\n')
      .filter((line) => line.startsWith('CONFIG_') && kept.test(line))
      .filter((line) => line !== 'CONFIG_HW_RANDOM_VIRTIO=y'),
    [],
  );
});
