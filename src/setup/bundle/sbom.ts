import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { basename, join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { Enums, Models, Serialize, Spec, SPDX } from '@cyclonedx/cyclonedx-library';
import { PackageURL } from 'packageurl-js';
import { PodvmError } from '#base/errors.ts';
import type { Assets } from '#host/assets.ts';
import { isThere } from '#host/file/files.ts';
import { bundledPackages } from '#host/program-files.ts';
import { readNpmLock } from './npm-lock.ts';
import { type PackageRecord, readPackages } from '../parts/package-record.ts';
import { readCurrent } from '../setup.ts';

/** Debian 13, in purl's type `deb`. */
const distro = 'debian-13';

export interface SbomOptions {
  readonly root: string;
  readonly repo: string;
  /** Version of podvm. */
  readonly version: string;
  /** Time of creation; default: now. */
  readonly date?: Date;
}

/**
 * Lists what set-up installed, as CycloneDX 1.6 in JSON: Debian packages of sysroot, build root and guest kernel,
 * crun's source, Node and npm packages as npm installed them, and the files made from them. Components that are not
 * used when a pod runs (compiler, development packages) have the scope `excluded`. Errors: `failedPrecondition` before
 * set-up.
 */
export async function makeSbom({ root, repo, version, date = new Date() }: SbomOptions): Promise<string> {
  const current = await readCurrent(root);
  if (current === undefined) {
    throw new PodvmError('failedPrecondition', `Cannot list what set-up installed: nothing is installed in ${root}`, {
      fix: 'Run `podvm setup`.',
    });
  }
  const itself = new Models.Component(Enums.ComponentType.Application, 'podvm', {
    version,
    bomRef: 'podvm',
    licenses: licencesOf(['Apache-2.0']),
  });
  const bom = new Models.Bom({ metadata: new Models.Metadata({ timestamp: date, component: itself }) });
  for (const part of current.parts) {
    const name = basename(part).replace(/-[0-9a-f]{16}$/, '');
    for (const record of await readPackages(part)) bom.components.add(debianComponent(name, record));
  }
  for (const component of [...(await npmComponents(repo)), ...(await madeFiles(current))])
    bom.components.add(component);
  for (const { bomRef } of bom.components) itself.dependencies.add(bomRef);
  const serializer = new Serialize.JsonSerializer(new Serialize.JSON.Normalize.Factory(Spec.Spec1dot6));
  return `${serializer.serialize(bom, { sortLists: true, space: 2 })}\n`;
}

function debianComponent(part: string, record: PackageRecord): Models.Component {
  const { name, version, architecture, sha256, licences } = record;
  const purl = new PackageURL('deb', 'debian', name, version, { arch: architecture, distro }).toString();
  const isLinked = architecture === 'source' || name.startsWith('lib'); // agent, file server and crun are made from these
  return new Models.Component(Enums.ComponentType.Library, name, {
    version,
    purl,
    bomRef: `${part}:${purl}`,
    scope: part === 'build-root' && !isLinked ? Enums.ComponentScope.Excluded : Enums.ComponentScope.Required,
    licenses: licencesOf(licences),
    hashes: hashesOf(sha256 === undefined ? [] : [[Enums.HashAlgorithm['SHA-256'], sha256]]),
    properties: propertiesOf({ part }),
  });
}

async function npmComponents(repo: string): Promise<readonly Models.Component[]> {
  const bundled = join(repo, bundledPackages);
  const packages = await readNpmLock(
    (await isThere(bundled)) ? bundled : join(repo, 'node_modules/.package-lock.json'),
  );
  return packages.map(({ path, name: fullName, version, integrity, licence, isDev }) => {
    const [group, name = ''] = fullName.startsWith('@') ? fullName.split('/') : [undefined, fullName];
    const sha512 = /^sha512-([A-Za-z0-9+/=]+)$/.exec(integrity ?? '')?.[1];
    return new Models.Component(Enums.ComponentType.Library, name, {
      ...(group === undefined ? {} : { group }),
      version,
      purl: new PackageURL('npm', group, name, version).toString(),
      bomRef: `npm:${path}`,
      scope: isDev ? Enums.ComponentScope.Excluded : Enums.ComponentScope.Required,
      licenses: licencesOf(licence === undefined ? [] : [licence]),
      hashes: hashesOf(
        sha512 === undefined ? [] : [[Enums.HashAlgorithm['SHA-512'], Buffer.from(sha512, 'base64').toString('hex')]],
      ),
      properties: propertiesOf({ part: 'npm' }),
    });
  });
}

/** Files that set-up made, identified by their hash alone. */
async function madeFiles(assets: Assets): Promise<readonly Models.Component[]> {
  const { kernel, initramfs, modules, fileServer, plugin, kernelVersion, crunVersion, agent } = assets;
  const files = [
    { path: kernel, name: 'vmlinux', version: kernelVersion, about: "the guest's kernel, unpacked" },
    {
      path: initramfs,
      name: 'initramfs.img',
      version: agent,
      about: `the agent, crun ${crunVersion} and kernel modules`,
    },
    { path: modules, name: 'modules.erofs', version: kernelVersion, about: 'kernel modules that pods may ask for' },
    { path: fileServer, name: 'files', version: agent, about: 'the file server of shared volumes' },
    ...(plugin === undefined ? [] : [{ path: plugin, name: basename(plugin), version: agent, about: "QEMU's plugin" }]),
  ];
  return await Promise.all(
    files.map(
      async ({ path, name, version, about }) =>
        new Models.Component(Enums.ComponentType.File, name, {
          version,
          description: about,
          bomRef: `file:${name}`,
          hashes: hashesOf([[Enums.HashAlgorithm['SHA-256'], await sha256Of(path)]]),
          properties: propertiesOf({ part: basename(join(path, '..')).replace(/-[0-9a-f]{16}$/, '') }),
        }),
    ),
  );
}

async function sha256Of(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

const hashesOf = (hashes: readonly Models.Hash[]) => new Models.HashDictionary(hashes);

const propertiesOf = ({ part }: { readonly part: string }) =>
  new Models.PropertyRepository([new Models.Property('podvm:part', part)]);

/** SPDX ids where Debian's name has one, otherwise the name. An expression stands alone. */
function licencesOf(names: readonly string[]): Models.LicenseRepository {
  const [only] = names;
  if (names.length === 1 && only !== undefined && /^\(.+\)$/.test(only)) {
    return new Models.LicenseRepository([new Models.LicenseExpression(only)]);
  }
  return new Models.LicenseRepository(
    names.map((name) => {
      const id = SPDX.fixupSpdxId(spdxNameOf(name));
      return id === undefined ? new Models.NamedLicense(name) : new Models.SpdxLicense(id);
    }),
  );
}

/** Debian's names of GNU licences mark "or later" with a plus, and omit ".0" (copyright-format/1.0). */
export function spdxNameOf(debian: string): string {
  if (debian === 'Expat') return 'MIT';
  const [, family, major, minor = '0', plus] = /^(A?GPL|LGPL)-(\d)(?:\.(\d))?(\+)?$/.exec(debian) ?? [];
  if (family === undefined) return debian;
  return `${family}-${major}.${minor}-${plus === undefined ? 'only' : 'or-later'}`;
}
