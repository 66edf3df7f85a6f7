import { join } from 'node:path';
import { missingHostTools, readHostTools } from './host-tools.ts';
import { readCurrent, readReady } from './setup.ts';

/** A fact that `podvm doctor` reports about set-up. */
export interface SetupFact {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
  readonly fix?: string;
}

/** Host tools and assets: present ones, missing ones and how to get them. Changes nothing. */
export async function describeSetup(root: string, repo: string): Promise<readonly SetupFact[]> {
  const parts = await describeAssets(root, repo);
  // Tools that only make parts are not needed where the parts exist.
  const tools = (await readHostTools()).filter(({ makesParts, forUsers }) => !forUsers && (!makesParts || !parts.ok));
  const missing = new Set((await missingHostTools(tools)).map((tool) => tool.package));
  return [
    ...tools.map((tool) =>
      missing.has(tool.package)
        ? {
            name: tool.package,
            ok: false,
            detail: `missing: ${tool.purpose}`,
            fix: `Run \`apt-get install --no-install-recommends ${tool.package}\`.`,
          }
        : { name: tool.package, ok: true, detail: tool.purpose },
    ),
    parts,
  ];
}

async function describeAssets(root: string, repo: string): Promise<SetupFact> {
  const fix = 'Run `podvm setup`.';
  const current = await readCurrent(root);
  if (current === undefined) return { name: 'assets', ok: false, detail: `none in ${join(root, 'assets')}`, fix };
  const detail = `QEMU ${current.qemuVersion}, kernel ${current.kernelVersion}, crun ${current.crunVersion}`;
  return (await readReady({ root, repo })) === undefined
    ? { name: 'assets', ok: false, detail: `${detail}; not those of this version of podvm, or incomplete`, fix }
    : { name: 'assets', ok: true, detail };
}
