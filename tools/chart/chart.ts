import { createHash } from 'node:crypto';
import { glob, readFile } from 'node:fs/promises';
import { join } from 'node:path';

const repo = join(import.meta.dirname, '../..');
export const chartDirectory = join(repo, 'deploy/helm/podvm');
/** The chart with its defaults, rendered by Helm. */
export const plainManifests = join(repo, 'deploy/podvm.yaml');

/** First lines of the plain manifests, which name their chart. */
export async function headOf(chart: string): Promise<string> {
  const hash = createHash('sha256');
  for (const file of (await Array.fromAsync(glob('**/*', { cwd: chart }))).toSorted()) {
    if (/\.\w+$/.test(file)) hash.update(`${file}\n`).update(await readFile(join(chart, file)));
  }
  return `# Made by \`npm run chart\` from deploy/helm/podvm, with its defaults.\n# Digest of the chart: sha256:${hash.digest('hex')}\n`;
}
