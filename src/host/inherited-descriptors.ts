import { closeSync, readdirSync, readFileSync, readlinkSync, realpathSync } from 'node:fs';

const closeOnExec = 0o2000000;
let isDone = false;

/**
 * Closes what our own starter left open for us beside the standard streams: programs that we start would inherit it, and
 * a jailed one is to have nothing but what it is given. Of ours, all are close-on-exec (libuv opens no others), so one
 * look is enough, before anything else is opened. `readByNode`: path of a file that Node reads at its start, in a thread
 * of its own and by a descriptor that is not close-on-exec (NODE_EXTRA_CA_CERTS); it is Node's to close.
 */
export function closeInheritedDescriptors(readByNode?: string): void {
  if (isDone) return;
  isDone = true;
  const kept = readByNode === undefined ? undefined : orUndefined(() => realpathSync(readByNode));
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    if (fd <= 2 || !isInheritable(fd)) continue;
    if (kept !== undefined && orUndefined(() => readlinkSync(`/proc/self/fd/${fd}`)) === kept) continue;
    orUndefined(() => closeSync(fd)); // EBADF: Node has closed it meanwhile
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
    return false; // it was the one of the list
  }
  const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(text)?.[1] ?? '0', 8);
  return (flags & closeOnExec) === 0;
}
