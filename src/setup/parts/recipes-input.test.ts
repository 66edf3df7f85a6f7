import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PodvmError, kindOf } from '#base/errors.ts';
import { archiveOptions, parseIndexTargets, sourcesFor } from './debian-archive.ts';
import { parseInstLines, reasonIn } from './debian-packages.ts';
import { missingHostTools, parseHostTools, readHostTools } from '../host-tools.ts';
import {
  bootModules,
  demandModules,
  modulesList,
  planModules,
  planPodModules,
  podModules,
  podModulesList,
} from './kernel-modules.ts';
import { changesBetween } from '../setup.ts';
import { extractVmlinux } from './vmlinux.ts';

const wanted = [...bootModules, ...demandModules];

test('extractVmlinux() refuses files that are not a bzImage, and a truncated one', async () => {
  await assert.rejects(extractVmlinux(Buffer.alloc(10)), (error) => kindOf(error) === 'corrupt');
  await assert.rejects(extractVmlinux(Buffer.alloc(4096)), (error) => kindOf(error) === 'corrupt');
  const cut = Buffer.alloc(4096);
  cut.write('HdrS', 0x202, 'latin1');
  cut.writeUInt32LE(1_000_000, 0x24c);
  await assert.rejects(extractVmlinux(cut), (error) => kindOf(error) === 'corrupt');
});

test('planModules() names a required module that the kernel has neither as a file nor built in', () => {
  assert.throws(() => planModules('', ''), /Cannot find kernel module virtio_ring/);
});

test('planModules() lists every module after its dependencies, and leaves out built-in ones', () => {
  const builtin = wanted.filter((name) => !['virtio_mmio', 'ext4', 'sctp'].includes(name));
  const plan = planModules(
    [
      'kernel/virtio_mmio.ko.xz:',
      'kernel/ext4.ko.xz: kernel/mbcache.ko.xz kernel/jbd2.ko.xz',
      'kernel/jbd2.ko.xz:',
      'kernel/mbcache.ko.xz:',
      'kernel/sctp.ko.xz: kernel/udp_tunnel.ko.xz',
      'kernel/udp_tunnel.ko.xz:',
    ].join('\n'),
    builtin.map((name) => `kernel/${name}.ko`).join('\n'),
  );
  assert.equal(
    modulesList(plan),
    [
      'boot virtio_mmio virtio_mmio.ko -',
      'boot jbd2 jbd2.ko -',
      'boot mbcache mbcache.ko -',
      'boot ext4 ext4.ko jbd2,mbcache',
      'demand udp_tunnel udp_tunnel.ko.xz -',
      'demand sctp sctp.ko.xz udp_tunnel',
      '',
    ].join('\n'),
  );
});

test('planPodModules() lists the modules of pods with their dependencies, without those of the guest and forbidden ones', () => {
  const files = [
    'kernel/fs/ext4/ext4.ko.xz: kernel/lib/libcrc32c.ko.xz',
    'kernel/lib/libcrc32c.ko.xz:',
    'kernel/net/netfilter/nf_tables.ko.xz: kernel/net/netfilter/nfnetlink.ko.xz kernel/lib/libcrc32c.ko.xz',
    'kernel/net/netfilter/nfnetlink.ko.xz:',
    'kernel/net/core/pktgen.ko.xz:',
    'kernel/net/can/can.ko.xz:',
    'kernel/drivers/net/veth.ko.xz:',
  ];
  const named = [...bootModules.filter((name) => name !== 'ext4'), ...podModules.filter((name) => name !== 'veth')];
  const plan = planPodModules(files.join('\n'), named.map((name) => `kernel/${name}.ko`).join('\n'));
  const aliases = [
    'nft-set nf_tables',
    'nfnetlink-subsys-10 nf_tables',
    'both nf_tables',
    'both veth',
    'pci:v*d* veth',
  ];
  const others = ['can-proto-1 can', 'both pktgen'];
  assert.equal(
    podModulesList(plan, [...aliases, ...others].map((line) => `alias ${line}`).join('\n')),
    [
      'module nfnetlink nfnetlink.ko -',
      'module nf_tables nf_tables.ko nfnetlink',
      'module veth veth.ko -',
      'alias nft_set nf_tables',
      'alias nfnetlink_subsys_10 nf_tables',
      'alias both nf_tables,veth',
      '',
    ].join('\n'),
  );
});

