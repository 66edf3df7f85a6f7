import type { Finding } from '#api/finding.ts';
import type { ExaminedContainer, ExaminedMount, Space } from '#sandbox/figures/examination.ts';

/** Age of a request from which on its file system hangs, in seconds. */
const hangsSeconds = 5;
/** Mean time of a request from which on its file system is slow, in seconds. */
const worthSeconds = 0.1;
/** Least free part of a file system. */
const worthFree = 0.1;

/** Mounts that are not as asked, and those in order as one line for each container. */
export function mountFindings({ name: container, mounts }: ExaminedContainer): readonly Finding[] {
  const name = `mounts of ${container}`;
  if ('why' in mounts) return [{ name, status: 'skip', detail: mounts.why }];
  const found = mounts.value.flatMap((mount) => faultsOf(mount).map((fault) => ({ ...fault, name })));
  if (found.some(({ status }) => status === 'fail')) return found;
  return [...found, { name, status: 'ok', detail: `${mounts.value.length} as asked` }];
}

type Fault = Omit<Finding, 'name'>;

function faultsOf({ mountPath, inGuest, isWantedReadOnly, served }: ExaminedMount): readonly Fault[] {
  const faults: Fault[] = [];
  const fail = (what: string, fix: string) => faults.push({ status: 'fail', detail: `${mountPath} ${what}`, fix });
  if (inGuest === 'absent') {
    fail('is not mounted', 'A privileged container may have unmounted it. Restart the pod.');
  } else if (!isWantedReadOnly && inGuest === 'readOnly') {
    fail(
      'is read-only, and should be writable',
      'Its file system may have failed: see `podvm console`. Restart the pod.',
    );
  } else if (isWantedReadOnly && inGuest === 'writable') {
    fail('is writable, and should be read-only', 'A privileged container may have mounted it again. Restart the pod.');
  }
  if (served === undefined) return faults;
  const { path, server, oldestSeconds, meanSeconds, space } = served;
  if (server === 'gone') fail(`is lost: the file server of ${path} has ended`, 'Restart the pod.');
  if (server === 'stopped') {
    fail(`waits: the file server of ${path} is stopped`, 'Continue it with `kill -CONT`, or restart the pod.');
  }
  if (server === 'running' && oldestSeconds >= hangsSeconds) {
    fail(
      `waits: a request to ${path} has not been answered for ${Math.floor(oldestSeconds)} s`,
      'Look at the file system of that path on the node: its server or disk hangs.',
    );
  }
  if (server === 'running' && oldestSeconds < hangsSeconds && meanSeconds >= worthSeconds) {
    faults.push({
      status: 'warn',
      detail: `${mountPath} is slow: a request to ${path} takes ${meanSeconds.toFixed(2)} s on average`,
      fix: 'Look at the file system of that path on the node: its server or disk is slow.',
    });
  }
  if ('why' in space) {
    faults.push({
      status: 'warn',
      detail: `${mountPath}: the host's ${path} cannot be looked at: ${space.why}`,
      fix: 'Look at the file system of that path on the node: its server or disk may hang.',
    });
  } else faults.push(...spaceFaults(`${mountPath}: ${path} on the node`, space.value));
  return faults;
}

/** What a container has written outside of its volumes, against what it may. */
export function layerFinding({ name: container, layer }: ExaminedContainer): readonly Finding[] {
  const name = `disk of ${container}`;
  if ('why' in layer || layer.value === undefined) return []; // a guest that does not answer is said to
  const { bytes, limitBytes } = layer.value;
  if (limitBytes === 0) return [];
  const detail = `${mib(bytes)} of ${mib(limitBytes)} MiB written outside of volumes`;
  if (limitBytes - bytes >= worthFree * limitBytes) return [{ name, status: 'ok', detail }];
  const fix = 'Remove files, raise its limit of ephemeral-storage, or give what it writes a volume.';
  return [{ name, status: bytes >= limitBytes ? 'fail' : 'warn', detail, fix }];
}

/** Volumes that have little room left. */
export function volumeFinding(volume: string, space: Space): Finding {
  const name = 'volume';
  const [fault] = spaceFaults(volume, space);
  return fault === undefined ? { name, status: 'ok', detail: `${volume}: ${roomOf(space)}` } : { ...fault, name };
}

function spaceFaults(what: string, space: Space): readonly Fault[] {
  const { totalBytes, freeBytes, totalInodes, freeInodes } = space;
  const isShort = (free: number, total: number) => total > 0 && free < worthFree * total;
  if (!isShort(freeBytes, totalBytes) && !isShort(freeInodes, totalInodes)) return [];
  const isFull = freeBytes === 0 || (totalInodes > 0 && freeInodes === 0);
  return [
    {
      status: isFull ? 'fail' : 'warn',
      detail: `${what}: ${roomOf(space)}`,
      fix: 'Remove files, or give the volume more room.',
    },
  ];
}

const mib = (bytes: number): string => (bytes / 1024 / 1024).toFixed(1);

function roomOf({ totalBytes, freeBytes, totalInodes, freeInodes }: Space): string {
  const files = totalInodes === 0 ? '' : `, ${freeInodes} of ${totalInodes} files`;
  return `${mib(freeBytes)} of ${mib(totalBytes)} MiB free${files}`;
}
