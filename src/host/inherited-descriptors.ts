import { closeSync, readdirSync, readFileSync } from 'node:fs';

const closeOnExec = 0o2000000;
let isDone = false;

/**
 * Closes what our own starter left open for us beside the standard streams: programs that we start would inherit it, and
 * a jailed one is to have nothing but what it is given. Of ours, all are close-on-exec (libuv opens no others), so one
 * look is enough, before anything else is opened.
 */
export function closeInheritedDescriptors(): void {
  if (isDone) return;
  isDone = true;
  for (const fd of readdirSync('/proc/self/fd').map(Number)) {
    if (fd > 2 && isInheritable(fd)) closeSync(fd);
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
