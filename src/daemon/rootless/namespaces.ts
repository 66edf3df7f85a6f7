import { once } from 'node:events';
import { type FileHandle, open, readFile, readlink, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import * as v from 'valibot';
import { messageOf, PodvmError } from '#base/errors.ts';
import { cgroupRoot } from '#host/cgroup/cgroup-tree.ts';
import { lockFile } from '#host/file/file-lock.ts';
import { isThere, readFileIfThere, replaceFile } from '#host/file/files.ts';
import {
  allPids,
  identify,
  isRunning,
  killProcess,
  type ProcessIdentity,
  processIdentitySchema,
} from '#host/process/process-identity.ts';
import { defaultEnv, run, tailOf } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import { poll } from '#host/wait.ts';
import { findOrphans } from '#sandbox/recovery/orphans.ts';
import { isLocked } from '#sandbox/recovery/lock.ts';
import { enterLeaf, findDelegation, giveBack, makeRoom } from './delegated-cgroup.ts';
import { makingScript } from './making-script.ts';

/**
 * The namespaces of an ordinary user, in which podvm is root: of users (the user is root, subordinate ids follow), mounts and
 * network, and of cgroups if one is delegated. A process that sleeps, the *holder*, keeps them for the next node; pasta connects their network to the host's. They
 * end with the last process that uses them, unless machines have outlived their node.
 */
export interface Namespaces extends AsyncDisposable {
  /** Process whose namespaces they are. */
  readonly holder: number;
  /** Whether a delegated cgroup is the root of cgroups in them. */
  readonly hasCgroup: boolean;
}

const recordSchema = v.object({
  holder: processIdentitySchema,
  pasta: v.exactOptional(processIdentitySchema),
  /** Path of the delegated cgroup. */
  cgroup: v.exactOptional(v.pipe(v.string(), v.startsWith(`${cgroupRoot}/`))),
});
type Made = v.InferOutput<typeof recordSchema>;

const recordPath = (root: string) => join(root, 'namespaces.json');
const lookEveryMs = 20;
const makingMs = 30_000;

/**
 * Enters the list of users of the namespaces of a state directory, and makes them if there are none. Errors:
 * `failedPrecondition`, with what the host lacks; `cancelled`.
 */
export async function openNamespaces(
  root: string,
  write: (line: string) => void,
  signal: AbortSignal,
): Promise<Namespaces> {
  await using undo = new AsyncDisposableStack();
  const users = undo.use(await open(join(root, 'namespaces.users'), 'a', 0o600));
  await using _lock = await lockChanges(root, signal);
  await poll(async () => ((await lockFile(users, 'shared')) ? true : undefined), { everyMs: lookEveryMs, signal });
  signal.throwIfAborted();
  const last = await readMade(root);
  const isLeft = last !== undefined && (await isRunning(last.holder));
  if (!isLeft) await endLeftOvers(root, last);
  const made = isLeft ? last : await make(root, write);
  undo.move();
  const { cgroup } = made;
  // Where the user may not move this process there, the node says that its machines have no limits.
  if (cgroup !== undefined) await enterLeaf(cgroup).catch(() => undefined);
  return {
    holder: made.holder.pid,
    hasCgroup: cgroup !== undefined,
    [Symbol.asyncDispose]: () => leave(root, made, users),
  };
}

/** Only its holder makes or ends the namespaces. */
async function lockChanges(root: string, signal: AbortSignal): Promise<FileHandle> {
  const file = await open(join(root, 'namespaces.lock'), 'a', 0o600);
  await poll(async () => ((await lockFile(file)) ? true : undefined), { everyMs: lookEveryMs, slowestMs: 200, signal });
  if (!signal.aborted) return file;
  await file.close();
  throw new PodvmError('cancelled', 'Cannot enter the namespaces of this user: cancelled');
}

async function readMade(root: string): Promise<Made | undefined> {
  const found = await readFileIfThere(recordPath(root));
  if (found === undefined) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), recordSchema), found);
  return parsed.success ? parsed.output : undefined;
}

/** The delegated cgroup of the last namespaces, if they have one, and whether these exist; undefined if there are none. */
export async function cgroupOfNamespaces(
  root: string,
): Promise<(Pick<Made, 'cgroup'> & { readonly exists: boolean }) | undefined> {
  const made = await readMade(root);
  return made && { ...made, exists: await isRunning(made.holder) };
}

/** Ends what is in namespaces whose holder was killed: no later node can enter them. */
async function endLeftOvers(root: string, last: Made | undefined): Promise<void> {
  for (const { pid } of await findOrphans(root)) {
    const machine = await identify(pid);
    if (machine !== undefined) await killProcess(machine);
  }
  if (last?.pasta !== undefined) await killProcess(last.pasta);
  if (last?.cgroup !== undefined) await giveBack(last.cgroup);
}

