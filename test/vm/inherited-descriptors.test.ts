import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, before, suite, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { keeperSocketsOf } from '#shim/keeper/keeper-sockets.ts';
import { type CliNode, openCliNode, repo } from './cli-node.ts';
import { whyNoVm } from './node.ts';

/**
 * Descriptors that podvm inherits from a careless service manager or shell: files, directories, pipes and sockets that
 * only root may open. With that of a directory, a jailed program would reach all files of the host.
 */
const lookMs = 5;
/** The first one is beyond those that Node closes for itself. */
const [firstGiven, lastGiven] = [30, 230];
const closeOnExec = 0o2000000;

/** The programs that must have been seen running, by their command lines. */
const programs = {
  'the VMM': /\/usr\/bin\/qemu-system-x86_64\0/,
  'a file server': /^\/files\0\/shares/,
  'the reader of images': /^\/podvm\/node\0/,
  'the keeper': /^podvm-keeper/,
} as const;

/** A shell that opens descriptors, records their targets, and becomes podvm. */
const starter = (place: string, port: number) => `#!/bin/bash
exec 20<> <(:) 21<>/dev/tcp/127.0.0.1/${port} 22<${place}/private 23<"$0"
for n in {${firstGiven}..${lastGiven}}; do
  case $((n % 4)) in 0) from=20 ;; 1) from=21 ;; 2) from=22 ;; 3) from=23 ;; esac
  eval "exec $n<&$from"
done
exec 20<&- 21<&- 22<&- 23<&-
readlink /proc/$$/fd/{${firstGiven}..${lastGiven}} >${place}/given
exec ${repo}/podvm "$@"
`;

/** Records its descriptors, and runs the plugin \`bridge\`. */
const plugin = (place: string) => `#!/bin/sh
readlink /proc/$$/fd/* >>${place}/of-plugin
exec /usr/lib/cni/bridge
`;

const bridge = 'podvm-noting';

const network = (place: string) => ({
  cniVersion: '1.0.0',
  name: 'podvm-descriptors',
  plugins: [
    {
      type: 'noting-bridge',
      bridge,
      ipam: { type: 'host-local', dataDir: join(place, 'ipam'), ranges: [[{ subnet: '10.213.77.0/28' }]] },
    },
  ],
});

const pod = (share: string) => `
apiVersion: v1
kind: Pod
metadata: { name: seen }
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
    - name: c
      image: localhost/podvm/base:latest
      command: [sh, -c, 'cat /share/file; sleep 100000']
      volumeMounts: [{ name: share, mountPath: /share }]
  volumes: [{ name: share, hostPath: { path: ${share} } }]
`;

await suite('a podvm that was started with descriptors', { skip: await whyNoVm(), timeout: 300_000 }, () => {
  let node: CliNode;
  const connections = createServer();

  before(async () => {
    node = await openCliNode({ isSetUp: true });
    connections.listen(0, '127.0.0.1');
    await once(connections, 'listening');
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await run('ip', ['link', 'delete', bridge], { okCodes: [0, 1] }); // the plugin leaves it
    connections.close();
  });

  test('passes none of them to any program, and has no inheritable ones', async () => {
    const { root } = node;
    const { port } = connections.address() as AddressInfo; // SAFE: it listens on an address
    for (const [file, text] of [
      ['starter', starter(root, port)],
      ['bin/noting-bridge', plugin(root)],
      ['net.d/10-noting.conflist', JSON.stringify(network(root))],
      ['share/file', 'shared'],
      ['config.yaml', `cniConfig: ${root}/net.d\ncniPlugins: ${root}/bin:/usr/lib/cni\n`],
      [keeperSocketsOf('shim.sock').wanted, ''],
    ] as const) {
      await mkdir(join(root, file, '..'), { recursive: true });
      await writeFile(join(root, file), text);
      await chmod(join(root, file), 0o755);
    }
    await mkdir(join(root, 'private')); // not the root directory, which bubblewrap itself opens
    const others = new Set(pids());
    const daemon = node.start(['daemon', '--config', join(root, 'config.yaml')], '', join(root, 'starter'));
    const pid = daemon.child.pid ?? 0;
    const given = await poll(() => givenIn(root), { everyMs: lookMs, signal: AbortSignal.timeout(60_000) });
    assert.deepEqual([given?.has(join(root, 'private')), given?.size], [true, 4], [...(given ?? [])].join(' '));
    // It closes them before it starts a program.
    const hasNone = async () => {
      const links = linksOf(pid);
      return links.length > 0 && !links.some((link) => given?.has(link)) ? true : undefined;
    };
    assert.equal(await poll(hasNone, { everyMs: 1, signal: AbortSignal.timeout(60_000) }), true);

    const leaks = new Set<string>();
    const seen = new Set<string>();
    const looking = new AbortController();
    const look = async () => {
      while (!looking.signal.aborted) {
        for (const each of pids().filter((one) => !others.has(one))) {
          const words = read(`/proc/${each}/cmdline`);
          for (const [name, pattern] of Object.entries(programs)) if (pattern.test(words)) seen.add(name);
          for (const link of linksOf(each))
            if (given?.has(link)) leaks.add(`${words.replaceAll('\0', ' ')} has ${link}`);
        }
        await sleep(lookMs);
      }
    };
    const looked = look();
    await daemon.shows(/ info serving /, 120_000);
    const started = await node.start(['run', '--detach', '-'], pod(join(root, 'share'))).ended;
    assert.equal(started.code, 0, started.stderr);
    const inheritable = await inheritableOf(pid);
    const stopped = await node.type(['rm', '--force', 'seen']);
    assert.equal(stopped.code, 0, stopped.stderr);
    looking.abort();
    await looked;

    assert.deepEqual([...leaks], []);
    assert.deepEqual([...seen].sort(), Object.keys(programs).sort());
    const ofPlugin = (await readFile(join(root, 'of-plugin'), 'utf8')).trim().split('\n');
    assert.ok(ofPlugin.length >= 3, 'the plugin has noted its standard streams');
    assert.deepEqual(
      ofPlugin.filter((link) => given?.has(link)),
      [],
    );
    assert.deepEqual(inheritable, []);
  });
});

function pids(): readonly number[] {
  return namesIn('/proc')
    .filter((name) => /^[0-9]+$/.test(name))
    .map(Number);
}

function read(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return ''; // it has ended
  }
}

function linksOf(pid: number): readonly string[] {
  return namesIn(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return []; // it was closed
    }
  });
}

function namesIn(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch {
    return []; // the process has ended
  }
}

/** Targets of the descriptors that the daemon's starter gave it; undefined until they are known. */
async function givenIn(root: string): Promise<ReadonlySet<string> | undefined> {
  const lines = await readFile(join(root, 'given'), 'utf8').catch(() => '');
  const links = lines.split('\n').filter((line) => line !== '');
  return links.length === lastGiven - firstGiven + 1 ? new Set(links) : undefined;
}

/** Descriptors that a program which the process starts would have. */
async function inheritableOf(pid: number): Promise<readonly string[]> {
  const fds = await readdir(`/proc/${pid}/fdinfo`);
  assert.ok(fds.length > 10);
  const isInheritable = (fd: string) => {
    const flags = /^flags:\s*([0-7]+)$/m.exec(read(`/proc/${pid}/fdinfo/${fd}`))?.[1];
    return flags !== undefined && (Number.parseInt(flags, 8) & closeOnExec) === 0;
  };
  return fds.filter(isInheritable).sort();
}
