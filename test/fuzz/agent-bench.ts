import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { run } from '#host/process/run.ts';
import { ports } from './agent-steps.ts';
import { ScriptedHost } from './scripted-host.ts';
import { buildRoot } from '../built-program.ts';

const repo = join(import.meta.dirname, '../..');
/** Host ids of a fuzzed agent, not used otherwise. */
const [firstId, idCount] = [1_500_000_000, 65_536];

export interface AgentBench extends AsyncDisposable {
  start(): Promise<ScriptedHost>;
}

/**
 * The real agent, compiled with address and undefined-behaviour checks, as root of namespaces without access to the
 * host: its mounts, files and connections are its own. Servers to dial run beside it.
 */
export async function openAgentBench(): Promise<AgentBench> {
  await using undo = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'podvm-agent-'));
  undo.defer(() => rm(directory, { recursive: true, force: true }));
  await run('chmod', ['0711', directory]);
  const { buildProgram } = await import('#setup/parts/build-program.ts'); // a skipped test needs no bundler
  const program = join(directory, 'agent');
  await buildProgram({
    repo,
    buildRoot,
    outFile: program,
    entry: 'src/agent/main.ts',
    calls: 'guest',
    sanitize: true,
    signal: AbortSignal.timeout(120_000),
  });
  const filter = join(directory, 'filter');
  await writeFile(filter, harmless);
  const holder = spawn('unshare', ['--user', '--net', 'sh', '-c', 'echo; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  undo.defer(() => end(holder));
  await once(holder.stdout, 'data');
  for (const map of ['uid_map', 'gid_map']) await writeFile(`/proc/${holder.pid}/${map}`, `0 ${firstId} ${idCount}\n`);
  const inside = ['--target', String(holder.pid), '--user', '--net'];
  await run('nsenter', [...inside, 'ip', 'link', 'set', 'lo', 'up']);
  await run('nsenter', [...inside, 'ip', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'far0']);
  const serve = [
    '--target',
    String(holder.pid),
    '--net',
    process.execPath,
    join(import.meta.dirname, 'echo-server.ts'),
  ];
  const servers = spawn('nsenter', serve, { stdio: ['pipe', 'pipe', 'inherit'] });
  undo.defer(() => end(servers));
  for (let up = 0; up < Object.keys(ports).length;) up += ((await once(servers.stdout, 'data')) as [Buffer])[0].length;
  const agents = new Set<ChildProcess>();
  undo.defer(async () => void (await Promise.all([...agents].map(end))));
  const start = async () => {
    await using bytes = await open(filter);
    const child = spawn('nsenter', [...inside, ...jail(program)], {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe', bytes.fd],
    });
    await once(child, 'spawn');
    agents.add(child);
    child.once('close', () => agents.delete(child));
    const host = new ScriptedHost(child, child.stdio[3] as unknown as Duplex); // SAFE: a pipe of spawn is a socket
    await host.greet();
    return host;
  };
  const owned = undo.move();
  return { start, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

async function end(child: ChildProcess): Promise<void> {
  const ended = once(child, 'close');
  child.kill('SIGKILL');
  await ended;
}

/** Arguments of the jail. The agent is not PID 1 in it, since it would boot. */
const jail = (program: string): readonly string[] => [
  ...[
    'bwrap',
    '--unshare-ipc',
    '--unshare-pid',
    '--unshare-uts',
    '--unshare-cgroup',
    '--die-with-parent',
    '--clearenv',
  ],
  ...['--proc', '/proc', '--dev', '/dev', '--tmpfs', '/run', '--tmpfs', '/tmp', '--dir', '/etc'],
  ...['--dir', '/sys/class/net/eth0', '--dir', '/sys/fs/cgroup/pod', '--ro-bind', buildRoot, buildRoot],
  ...['--ro-bind', join(buildRoot, 'usr/lib'), '/lib'], // libraries that other libraries need
  ...['--ro-bind', program, '/agent', '--seccomp', '4', '--', '/agent', '--fd', '3'],
];

/**
 * Calls that would affect the whole host are not executed, and return 0, so that the agent continues: setting the
 * clock, sync, reboot, and bytes for the random generator.
 */
const harmless = ((): Buffer => {
  const [load, ifEqual, answer, nothing, allow] = [0x20, 0x15, 0x06, 0x0005_0000, 0x7fff_0000];
  const [ioctl, addEntropy, secondArgument] = [16, 0x4008_5203, 24];
  const program = [
    [load, 0, 0, 0],
    ...[227, 162, 169].map((number, at) => [ifEqual, 6 - at, 0, number]),
    [ifEqual, 0, 2, ioctl],
    [load, 0, 0, secondArgument],
    [ifEqual, 1, 0, addEntropy],
    [answer, 0, 0, allow],
    [answer, 0, 0, nothing],
  ] as const;
  return Buffer.concat(
    program.map(([code = 0, yes = 0, no = 0, k = 0]) => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt16LE(code, 0);
      bytes.writeUInt8(yes, 2);
      bytes.writeUInt8(no, 3);
      bytes.writeUInt32LE(k, 4);
      return bytes;
    }),
  );
})();