const targets = parseIndexTargets(
  'Other|http://a.example/x/\nDebian|http://b.example/debian/\nDebian-Security|http://b.example/sec/\n',
);

test('sourcesFor() uses the host’s mirrors for packages and sources, with security updates', () => {
  const { sources, hasSecurity } = sourcesFor(undefined, targets);
  assert.equal(hasSecurity, true);
  for (const type of ['deb', 'deb-src']) {
    const security = (line: string) =>
      line.startsWith(`${type} `) && line.endsWith(' http://b.example/sec/ trixie-security main');
    assert.ok(sources.some(security), type);
  }
  assert.ok(sources.every((line) => line.includes('[signed-by=/usr/share/keyrings/') && !line.includes('a.example')));
});

test("sourcesFor() adds security updates to Debian's own servers, and says that another mirror has none", () => {
  const has = (mirror: string | undefined, known = targets.slice(0, 1)) => {
    const { sources, hasSecurity } = sourcesFor(mirror, known);
    assert.equal(
      sources.some((line) => line.includes('trixie-security')),
      hasSecurity,
    );
    return hasSecurity;
  };
  assert.equal(has(undefined), true);
  assert.equal(has('http://deb.debian.org/debian'), true);
  assert.equal(has('https://ftp.de.debian.org/debian/'), true);
  assert.equal(has('http://mirror.example/debian'), false);
  assert.equal(has('http://deb.debian.org.evil.example/debian'), false);
  assert.equal(has(undefined, targets.slice(0, 2)), false);
});

test('sourcesFor() refuses a mirror that is not a URL, or contains a line break', () => {
  for (const mirror of ['debian', 'http://a.example/\ndeb [trusted=yes] http://b.example/', '']) {
    assert.throws(
      () => sourcesFor(mirror, []),
      (error) => kindOf(error) === 'invalid',
    );
  }
});

test('archiveOptions() keeps options for reaching an archive, and none that weakens its checks', () => {
  const dump =
    'Acquire::http::Proxy "http://p.example/";\nAPT::Get::AllowUnauthenticated "true";\nAcquire::AllowInsecureRepositories "true";\n';
  assert.deepEqual(archiveOptions(dump), ['Acquire::http::Proxy "http://p.example/";']);
});

test('parseInstLines() reads names, versions and origins of an apt simulation', () => {
  const text = [
    'Inst qemu-system-x86 (1:10.0.13+ds-0+deb13u1 Debian:13.8/stable [amd64])',
    'Conf qemu-system-x86 (x)',
    'Inst linux-image-6.12.118+deb13-cloud-amd64 (6.12.118-1 Debian-Security:13/stable-security [amd64])',
    'Inst a (2 x) []',
  ].join('\n');
  assert.deepEqual(parseInstLines(text), [
    { name: 'qemu-system-x86', version: '1:10.0.13+ds-0+deb13u1', isSecurity: false },
    { name: 'linux-image-6.12.118+deb13-cloud-amd64', version: '6.12.118-1', isSecurity: true },
    { name: 'a', version: '2', isSecurity: false },
  ]);
});

test("reasonIn() prefers apt's own complaint", () => {
  assert.equal(reasonIn(['W: x', 'E: setup failed: apt']), 'W: x');
  assert.equal(reasonIn([]), 'no reason given');
});

test('parseHostTools() refuses a line that is not a package, a program and a purpose', () => {
  assert.throws(() => parseHostTools('bubblewrap bwrap why\n'), PodvmError);
});

test('missingHostTools() finds missing programs', async () => {
  const [first] = await readHostTools();
  assert.ok(first !== undefined);
  const absent = {
    package: 'none',
    program: '/nonexistent/none',
    purpose: 'nothing',
    makesParts: false,
    forUsers: false,
  };
  assert.deepEqual(await missingHostTools([absent]), [absent]);
});

test('changesBetween() lists what was added, removed and changed', () => {
  assert.deepEqual(changesBetween({ a: '1', b: '1', c: '1' }, { a: '1', b: '2', d: '1' }), [
    { package: 'b', from: '1', to: '2' },
    { package: 'c', from: '1', to: undefined },
    { package: 'd', from: undefined, to: '1' },
  ]);
});
