import { build } from 'esbuild';
import { basename, join } from 'node:path';

/** A file that pages load. */
export interface Asset {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** Bundles the script and style of the pages. Large parts that only some pages use are scripts of their own. */
export async function bundleClient(
  repo: string,
): Promise<{ readonly assets: readonly Asset[]; readonly inputs: readonly string[] }> {
  const client = join(repo, 'src/dashboard/client');
  const { outputFiles, metafile } = await build({
    absWorkingDir: repo,
    entryPoints: [join(client, 'main.tsx'), join(client, 'main.css'), join(client, 'icon.svg')],
    outdir: join(repo, 'assets'),
    write: false,
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    platform: 'browser',
    target: 'es2023',
    loader: { '.svg': 'copy' },
    tsconfig: join(repo, 'tsconfig.dashboard.json'),
    legalComments: 'none', // a release has all licences in one file
    metafile: true,
    logLevel: 'silent',
  });
  const assets = outputFiles.map(({ path, contents }) => ({ name: basename(path), bytes: contents }));
  return { assets, inputs: Object.keys(metafile.inputs) };
}
