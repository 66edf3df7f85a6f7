import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { it } from 'node:test';
import { acceptedForDevelopment, acceptedLicences, describeLicences, packagesWithScripts, readLock } from './lock.ts';

/** An audit without a network; `npm run audit` queries the registry for known vulnerabilities. */
const repo = join(import.meta.dirname, '..');
const packages = await readLock();

it('every npm package is locked by the hash of its bytes, and from no place of its own', () => {
  assert.ok(packages.length > 100);
  for (const { path, integrity, resolved } of packages) {
    assert.match(integrity ?? '', /^sha512-[A-Za-z0-9+/]{86}==$/, path);
    assert.equal(resolved, undefined, path);
  }
});

it('package.json names exact versions, which are those of the lock', async () => {
  const text = await readFile(join(repo, 'package.json'), 'utf8');
  const manifest = JSON.parse(text) as Record<'dependencies' | 'devDependencies', Record<string, string>>;
  for (const [name, version] of Object.entries({ ...manifest.dependencies, ...manifest.devDependencies })) {
    const locked = packages.find(({ path }) => path === `node_modules/${name}`);
    assert.equal(locked?.version, version, name);
  }
});

it('every npm package has a licence that we accept, and every accepted licence is in use', () => {
  const accepted = (isDev: boolean) => [...acceptedLicences, ...(isDev ? acceptedForDevelopment : [])];
  const refused = packages.filter(({ licence, isDev }) => licence === undefined || !accepted(isDev).includes(licence));
  assert.deepEqual(
    refused.map(({ name, licence }) => `${name}: ${licence}`),
    [],
  );
  const used = new Set(packages.map(({ licence }) => licence ?? 'none'));
  assert.deepEqual([...used].sort(), accepted(true).sort());
});

it('no npm package has a script for its installation but those we know, and none of them ever runs', async () => {
  const names = packages.filter(({ hasInstallScript }) => hasInstallScript).map(({ name }) => name);
  assert.deepEqual(names.sort(), packagesWithScripts);
  const installer = await readFile(join(repo, 'podvm'), 'utf8');
  const installs = installer.split('\n').filter((line) => /\bnpm (ci|install|i)\b/.test(line));
  assert.ok(installs.length > 0);
  for (const line of installs) assert.match(line, /--ignore-scripts/);
});

it('the installed packages are those of the lock, with the licences that it names', async () => {
  let installed = 0;
  for (const { path, version, licence, isOptional, name } of packages) {
    const text = await readFile(join(repo, path, 'package.json'), 'utf8').catch(() => undefined);
    assert.ok(text !== undefined || isOptional, `${name} is not installed`);
    if (text === undefined) continue;
    installed += 1;
    const found = JSON.parse(text) as { readonly version: string; readonly license?: string };
    assert.deepEqual([found.version, found.license], [version, licence], name);
  }
  assert.ok(installed > 30);
});

it('docs/licences.md has the list as it is', async () => {
  const page = await readFile(join(repo, 'docs/licences.md'), 'utf8');
  assert.ok(page.includes(describeLicences(packages)), 'print it again: `node tools/lock.ts`');
});
