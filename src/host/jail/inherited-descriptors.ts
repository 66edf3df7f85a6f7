import { closeSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';

const closeOnExec = 0o2000000;
let isDone = false;

/**
 * Closes descriptors other than the standard streams that the parent left open, so that jailed programs do not inherit
 * them. Descriptors of this process are all close-on-exec (libuv opens no others), so one pass at the start is enough.
 * `readByNode`: path of a file that Node reads at its start in a thread, with a descriptor that is not close-on-exec
 * (NODE_EXTRA_CA_CERTS); Node closes it.
 */
export function closeInheritedDescriptors(readByNode?: string): void {
  if (isDone) return;
  isDone = true;
  const kept = readByNode === undefined ? undefined : orUndefined(() => realpathSync(readByNode));
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    if (fd <= 2 || !isInheritable(fd)) continue;
    if (kept !== undefined && orUndefined(() => readlinkSync(`/proc/self/fd/${fd}`)) === kept) continue;
    orUndefined(() => closeSync(fd)); // EBADF: Node has closed it
  }
}

function orUndefined<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}

function isInheritable(fd: number): boolean {
  let text: string;
  try {
    text = readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
  } catch {
    return false; // the descriptor of the listing itself
  }
  const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(text)?.[1] ?? '0', 8);
  return (flags & closeOnExec) === 0;
}
