import { once } from 'node:events';
import { mkdir, mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { defaultEnv } from '#host/process/run.ts';
import { startChild } from '#host/process/start-child.ts';
import { shell, writeConfig } from '../../bundle.ts';
import { crunCommands, firstWorking } from '../../crun.ts';
import { unpackLayout } from '../../unpack-layout.ts';
import type { Field } from '../field.ts';
import type { Contestant } from '../table.ts';
import type { Row, Values } from './row.ts';

const script = 'echo first';
const commandTimeoutMs = 60_000;

/** The argv of one run of a container by that name. */
type Command = (id: string) => readonly string[];

/** Command of each, as its users type it. All of them clean up after themselves. */
export const startRow: Row = async ({ field }) => {
  const { programs, work } = field.prepared;
  const bundle = await mkdtemp(join(work, 'bundle-'));
  await unpackLayout(field.prepared.layouts.base, join(bundle, 'rootfs'));
  await writeConfig(bundle, { args: shell(script), process: { noNewPrivileges: true } });
  const runscRoot = join(work, 'runsc-run');
  await mkdir(runscRoot);
  const crun = await firstWorking(
    crunCommands.map(
      (command): Command =>
        (id) =>
          command(bundle, id),
    ),
    async (command) => await runOnce(command('versus-first'), {}),
  );
  const runsc = [programs.runsc, '--root', runscRoot, '--network=none', '--ignore-cgroups', 'run', '--bundle', bundle];
  const { ctr, runc } = programs;
  const runcOptions = ['--runc-binary', runc, '--runc-root', join(work, 'runc-run')];
  const ctrRun = [ctr, '--address', field.containerd.socket, '--namespace', 'k8s.io', 'run', '--rm', ...runcOptions];
  const podvm = podvmRun(field);
  const commands: Partial<Record<Contestant, Command>> = {
    podvm,
    cold: podvm,
    runsc: (id) => [...runsc, id],
    crun,
    ctr: (id) => [...ctrRun, field.images.base, id, ...shell(script)],
  };
  let runs = 0;
  return async (name): Promise<Values> => {
    const argv = commands[name]?.(`versus-${process.pid}-${(runs += 1)}`) ?? [];
    const root = name === 'podvm' || name === 'cold' ? field.roots[name] : undefined;
    return await runOnce(argv, root === undefined ? {} : { PODVM_ROOT: root, PODVM_BACKGROUND: 'off' });
  };
};

const podvmRun =
  (field: Field): Command =>
  (id) => [field.prepared.podvm, 'run', '--rm', '--name', id, field.images.base, ...shell(script)];

/** From the start of the command to its first byte of output, and to its end. Errors: other output, or a failure. */
async function runOnce(
  [program = '', ...args]: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Values> {
  const startedMs = performance.now();
  const child = await startChild(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...defaultEnv(), ...env },
  });
  const tooLate = setTimeout(() => child.kill('SIGKILL'), commandTimeoutMs);
  let [firstOutputMs, output, said] = [Number.NaN, '', ''];
  child.stdout?.on('data', (chunk: Buffer) => {
    if (output === '') firstOutputMs = performance.now() - startedMs;
    output += chunk.toString();
  });
  child.stderr?.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-500)));
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(tooLate);
  const commandMs = performance.now() - startedMs;
  if (code === 0 && output === 'first\n') return { firstOutputMs, commandMs };
  throw new Error(`${program} ended with ${code}, and printed ${JSON.stringify(output)}: ${said}`);
}
