import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { fileServerCalls } from '#storage/file-server-calls.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, ContainerMount, Sandbox } from '#sandbox/sandbox.ts';
import { runInBuildRoot } from '#setup/parts/build-root.ts';
import { assetsRoot, openNode, whyNoVm, type Node } from './node.ts';

/**
 * Access to the host that a tenant gets by a share that was meant to be harmless: as root of a container that has the
 * host's root directory, and in the place of the file server, taken over (`test/attacks/fallen-files.c`). The test
 * writes nothing to files that must not be opened.
 */
const skip = await whyNoVm();
const minute = () => AbortSignal.timeout(60_000);
const image = 'localhost/podvm/base:latest';

/** Existing files of the host's kernel that its root can open for writing. */
const switches = [
  'proc/sys/kernel/core_pattern',
  'proc/sys/vm/drop_caches',
  'proc/sysrq-trigger',
  'proc/self/oom_score_adj',
  ...globSync('/sys/fs/cgroup/{,memory/,unified/}cgroup.procs').map((path) => path.slice(1)),
];

/** Attacks that must succeed without a jail; otherwise their failure in one would prove nothing. */
const attacksThatAre = [
  ...['core_pattern', 'panic'].map((name) => `write:/proc/sys/kernel/${name}`),
  ...['read:/proc/self/status', 'read:/etc/shadow', 'signal:host', 'signal:by-descriptor', 'process:fork'],
  ...['namespace:user', 'namespace:mount', 'socket:inet', 'socket:unix', 'socket:netlink'],
];

const ofHost = (path: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
  source: { kind: 'host', path, propagation: 'private' },
  mountPath: '/mnt',
  readOnly: false,
  ...more,
});

