import { printable } from '#base/guest-text.ts';
import { type PartVersions, partVersionsOf } from '#host/assets.ts';
import { findRunningPods, type RunningPod } from '#sandbox/recovery/running-pods.ts';
import { createProgress } from '#setup/progress.ts';
import { readCurrent } from '#setup/setup.ts';
import type { UpdateFinding } from '#setup/update-report.ts';
import { type Configuration, updateRequestOf } from '../configuration/configuration.ts';
import type { Finding } from '#api/finding.ts';

/**
 * Reports parts that are older than in the archives, and parts that could not be checked. No verdict makes the host
 * unhealthy, because pods run with old parts.
 */
export async function updateFindings(
  config: Configuration,
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const { checkUpdates } = await import('#setup/updates/updates.ts');
  const found = await createProgress(write).during('asking the archives for newer versions', () =>
    checkUpdates(updateRequestOf(config), signal),
  );
  return found.map(findingOf);
}

export function findingOf({ subject, verdict, detail, fix }: UpdateFinding): Finding {
  const status = verdict === 'newest' ? 'ok' : 'warn';
  return { name: `updates: ${subject}`, status, detail, ...(fix === undefined ? {} : { fix }) };
}

/** Reports pods that run on other parts than the last set-up made. */
export async function podPartsFindings({ root }: Configuration): Promise<readonly Finding[]> {
  const current = await readCurrent(root);
  const pods = await findRunningPods(root);
  return current === undefined ? [] : describePodParts(pods, partVersionsOf(current));
}

export function describePodParts(pods: readonly RunningPod[], newest: PartVersions): readonly Finding[] {
  const name = 'parts of pods';
  const old = pods.filter(({ parts }) => parts?.key !== newest.key);
  if (old.length === 0) {
    return [{ name, status: 'ok', detail: pods.length === 0 ? 'no pod runs' : 'every pod runs on those of set-up' }];
  }
  return old.map(({ namespace, name: pod, parts }): Finding => {
    const detail = `${printable(namespace)}/${printable(pod)} runs on older ones: ${differences(parts, newest)}`;
    return {
      name,
      status: 'warn',
      detail,
      fix: 'Create the pod again when convenient: it then runs on the newer parts.',
    };
  });
}

function differences(parts: PartVersions | undefined, newest: PartVersions): string {
  if (parts === undefined) return 'an older podvm made it, which recorded no versions';
  const told = (['qemu', 'kernel', 'crun', 'agent'] as const)
    .filter((part) => parts[part] !== newest[part])
    .map((part) => `${part} ${parts[part]}, now ${newest[part]}`);
  return told.length > 0 ? told.join('; ') : 'the same versions of QEMU, kernel, crun and agent, with other libraries';
}
