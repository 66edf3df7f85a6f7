import type { Assets } from '#host/assets.ts';
import { createProgress } from '#setup/progress.ts';
import { type SetupOptions, ensureSetup, upgradeSetup } from '#setup/setup.ts';
import type { Configuration } from './configuration.ts';

type Write = (line: string) => void;

const optionsOf = ({ root, repo, mirror }: Configuration, write: Write): SetupOptions => ({
  root,
  repo,
  ...(mirror === undefined ? {} : { mirror }),
  progress: createProgress(write),
  signal: new AbortController().signal,
});

/** What set-up made, made now if it is not there. */
export async function ensureAssets(config: Configuration, write: Write): Promise<Assets> {
  return await ensureSetup(optionsOf(config, write));
}

/** `podvm setup`: returns what to print. */
export async function setupCommand(config: Configuration, upgrade: boolean, write: Write): Promise<string> {
  if (!upgrade) {
    const assets = await ensureAssets(config, write);
    return `ready: QEMU ${assets.qemuVersion}, guest kernel ${assets.kernelVersion}, crun ${assets.crunVersion}\n`;
  }
  const { changes } = await upgradeSetup(optionsOf(config, write));
  if (changes.length === 0) return 'nothing newer\n';
  return changes.map(({ package: name, from, to }) => `${name}: ${from ?? 'none'} -> ${to ?? 'none'}\n`).join('');
}
