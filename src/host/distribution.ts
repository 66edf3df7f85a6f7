import { readFile } from 'node:fs/promises';

/** Distributions on which every release is tried (`tools/release/fresh-root.ts`), by ID and VERSION_ID of os-release(5). */
export const triedDistributions = [
  { id: 'debian 12', name: 'Debian 12' },
  { id: 'debian 13', name: 'Debian 13' },
  { id: 'ubuntu 24.04', name: 'Ubuntu 24.04' },
] as const;
export type TriedDistribution = (typeof triedDistributions)[number]['id'];

/** The host's distribution. */
export interface Distribution {
  /** Name of the distribution, such as "Debian GNU/Linux 13 (trixie)". */
  readonly name: string;
  readonly isTried: boolean;
}

/** Reads os-release(5). A host without this file has an unknown distribution. */
export async function readDistribution(file = '/etc/os-release'): Promise<Distribution> {
  return parseDistribution(await readFile(file, 'utf8').catch(() => ''));
}

export function parseDistribution(text: string): Distribution {
  const fields = new Map(
    [...text.matchAll(/^([A-Z_]+)=(["']?)(.*)\2$/gm)].map(([, name = '', , value = '']) => [name, value]),
  );
  const id = `${fields.get('ID') ?? ''} ${fields.get('VERSION_ID') ?? ''}`.trim();
  return {
    name: fields.get('PRETTY_NAME') ?? (id === '' ? 'an unknown distribution' : id),
    isTried: triedDistributions.some((tried) => tried.id === id),
  };
}
