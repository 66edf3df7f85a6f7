import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { messageOf, PodvmError } from '#base/errors.ts';
import { insideVariable } from '#host/inside-namespaces.ts';
import { entryPoint, programDirectory } from '#host/program-files.ts';
import { exitCodeOf } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { settings } from '../configuration/settings.ts';
import { requireHostNeeds } from './host-needs.ts';
import { listenFor } from './host-listeners.ts';
import { linkMachineParts } from './machine-assets.ts';
import { openNamespaces } from './namespaces.ts';

/** Signals that a terminal sends to all processes of its foreground. */
const fromTerminal: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT', 'SIGHUP'];

/**
 * Runs a podvm command line as root of the namespaces of this user, with the same terminal, environment and working
 * directory, and returns its exit code, and its output if it `isRead`. This process passes signals on, and listens on the host
 * for it. Errors: `failedPrecondition`, with what the host lacks.
 */
export async function runInside(
  { root }: Pick<Configuration, 'root'>,
  args: readonly string[],
  isRead = false,
): Promise<{ readonly code: number; readonly stdout: string }> {
  await makeStateDirectory(root);
  await using namespaces = await openNamespaces(
    root,
    (line) => process.stderr.write(line),
    new AbortController().signal,
  );
  const target = ['--target', String(namespaces.holder), '--user', '--mount', '--net', '--preserve-credentials'];
  if (namespaces.hasCgroup) target.push('--cgroup');
  // `--` as in `podvm`, the script.
  const program = [process.execPath, ...process.execArgv, '--', join(programDirectory, entryPoint('src/main'))];
  const child = await startChild('nsenter', [...target, '--', ...program, ...args], {
    failing: 'Cannot enter the namespaces of this user',
    stdio: ['inherit', isRead ? 'pipe' : 'inherit', 'inherit', 'ipc'],
    env: { ...process.env, [insideVariable]: `${process.getuid?.()}:${process.cwd()}` },
  });
  const ended = new Promise<number>((resolve) => {
    child.once('exit', (code, signal) => resolve(exitCodeOf(code, signal)));
  });
  listenFor(child);
  const hasTerminal = [process.stdin, process.stdout, process.stderr].some(({ isTTY }) => isTTY);
  for (const signal of ['SIGTERM', ...fromTerminal] as const) {
    process.on(signal, () => {
      if (!hasTerminal || !fromTerminal.includes(signal)) child.kill(signal);
    });
  }
  const stdout = child.stdout === null ? '' : await text(child.stdout);
  return { code: await ended, stdout };
}

/**
 * Makes the state directory of an ordinary user, open to the users of jails as root's is. Errors: `denied` for that of root;
 * `failedPrecondition`, with what the host lacks.
 */
export async function makeStateDirectory(root: string): Promise<void> {
  if (root === settings.root.default) {
    throw new PodvmError('denied', "Cannot do this without root: the command is for root's node", {
      fix: `Run it with sudo; \`sudo systemctl start podvm\` starts that node. A node of your own has another --root.`,
    });
  }
  await requireHostNeeds();
  try {
    if ((await mkdir(root, { recursive: true })) !== undefined) await chmod(root, 0o755); // whatever the umask
    await linkMachineParts(root);
  } catch (cause) {
    throw new PodvmError('failedPrecondition', `Cannot write to the state directory ${root}: ${messageOf(cause)}`, {
      cause,
      fix: 'Make the directory writable for this user, or choose another with --root.',
    });
  }
}
