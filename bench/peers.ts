import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf } from '#base/errors.ts';
import { run } from '#host/run.ts';
import { readCurrent } from '#setup/setup.ts';
import { makeBundle, shell, writeConfig } from './bundle.ts';

/** Another runtime, run as its users run it: one busybox container that says a line. */
export interface Peer extends AsyncDisposable {
  readonly name: string;
  /** From the shell to the first byte of output, in `ms`. */
  firstOutputMs(): Promise<number>;
  /** What a script says in its container. */
  outputOf(script: string): Promise<string>;
  /** The container's root on the host. */
  readonly rootfs: string;
}

const firstScript = 'echo first';
const scriptTimeoutMs = 300_000;

/** The argv that runs a bundle as a container of that name, in the foreground. */
type Command = (bundle: string, id: string) => readonly string[];
export type CrunCommand = Command;

export const crunCommands: readonly Command[] = [
  (bundle, id) => ['crun', '--cgroup-manager=disabled', 'run', '--bundle', bundle, id],
  // crun refuses hosts with both versions of cgroups: it is shown one of them.
  (bundle, id) => {
    const script = 'umount /sys/fs/cgroup/unified; exec crun --cgroup-manager=disabled run --bundle "$1" "$2"';
    return ['unshare', '--mount', 'sh', '-c', script, 'sh', bundle, id];
  },
];

/** How each is called on a bundle, with what else to try on hosts where the first does not run. */
const commands: Readonly<Record<string, readonly Command[]>> = {
  crun: crunCommands,
  runsc: [(bundle, id) => ['runsc', '--network=none', '--ignore-cgroups', 'run', '--bundle', bundle, id]],
};

/** The peer, or why it cannot be measured. */
export async function openPeer(name: string, root: string): Promise<Peer | string> {
  const known = commands[name];
  if (known === undefined) return `${name}: not a runtime that is known here (${Object.keys(commands).join(', ')})`;
  await using undo = new AsyncDisposableStack();
  const bundle = await makePeerBundle(root);
  undo.defer(() => rm(bundle, { recursive: true, force: true }));
  let next = 0;
  const measure = async (command: Command) => {
    next += 1;
    return await firstByteMs(command(bundle, `bench-${process.pid}-${next}`));
  };
  try {
    const command = await firstWorking(known, measure);
    const owned = undo.move();
    return {
      name,
      firstOutputMs: () => measure(command),
      async outputOf(script) {
        await runsScript(bundle, script);
        next += 1;
        const [program = '', ...args] = command(bundle, `bench-${process.pid}-${next}`);
        const { stdout } = await run(program, args, { timeoutMs: scriptTimeoutMs });
        await runsScript(bundle, firstScript);
        return stdout;
      },
      rootfs: join(bundle, 'rootfs'),
      [Symbol.asyncDispose]: () => owned.disposeAsync(),
    };
  } catch (error) {
    return `${name}: ${messageOf(error)}`;
  }
}

/** The first that works here. Errors: `AggregateError` of what each says, with the last one's words. */
export async function firstWorking(
  commands: readonly Command[],
  tryOut: (command: Command) => Promise<unknown>,
): Promise<Command> {
  const reasons: unknown[] = [];
  for (const command of commands) {
    try {
      await tryOut(command);
      return command;
    } catch (error) {
      reasons.push(error);
    }
  }
  throw new AggregateError(reasons, messageOf(reasons.at(-1)));
}

async function firstByteMs([program = '', ...args]: readonly string[]): Promise<number> {
  const startedMs = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-500)));
  const closed = once(child, 'close'); // rejects when there is no such program
  const first = await Promise.race([once(child.stdout, 'data'), closed.then(() => undefined)]);
  const ms = performance.now() - startedMs;
  await closed;
  if (first === undefined) throw new Error(`no output: ${said.trim()}`);
  return ms;
}

/** With the same static busybox as our base image has. */
async function makePeerBundle(root: string): Promise<string> {
  const assets = await readCurrent(root);
  if (assets === undefined) throw new Error('run `podvm setup` first');
  const bundle = await makeBundle('/var/tmp', join(assets.sysroot, 'usr/bin/busybox'), ['dd', 'rm']);
  await runsScript(bundle, firstScript);
  return bundle;
}

const runsScript = (bundle: string, script: string) =>
  writeConfig(bundle, { args: shell(script), process: { noNewPrivileges: true } });
