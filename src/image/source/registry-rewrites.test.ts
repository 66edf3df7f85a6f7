import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { authsForBoth, rewrittenName } from './registry-rewrites.ts';

async function configured(main: string, more: Readonly<Record<string, string>> = {}) {
  const directory = await mkdtempDisposable(join(tmpdir(), 'podvm-rewrites-'));
  await writeFile(join(directory.path, 'registries.conf'), main);
  await mkdir(join(directory.path, 'registries.conf.d'));
  for (const [name, text] of Object.entries(more))
    await writeFile(join(directory.path, 'registries.conf.d', name), text);
  return directory;
}

const registry = (prefix: string, location: string) => `[[registry]]\nprefix = "${prefix}"\nlocation = "${location}"\n`;

test('rewrittenName() applies the longest prefix, including subdomains, and only at the end of a component', async () => {
  const rules =
    registry('quay.io', 'near:5000/quay') + registry('quay.io/team', 'far') + registry('*.corp', 'near:5000');
  await using directory = await configured(rules);
  for (const [name, expected] of [
    ['quay.io/other/app', 'near:5000/quay/other/app'],
    ['quay.io/team/app', 'far/app'],
    ['quay.io/teamwork/app', 'near:5000/quay/teamwork/app'],
    ['a.b.corp/app', 'near:5000/app'],
    ['corp/app', 'corp/app'],
    ['docker.io/library/busybox', 'docker.io/library/busybox'],
  ] as const)
    assert.equal(await rewrittenName(directory.path, name), expected);
});

test('rewrittenName() prefers files of registries.conf.d, and ignores mirrors and unreadable files', async () => {
  const mirror = '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "near:5000"\n';
  await using directory = await configured(registry('quay.io', 'near:5000') + mirror, {
    '1.conf': registry('quay.io', 'far'),
    '2.conf': 'not = = TOML',
    'ignored.txt': registry('quay.io', 'nowhere'),
  });
  assert.equal(await rewrittenName(directory.path, 'quay.io/app'), 'far/app');
  assert.equal(await rewrittenName(directory.path, 'docker.io/library/busybox'), 'docker.io/library/busybox');
  assert.equal(await rewrittenName(join(directory.path, 'none'), 'quay.io/app'), 'quay.io/app');
});

test('authsForBoth() copies the credentials of a name, and overrides none', () => {
  const text = (auths: object) => JSON.stringify({ auths, other: 1 });
  const [mine, theirs] = [{ auth: 'bWluZQ==' }, { auth: 'dGhlaXJz' }];
  const both = (auths: object) => JSON.parse(authsForBoth(text(auths), 'quay.io/team/app', 'near:5000/app')) as object;
  for (const key of ['quay.io', 'quay.io/team', 'quay.io/team/app']) {
    assert.deepEqual(both({ [key]: mine }), { auths: { [key]: mine, 'near:5000/app': mine }, other: 1 });
  }
  for (const unchanged of [{ 'quay.io': mine, 'near:5000': theirs }, { 'quay.io/tea': mine }, {}])
    assert.deepEqual(both(unchanged), { auths: unchanged, other: 1 });
  assert.equal(authsForBoth('not JSON', 'quay.io/app', 'near:5000/app'), 'not JSON');
});
