import { type FileHandle, open, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { PodvmError } from '#base/errors.ts';
import { guestText } from '#base/guest-text.ts';
import { lockFile } from '#host/file/file-lock.ts';
import { isThere, readFileIfThere } from '#host/file/files.ts';
import { isServed } from '#host/socket/is-served.ts';
import { entryPoint, programDirectory } from '#host/program-files.ts';
import { run } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import { poll } from '#host/wait.ts';
import { createProgress } from '#setup/progress.ts';
import { backgroundLogPath, findBackgroundNode } from './background-node.ts';
import type { Configuration } from '../configuration/configuration.ts';
import { makeStateDirectory } from '../rootless/run-inside.ts';
import { placeOfNode } from '../rootless/user-scope.ts';
import { settings } from '../configuration/settings.ts';
import { ensureAssets, templateTask } from '../setup-command.ts';

const lookEveryMs = 20;
const tailLines = 10;
const serviceName = 'podvm.service';
/** Directory that exists if systemd is the init process (sd_booted(3)). */
const systemdDirectory = '/run/systemd/system';

/**
 * Makes sure that one node serves the state directory in the background, even if two callers ask at a time. Set-up runs
 * in this process, so that its output is visible. An abort of `signal` ends the wait, but not a node that is starting.
 * Errors: those of set-up, `unavailable` with the last lines of its log, `cancelled`.
 */
export async function startBackground(
  config: Configuration,
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<void> {
  await ensureAssets(config, write, signal);
  if (process.getuid?.() !== 0) await makeStateDirectory(config.root);
  await using file = await open(join(config.root, 'start.lock'), 'a', 0o600);
  const progress = createProgress(write);
  await progress.during('starting its node in the background', async () => {
    const lock = async () => ((await lockFile(file)) ? true : undefined);
    await poll(lock, { everyMs: lookEveryMs, slowestMs: 200, signal });
    signal.throwIfAborted();
    if (await isServed(config.socketPath)) return;
    if (await startService(config)) return;
    await startProcess(config, write, signal);
  });
}

/** Starts the service if it is enabled. Without it, the node ends when it is idle. */
async function startService({ root }: Configuration): Promise<boolean> {
  if (root !== settings.root.default || !(await isThere(systemdDirectory))) return false;
  const { stdout } = await run('systemctl', ['is-enabled', serviceName], { okCodes: [0, 1, 4] });
  if (stdout.trim() !== 'enabled') return false;
  await run('systemctl', ['start', serviceName], { timeoutMs: 300_000 }).catch((cause: unknown) => {
    throw new PodvmError('unavailable', `Cannot start ${serviceName}`, {
      cause,
      fix: `See \`journalctl -u ${serviceName}\`, or run this command with --no-daemon.`,
    });
  });
  return true;
}

async function startProcess(config: Configuration, write: (line: string) => void, signal: AbortSignal): Promise<void> {
  const path = backgroundLogPath(config);
  const begin = await endOf(path);
  await using log = await open(path, 'a', 0o600);
  const args = [join(programDirectory, entryPoint('src/main')), '--root', config.root, 'daemon', '--background'];
  // In its own session: it outlives the terminal, and Ctrl-C in it.
  const place = await placeOfNode();
  const [program = '', ...words] = [...place.words, process.execPath, ...process.execArgv, ...args];
  const child = await startChild(program, words, {
    failing: 'Cannot start the node in the background',
    env: place.env,
    cwd: '/',
    detached: true,
    stdio: ['ignore', log.fd, log.fd],
  });
  child.unref();
  await using reader = await open(path, 'r');
  const tell = progressTeller(reader, begin, write);
  const isReady = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return 'ended';
    const found = await findBackgroundNode(config);
    await tell();
    // An ordinary user's node is in namespaces, which our child has entered for it.
    return found !== undefined && [found.pid, found.parent].includes(child.pid) ? 'ready' : undefined;
  };
  const found = await poll(isReady, { everyMs: lookEveryMs, slowestMs: 200, signal });
  signal.throwIfAborted();
  if (found === 'ready') return;
  const text = (await readFileIfThere(path)) ?? '';
  const said = Buffer.from(text).subarray(begin).toString('utf8').trimEnd().split('\n');
  throw new PodvmError('unavailable', 'Cannot start the node in the background: it ended at once', {
    fix: `See ${path}; \`podvm doctor\` checks this host, and --no-daemon runs the pods in this command.`,
    tail: said.slice(-tailLines).map(guestText),
  });
}

/** Returns what writes the lines of progress that the node has added to its log, from `at` on. */
function progressTeller(log: FileHandle, at: number, write: (line: string) => void): () => Promise<void> {
  const bytes = Buffer.alloc(64 * 1024);
  return async () => {
    const { bytesRead } = await log.read(bytes, 0, bytes.length, at);
    const whole = bytes.subarray(0, bytes.subarray(0, bytesRead).lastIndexOf('\n') + 1);
    at += whole.length;
    for (const line of whole.toString('utf8').split(/(?<=\n)/)) if (progressLine.test(line)) write(line);
  };
}
const progressLine = new RegExp(`^podvm: (?:still )?${templateTask}`);

const maxOldLogBytes = 1024 * 1024;

/** Returns the size of the log, after emptying it if it has become large. */
async function endOf(path: string): Promise<number> {
  const size = await stat(path).then(
    (found) => found.size,
    () => 0,
  );
  if (size <= maxOldLogBytes) return size;
  await truncate(path);
  return 0;
}