async function make(root: string, write: (line: string) => void): Promise<Made> {
  const delegation = await findDelegation();
  const cgroup = delegation.kind === 'delegated' ? delegation.path : undefined;
  const holder = await startHolder(root, cgroup !== undefined);
  try {
    if (cgroup !== undefined) await makeRoom(cgroup);
    const pasta = await connectToHost(root, holder.pid).catch((error: unknown) => {
      write(`podvm: WARNING: pods have no network to the outside: ${messageOf(error)}\n`);
      return undefined;
    });
    const made = { holder, ...(pasta === undefined ? {} : { pasta }), ...(cgroup === undefined ? {} : { cgroup }) };
    await replaceFile(recordPath(root), JSON.stringify(made));
    return made;
  } catch (error) {
    await killProcess(holder);
    if (cgroup !== undefined) await giveBack(cgroup);
    throw error;
  }
}

/** `hasCgroup`: the cgroup of this process becomes the root of cgroups in the namespaces. */
async function startHolder(root: string, hasCgroup: boolean): Promise<ProcessIdentity> {
  const namespaces = ['--user', '--map-root-user', '--map-auto', '--mount', '--propagation', 'slave', '--net'];
  if (hasCgroup) namespaces.push('--cgroup');
  const words = ['--', 'sh', '-ec', makingScript, 'podvm', root, hasCgroup ? 'cgroup' : ''];
  const child = await startChild('unshare', [...namespaces, ...words], {
    failing: 'Cannot make the namespaces of this user',
    cwd: '/',
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: defaultEnv(),
  });
  const { stdout, stderr, pid = 0 } = child;
  if (stdout === null || stderr === null) throw new PodvmError('internal', 'Cannot make the namespaces of this user');
  const said = text(stderr);
  // Both end when the script is over: the holder has no output.
  const isReady = await Promise.race([
    text(stdout).then((all) => all === 'ready\n'),
    once(child, 'exit', { signal: AbortSignal.timeout(makingMs) }).then(() => false),
  ]).catch(() => false);
  const identity = await identify(pid);
  child.unref();
  if (isReady && identity !== undefined) return identity;
  child.kill('SIGKILL');
  throw new PodvmError('failedPrecondition', 'Cannot make the namespaces of this user', {
    tail: tailOf(await said),
    fix: 'Run `podvm doctor`, which names what this host lacks.',
  });
}

/**
 * Connects the network with pasta, which makes connections of pods to ones of this user. It forwards nothing to the
 * loopback of the host, and no port of the host.
 */
async function connectToHost(root: string, holder: number): Promise<ProcessIdentity> {
  const pidPath = join(root, 'pasta.pid');
  await rm(pidPath, { force: true });
  const none = ['-t', '-u', '-T', '-U'].flatMap((direction) => [direction, 'none']);
  await run('pasta', ['--config-net', '--no-map-gw', ...none, '--pid', pidPath, String(holder)], {
    timeoutMs: makingMs,
  });
  const identity = await identify(Number(await readFile(pidPath, 'latin1')));
  if (identity === undefined) throw new PodvmError('unavailable', 'pasta has ended');
  return identity;
}

/** Ends the namespaces if this was their last user and no machine is in them. */
async function leave(root: string, made: Made, users: FileHandle): Promise<void> {
  await using _users = users;
  await using _lock = await lockChanges(root, AbortSignal.timeout(makingMs));
  if (!(await lockFile(users))) return;
  const sandboxes = join(root, 'sandboxes');
  if ((await isThere(sandboxes)) && ((await isLocked(sandboxes)) || (await findOrphans(root)).length > 0)) return;
  for (const identity of await processesIn(made.holder)) await killProcess(identity);
  if (made.pasta !== undefined) await killProcess(made.pasta);
  if (made.cgroup !== undefined) await giveBack(made.cgroup);
  await rm(recordPath(root), { force: true });
  await rm(join(root, 'pasta.pid'), { force: true });
  if (await isThere(join(root, 'parts'))) return;
  // `podvm uninstall --state` has removed everything else.
  for (const name of ['namespaces.lock', 'namespaces.users']) await rm(join(root, name), { force: true });
  await rmdir(root).catch(() => undefined); // the user has put files in it
}

/**
 * Processes in the network namespace of the holder, and itself; none when it was killed, as its pid may be that of a process
 * of the host then.
 */
export async function processesIn(holder: ProcessIdentity): Promise<readonly ProcessIdentity[]> {
  const networkOf = (pid: number | 'self') => readlink(`/proc/${pid}/ns/net`).catch(() => undefined);
  const wanted = await networkOf(holder.pid);
  if (wanted === undefined || wanted === (await networkOf('self')) || !(await isRunning(holder))) return [];
  const found: ProcessIdentity[] = [];
  for (const pid of await allPids()) {
    const identity = (await networkOf(pid)) === wanted ? await identify(pid) : undefined;
    if (identity !== undefined) found.push(identity);
  }
  return found;
}