describe('a share of the host, attacked', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let sandbox: Sandbox;
  let directory: string;
  let attempts = 0;

  before(async () => {
    directory = await mkdtemp('/var/tmp/podvm-share-attack-');
    await compile(directory);
    node = await openNode();
    sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'share-hostile', network: 'none' }, minute());
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
    await rm(directory, { recursive: true });
  });

  /** Runs a script to its end, with `meanwhile` once it prints `ready`, and returns the rest of its output. */
  async function runScript(
    script: string,
    mounts: readonly ContainerMount[],
    meanwhile: (container: Container) => Promise<void> = async () => {},
  ): Promise<string> {
    const spec = { ...containerSpec, image, name: `c${(attempts += 1)}`, command: ['sh', '-c', script], mounts };
    const container = await sandbox.createContainer(spec, minute());
    const ready = Promise.withResolvers<void>();
    let said = '';
    const follower = container.follow(async ({ bytes }) => {
      said += Buffer.from(bytes).toString();
      if (said.startsWith('ready\n')) ready.resolve();
    });
    await container.start(minute());
    await Promise.race([ready.promise, container.exited]);
    await meanwhile(container);
    await container.exited;
    await follower.ended;
    await container.remove(minute());
    return said.replace(/^ready\n/, '');
  }

  test('gives no access to the host’s kernel by its root directory, read-only or not, and shows the rest', async () => {
    const go = join(directory, 'go');
    const script = `echo ready; until test -e /host${go}; do sleep 0.1; done
      for root in /host /written; do
        for name in ${switches.join(' ')}; do ( : 3<>$root/$name ) 2>/dev/null && echo "opened $root/$name"; done
        for name in proc sys dev; do echo "$name:" $(ls -A $root/$name); done; ( : >$root/proc/new ) 2>/dev/null && echo "made $root/proc/new"
        find $root/proc $root/sys $root/etc -maxdepth 1 >/dev/null && df $root >/dev/null && echo goes on
        test -s $root/etc/passwd && echo has files
      done
      ( : >/host${directory}/new ) 2>/dev/null && echo made in what is read-only
      : >/written${directory}/new && echo made`;
    const mounts = [ofHost('/', { mountPath: '/host', readOnly: true }), ofHost('/', { mountPath: '/written' })];
    const said = await runScript(script, mounts, async () => {
      const servers = await serversOf(sandbox.id);
      assert.equal(servers.length, 2);
      for (const server of servers) {
        await attackFrom(server);
        await assertConfinedAsItsMachine(server);
      }
      await writeFile(go, '');
    });
    const harmless = 'proc:\nsys:\ndev:\ngoes on\nhas files\n';
    assert.equal(said, `${harmless}${harmless}made\n`);
  });

  test('serves no kernel file system that is mounted anywhere below a share, then or later', async () => {
    const host = join(directory, 'below');
    for (const name of ['kernel', 'data', 'later', 'later-data']) await mkdir(join(host, name), { recursive: true });
    await writeFile(join(host, 'switch'), '');
    const mounted: string[] = [];
    const mount = async (words: readonly string[], at: string) => {
      await run('mount', [...words, join(host, at)]);
      mounted.push(join(host, at));
    };
    await run('mount', ['--bind', host, host]);
    await run('mount', ['--make-shared', host]);
    try {
      await mount(['-t', 'proc', 'podvm-test'], 'kernel');
      await mount(['--bind', '/proc/sys/kernel/core_pattern'], 'switch');
      await mount(['-t', 'tmpfs', 'podvm-test'], 'data');
      await mkdir(join(host, 'data/inner'));
      await mount(['--bind', '/sys'], 'data/inner');
      const itself = { ...containerSpec, image, mounts: [ofHost(join(host, 'kernel'))] };
      await assert.rejects(sandbox.createContainer(itself, minute()), {
        kind: 'unsupported',
        message: /file system type proc belongs to the host's kernel/,
      });
      const script = `cd /mnt; echo ready; until test -e later-data/file; do sleep 0.1; done; ls -A kernel data/inner
        wc -c <switch; for name in switch kernel/sys/kernel/core_pattern later/sys/kernel/core_pattern; do
          ( : 3<>$name ) 2>/dev/null && echo "opened $name"; done; ls later 2>&1; echo made >data/file; cat data/file`;
      const mounts = [ofHost(host, { source: { kind: 'host', path: host, propagation: 'hostToContainer' } })];
      const said = await runScript(script, mounts, async () => {
        await mount(['-t', 'proc', 'podvm-test'], 'later');
        await mount(['-t', 'tmpfs', 'podvm-test'], 'later-data');
        await writeFile(join(host, 'later-data/file'), '');
      });
      assert.match(said, /^data\/inner:\n\nkernel:\n0\nls: .*later.*: Permission denied\nmade\n$/);
    } finally {
      for (const point of mounted.toReversed()) await run('umount', [point]);
      await run('umount', [host]);
    }
  });

  test('keeps a kernel file system covered or refused when guest and host move, uncover and replace its mounts', async () => {
    const host = join(directory, 'moved');
    for (const name of ['above/kernel', 'below', 'bound', 'gone']) await mkdir(join(host, name), { recursive: true });
    await run('mount', ['--bind', host, host]);
    await run('mount', ['--make-shared', host]);
    try {
      for (const name of ['above/kernel', 'below', 'bound', 'gone'])
        await run('mount', ['-t', 'proc', 'podvm-test', join(host, name)]);
      await run('mount', ['-t', 'tmpfs', 'podvm-test', join(host, 'below')]);
      const places = 'moved-again/kernel below bound gone';
      const script = `cd /mnt; mv above moved
        busy=$(for name in gone bound; do mv $name other 2>&1; rmdir $name 2>&1; done | grep -c busy)
        echo ready; until test -e bound-now; do sleep 0.1; done; echo "$busy are busy"
        for name in ${places}; do
          echo "$name: $(ls -A $name 2>&1 | sed 's/.*: //')"
          for switch in sys/kernel/core_pattern fs/cgroup/cgroup.procs kernel/mm/ksm/run sysrq-trigger; do
            ( : 3<>$name/$switch ) 2>/dev/null && echo "opened $name/$switch"
          done
        done`;
      const mounts = [ofHost(host, { source: { kind: 'host', path: host, propagation: 'hostToContainer' } })];
      const said = await runScript(script, mounts, async () => {
        await run('mv', [join(host, 'moved'), join(host, 'moved-again')]);
        await run('umount', [join(host, 'below')]); // the file system that was mounted over the kernel's
        await run('umount', [join(host, 'gone')]);
        await rm(join(host, 'gone'), { recursive: true });
        await mkdir(join(host, 'gone'));
        await run('mount', ['-t', 'sysfs', 'podvm-test', join(host, 'gone')]);
        await run('mount', ['--rbind', '/sys', join(host, 'bound')]); // the kernel puts it below the cover
        await writeFile(join(host, 'bound-now'), '');
      });
      const harmless = 'moved-again/kernel: \nbelow: Permission denied\nbound: \ngone: Permission denied\n';
      assert.equal(said, `4 are busy\n${harmless}`);
    } finally {
      await run('umount', ['--recursive', host]);
      await run('umount', [host], { okCodes: 'any' });
    }
  });

  /** Starts the attacker in the place of the server, and asserts that none of its attacks works. */
  async function attackFrom(server: number): Promise<void> {
    const mounts = await readFile(`/proc/${server}/mountinfo`, 'utf8');
    const shared = / (\/shares\/[^ ]+) ([^ ]*)/.exec(mounts) ?? assert.fail('it serves nothing');
    const filter = join(directory, 'filter');
    const isWritable = shared[2]?.startsWith('rw') === true;
    await writeFile(filter, fileServerCalls({ changes: isWritable, locks: isWritable }));
    const words = [String(server), filter, shared[1] ?? '', String(process.pid)];
    const program = join(directory, 'fallen-files');

    const outside = resultsOf((await run(program, [...words, 'control'])).stdout);
    const harmless = attacksThatAre.filter((name) => outside.get(name) !== 'done');
    assert.deepEqual(harmless, [], 'these fail without a jail, and so prove nothing');

    const { stdout } = await run(program, words);
    const inside = resultsOf(stdout);
    for (const name of attacksThatAre) assert.ok(inside.has(name), name);
    const done = [...inside].filter(([, result]) => result === 'done');
    assert.deepEqual(done, [], stdout);
    assert.match(stdout, /^end$/m);
  }

  async function assertConfinedAsItsMachine(server: number): Promise<void> {
    const cgroupsOf = async (pid: number) =>
      (await readFile(`/proc/${pid}/cgroup`, 'latin1')).split('\n').filter((line) => /:(memory|cpu|pids)?:/.test(line));
    const ofMachine = await cgroupsOf(sandbox.status.vmmPid ?? assert.fail());
    assert.ok(ofMachine.length > 0);
    assert.deepEqual(await cgroupsOf(server), ofMachine);
    const status = await readFile(`/proc/${server}/status`, 'latin1');
    assert.match(status, /^Seccomp:\t2$/m);
    assert.match(status, /^CapBnd:\t0+$/m);
    const limits = await readFile(`/proc/${server}/limits`, 'latin1');
    assert.match(limits, /^Max core file size +[01] +[01] /m); // 1 stops programs that take cores, too
    const namespaces = ['cgroup', 'ipc', 'mnt', 'net', 'pid', 'user', 'uts'];
    for (const namespace of namespaces) {
      const [its, ours] = await Promise.all([server, 'self'].map((of) => readlink(`/proc/${of}/ns/${namespace}`)));
      assert.notEqual(its, ours, namespace);
    }
  }
});

/** The result of each attack by its name: `done`, or the reason for failure. */
function resultsOf(said: string): ReadonlyMap<string, string> {
  return new Map([...said.matchAll(/^(\S+) (\S+)$/gm)].map(([, name = '', how = '']) => [name, how]));
}

async function serversOf(id: string): Promise<number[]> {
  const found: number[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name))) {
    const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
    const mounts = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
    if (program.endsWith('/files') && mounts.includes(id)) found.push(Number(pid));
  }
  return found;
}

async function compile(workDir: string): Promise<void> {
  const [buildRoot = assert.fail('no build root')] = globSync(join(assetsRoot, 'parts/build-root-*/root'));
  await runInBuildRoot({
    buildRoot,
    workDir,
    program: 'gcc',
    args: [
      '-std=gnu17',
      '-Wall',
      '-Wextra',
      '-Werror',
      '-O1',
      '-static',
      '-o',
      'fallen-files',
      '/attacks/fallen-files.c',
    ],
    readOnly: { '/attacks': join(import.meta.dirname, '../attacks') },
    signal: minute(),
  });
}
