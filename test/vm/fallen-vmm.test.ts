import assert from 'node:assert/strict';
import { once } from 'node:events';
import { globSync } from 'node:fs';
import { copyFile, link, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { netnsPath } from '#network/netns.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Sandbox } from '#sandbox/sandbox.ts';
import { runInBuildRoot } from '#setup/parts/build-root.ts';
import type { MachineSpec } from '#vm/driver.ts';
import { jailOf } from '#vm/qemu/qemu-driver.ts';
import { Templates } from '#vm/qemu/template/templates.ts';
import { spawnVmm } from '#vm/qemu/jail/spawn-vmm.ts';
import { type Node, openNode, readAssets, templatesDirectory, whyNoVm } from './node.ts';

/**
 * A VMM that its guest has taken over: `test/attacks/fallen-vmm.c`, started in the jail of a real sandbox, as its user,
 * in its network namespace, beside its real VMM, with a real neighbour. QEMU's own seccomp filter, which such a VMM
 * would have as well, is missing: only the jail refuses the attacks.
 */
const skip = await whyNoVm();
const minute = () => AbortSignal.timeout(60_000);
const image = 'localhost/podvm/base:latest';

/** Attacks that must succeed without a jail; otherwise their failure in one would prove nothing. */
const attacksThatAre = [
  ...['scratch.ext4', 'console.log', 'vmm.log', '../sandbox.json', '../logs', 'sockets'].map(
    (file) => `read-neighbours:${file}`,
  ),
  ...['/etc/shadow', '/root', '/proc/self/status', '/sys/kernel', 'state-directory'].map((path) => `read-host:${path}`),
  ...['connect:admin-socket', 'connect:abstract-socket-of-host', 'enter:netns-of-neighbour'],
  ...['socket:inet', 'socket:inet6', 'socket:netlink', 'socket:packet'],
  ...['signal:neighbour', 'signal:by-descriptor'],
  ...['process:fork', 'process:clone', 'process:new-user-namespace'],
  ...['namespace:mount', 'namespace:net', 'namespace:user'],
];

/** RLIMIT_NPROC of the jail. */
const mostThreads = 1024;

describe('a VMM that its guest has taken over', { skip, timeout: 300_000 }, () => {
  let node: Node;
  let victim: Sandbox;
  let attacker: Sandbox;
  let directory: string;
  const specs = new Map<string, MachineSpec>();

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-attack-');
    node = await openNode({
      around: (parts) => ({
        ...parts,
        driver: {
          ...parts.driver,
          start: (spec, signal) => {
            specs.set(spec.id, spec);
            return parts.driver.start(spec, signal);
          },
        },
      }),
    });
    [victim, attacker] = (await Promise.all(
      ['victim', 'attacker'].map((name) => node.sandboxes.run({ ...sandboxSpec, name }, minute())),
    )) as [Sandbox, Sandbox]; // SAFE: two names
    const command = ['sleep', '1000'];
    for (const sandbox of [victim, attacker]) {
      const container = await sandbox.createContainer({ ...containerSpec, image, command }, minute());
      await container.start(minute());
    }
    await compile(directory);
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
    assert.deepEqual(await node.leftovers(), []);
  });

  const specOf = (sandbox: Sandbox): MachineSpec => specs.get(sandbox.id) ?? assert.fail('it never started');

  /** Arguments of the attacks: paths and ids of all targets. */
  const knowledge = (adminSocket: string, abstractSocket: string) => [
    specOf(victim).directory,
    String(victim.status.vmmPid),
    netnsPath(victim.id),
    node.directory,
    adminSocket,
    abstractSocket,
  ];

  /** Starts the attacker in the jail of its VMM, and returns its output. */
  const attackFromTheJail = async (words: readonly string[]): Promise<string> => {
    const spec = specOf(attacker);
    const assets = (await readAssets()) ?? assert.fail('no assets');
    const options = { assets, accelerator: 'tcg', templates: templatesDirectory } as const;
    const { memoryMiB, vcpus } = spec;
    const shape = { memoryMiB, vcpus, hasNic: spec.tap !== undefined };
    const template = (await new Templates(templatesDirectory, options).find(shape)) ?? assert.fail('no template');
    const jail = await jailOf(options, spec, { kind: 'restore', template }, minute());
    // Owned by root and set-uid, in the one place of the host that its VMM sees: running it must not give root's rights.
    const program = join(spec.directory, 'fallen-vmm');
    await copyFile(join(directory, 'fallen-vmm'), program);
    await run('chmod', ['4755', program]);
    await link(join(spec.directory, 'image-0.erofs'), join(spec.directory, 'image.erofs'));
    const log = join(directory, 'attack.log');
    const { ended } = await spawnVmm(jail, ['/machine/fallen-vmm', ...words], log);
    const end = await ended;
    const said = await readFile(log, 'utf8');
    assert.equal(end, 0, said);
    return said;
  };

  test('cannot read, change, reach, signal, trace or become anything else: each attack fails', async (t) => {
    const adminSocket = join(node.directory, 'admin.sock');
    const abstractSocket = `podvm-attack-${process.pid}`;
    await using undo = new AsyncDisposableStack();
    for (const path of [adminSocket, `\0${abstractSocket}`]) {
      const server = createServer((socket) => socket.destroy()).listen(path);
      undo.defer(() => new Promise<void>((resolve) => void server.close(() => resolve())));
      await once(server, 'listening');
    }
    const words = knowledge(adminSocket, abstractSocket);

    const { stdout } = await run(join(directory, 'fallen-vmm'), [...words, 'control']);
    const outside = resultsOf(stdout);
    const harmless = attacksThatAre.filter((name) => outside.get(name) !== 'done');
    assert.deepEqual(harmless, [], 'these fail without a jail, and so prove nothing');

    const said = await attackFromTheJail(words);
    const { uid } = specOf(attacker);
    assert.match(said, new RegExp(`^uid ${uid} euid ${uid} gid ${uid}$`, 'm'));
    const inside = resultsOf(said);
    assert.ok(inside.size > attacksThatAre.length, said);
    for (const name of attacksThatAre) assert.ok(inside.has(name), name);
    assert.deepEqual(
      [...inside].filter(([, result]) => result === 'done'),
      [],
      said,
    );
    const threads = Number(/^threads (\d+)$/m.exec(said)?.[1]);
    assert.ok(threads > 0 && threads < mostThreads, `${threads} threads`);
    assert.match(said, /^end$/m);
    t.diagnostic(`${inside.size} attacks failed`);
  });

  test('both sandboxes continue unaffected', async () => {
    for (const sandbox of [victim, attacker]) {
      assert.equal(sandbox.status.state, 'ready');
      assert.ok((await sandbox.stats(minute())).pids > 0);
    }
  });
});

async function compile(workDir: string): Promise<void> {
  const { sysroot } = (await readAssets()) ?? assert.fail('no assets');
  const parts = join(sysroot, '../..'); // set-up's parts lie side by side
  const [buildRoot = assert.fail('no build root')] = globSync(join(parts, 'build-root-*/root'));
  await runInBuildRoot({
    buildRoot,
    workDir,
    program: 'gcc',
    args: ['-std=gnu17', '-Wall', '-Wextra', '-Werror', '-O1', '-static', '-o', 'fallen-vmm', '/attacks/fallen-vmm.c'],
    readOnly: { '/attacks': join(import.meta.dirname, '../attacks') },
    signal: minute(),
  });
}

/** The result of each attack by its name: `done`, or the reason for failure. */
function resultsOf(said: string): ReadonlyMap<string, string> {
  return new Map(
    [...said.matchAll(/^([a-z-]+:\S+|[a-z]+-[a-z]+) (\S+)$/gm)].map(([, name = '', how = '']) => [name, how]),
  );
}
