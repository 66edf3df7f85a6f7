import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, readlink, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { isThere } from '#host/file/files.ts';
import { run } from '#host/process/run.ts';
import { createFileServers, sweepFileServers } from '#storage/file-server.ts';
import { openHostSource } from '#storage/host-source.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Container, ContainerMount, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { maxPorts } from '#vm/driver.ts';
import { openNode, readAssets, whyNoVm, type Node } from './node.ts';
import { buildProbe } from './probe.ts';

const image = 'localhost/podvm/base:latest';
const minute = () => AbortSignal.timeout(60_000);
const skip = await whyNoVm();

let attempts = 0;
const specOf = (script: string, more: Partial<ContainerSpec> = {}): ContainerSpec => ({
  ...containerSpec,
  image,
  name: `c${(attempts += 1)}`,
  command: ['sh', '-c', script],
  ...more,
});

/** Runs a script to its end and returns its exit and its output. */
async function runScript(
  sandbox: Sandbox,
  script: string,
  more: Partial<ContainerSpec> = {},
  onceStarted: (container: Container) => Promise<void> = async () => {},
) {
  const container = await sandbox.createContainer(specOf(script, more), minute());
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  await container.start(minute());
  await onceStarted(container);
  const exit = await container.exited;
  await follower.ended;
  await container.remove(minute());
  return { exit, output: Buffer.concat(chunks).toString(), container };
}

const ofHost = (path: string, more: Partial<ContainerMount> = {}): ContainerMount => ({
  source: { kind: 'host', path, propagation: 'private' },
  mountPath: '/mnt',
  readOnly: false,
  ...more,
});

async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = AbortSignal.timeout(60_000);
  while (!(await isSo())) {
    assert.ok(!deadline.aborted, `never: ${what}`);
    await delay(20);
  }
}

/** Pids of the file servers of that sandbox, found by their program and their mounts. */
async function serversOf(id: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^[0-9]+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
      const mounts = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
      return program.endsWith('/files') && mounts.includes(id) ? [Number(pid)] : [];
    }),
  );
  return found.flat();
}

describe('a directory of the host in a real machine', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let sandbox: Sandbox;
  let root: string;
  /** A directory of the test's own. */
  const place = async (name: string) => {
    const directory = join(root, name);
    await mkdir(directory);
    return directory;
  };

  before(async () => {
    root = await mkdtemp('/var/tmp/podvm-share-');
    await buildProbe(join(root, 'probe'), 'share-probe');
    node = await openNode();
    sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'share', network: 'none' }, minute());
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
    for (const id of node.ids) assert.deepEqual(await serversOf(id), []);
    await rm(root, { recursive: true });
  });

  test('is read and written from both sides, with names, links, modes and owners', async () => {
    const host = await place('files');
    await writeFile(join(host, 'from-host'), 'hello\n');
    const { output } = await runScript(
      sandbox,
      `cd /mnt; cat from-host; echo there > a; mv a b; ln b hard; ln -s b soft; cat soft; stat -c %h b
       echo x > mode; chown 1234:5678 mode; chmod 4751 mode; mkdir -p deep/er; rmdir deep/er; mkfifo fifo
       echo more >> b; rm from-host; ls; mknod null c 1 3 || echo no devices; df . | tail -n 1 | grep -c podvm`,
      { mounts: [ofHost(host)] },
    );
    assert.equal(
      output.replace(/mknod: .*\n/, ''),
      'hello\nthere\n2\nb\ndeep\nfifo\nhard\nmode\nsoft\nno devices\n1\n',
    );
    assert.equal(await readFile(join(host, 'hard'), 'utf8'), 'there\nmore\n');
    assert.equal(await readlink(join(host, 'soft')), 'b');
    const { mode, uid, gid } = await stat(join(host, 'mode'));
    assert.deepEqual([mode & 0o7777, uid, gid], [0o4751, 1234, 5678]);
    assert.ok((await stat(join(host, 'fifo'))).isFIFO());
    assert.ok(!(await isThere(join(host, 'from-host'))));
  });

  test("belongs to the user who makes it, and the guest's kernel knows that user's groups", async () => {
    const host = await place('owners');
    await run('chown', ['0:2000', host]);
    await run('chmod', ['2770', host]);
    await writeFile(join(host, 'secret'), 'x', { mode: 0o600 });
    const { output } = await runScript(
      sandbox,
      'echo mine > /mnt/mine && cat /mnt/mine; cat /mnt/secret || echo denied',
      {
        mounts: [ofHost(host)],
        security: { ...security, runAsUser: 1500, runAsGroup: 1600, supplementalGroups: [2000] },
      },
    );
    assert.match(output, /^mine\n.*denied\n$/s);
    const { uid, gid } = await stat(join(host, 'mine'));
    assert.deepEqual([uid, gid], [1500, 2000]);
  });

  test('shows the host’s changes at once, also of mapped, synced and large files', async () => {
    const host = await place('changes');
    await writeFile(join(host, 'mapped'), Buffer.alloc(8192));
    await run('dd', ['if=/dev/urandom', `of=${join(host, 'large')}`, 'bs=1M', 'count=6']);
    await run('cp', [join(root, 'probe'), host]);
    await writeFile(join(host, 'text'), 'old\n');
    const script = `cd /mnt; cat text; touch ready; until grep -q new text; do sleep 0.1; done; cat text; ls later
      ./probe map mapped; sha256sum < large; dd if=large of=copy bs=64k conv=fsync 2>/dev/null; sha256sum < copy`;
    const { output } = await runScript(sandbox, script, { mounts: [ofHost(host)] }, async () => {
      await until('it has read', () => isThere(join(host, 'ready')));
      await writeFile(join(host, 'later'), '');
      await writeFile(join(host, 'mapped'), Buffer.alloc(8192, 'host.'));
      await writeFile(join(host, 'text'), 'new\n');
    });
    const lines = output.trimEnd().split('\n');
    const sum = (await run('sha256sum', [join(host, 'large')])).stdout.split(' ')[0];
    assert.deepEqual(lines, ['old', 'new', 'later', 'read ost.h', `${sum}  -`, `${sum}  -`]);
    assert.equal((await readFile(join(host, 'mapped'))).subarray(0, 8).toString(), 'mappedos');
    assert.equal((await run('sha256sum', [join(host, 'copy')])).stdout.split(' ')[0], sum);
  });

  test('holds many small files', async () => {
    const host = await place('many');
    await run('cp', [join(root, 'probe'), host]);
    const { output } = await runScript(sandbox, 'mkdir /mnt/d; /mnt/probe create /mnt/d 150; ls /mnt/d | wc -l', {
      mounts: [ofHost(host)],
    });
    assert.match(output, /files\/s\n150\n$/);
    assert.equal((await readdir(join(host, 'd'))).length, 150);
    assert.equal(await readFile(join(host, 'd', '149'), 'utf8'), '0123456789abcdef');
  });

  test('is one file system for two containers, with locks of ranges between them and with the host', async () => {
    const host = await place('locks');
    await run('cp', [join(root, 'probe'), host]);
    await writeFile(join(host, 'file'), '');
    const mounts = [ofHost(host)];
    const onHost = (...args: string[]) =>
      promisify(execFile)('./probe', args, { cwd: host }).then(
        ({ stdout }) => stdout,
        ({ stdout }: { stdout: string }) => stdout,
      );
    const holder = await sandbox.createContainer(specOf('cd /mnt; ./probe lock file 10 5 held', { mounts }), minute());
    await holder.start(minute());
    await until('it is locked', () => isThere(join(host, 'held')));
    const others =
      'cd /mnt; ./probe lock file 14 1 -; ./probe lock file 15 1 -; ./probe locked file; ./probe wait file';
    const expected = 'lock: EAGAIN\nlocked\n10+5\nwait: EINTR\n';
    assert.equal((await runScript(sandbox, others, { mounts })).output, expected);
    assert.equal(await onHost('lock', 'file', '14', '1', '-'), 'lock: EAGAIN\n');
    assert.equal(await onHost('lock', 'file', '15', '1', '-'), 'locked\n');
    assert.equal(await onHost('flock', 'file', '-'), 'locked\n'); // flock(2) ignores fcntl(2) locks
    const waiting = runScript(sandbox, 'cd /mnt; touch waits; ./probe lock-waiting file 0 0 -', { mounts });
    await until('one waits', () => isThere(join(host, 'waits')));
    assert.equal((await serversOf(sandbox.id)).length, 1);
    await rm(join(host, 'held'));
    assert.equal((await waiting).output, 'locked\n');
    await holder.exited;
    assert.equal((await runScript(sandbox, 'cd /mnt; ./probe locked file', { mounts })).output, 'none\n');
    await holder.remove(minute());
    assert.deepEqual(await serversOf(sandbox.id), []);
  });

  test('waits for a lock of the host, and supports flock like the host', async () => {
    const host = await place('host-locks');
    await run('cp', [join(root, 'probe'), host]);
    await writeFile(join(host, 'file'), '');
    const mounts = [ofHost(host)];
    const ofTheHost = once(execFile(join(host, 'probe'), ['lock', 'file', '0', '0', 'held'], { cwd: host }), 'exit');
    await until('it is locked', () => isThere(join(host, 'held')));
    const attempts = 'cd /mnt; ./probe lock file 3 1 -; touch waits; ./probe lock-waiting file 0 0 -';
    const waiting = runScript(sandbox, attempts, { mounts });
    await until('one waits', () => isThere(join(host, 'waits')));
    await rm(join(host, 'held'));
    await ofTheHost;
    assert.equal((await waiting).output, 'lock: EAGAIN\nlocked\n');
    const holder = await sandbox.createContainer(specOf('cd /mnt; ./probe flock file held', { mounts }), minute());
    await holder.start(minute());
    await until('it is locked', () => isThere(join(host, 'held')));
    assert.equal((await runScript(sandbox, 'cd /mnt; ./probe flock file -', { mounts })).output, 'flock: EAGAIN\n');
    await assert.rejects(promisify(execFile)('flock', ['-n', join(host, 'file'), 'true']));
    await rm(join(host, 'held'));
    await holder.exited;
    await promisify(execFile)('flock', ['-n', join(host, 'file'), 'true']);
    await holder.remove(minute());
  });

  test('that is read-only blocks no program of the host: its locks are local to the pod', async () => {
    const [host, signs] = [await place('locks-of-a-reader'), await place('signs')];
    await run('cp', [join(root, 'probe'), host]);
    await writeFile(join(host, 'file'), '');
    for (const recursiveReadOnly of [true, false]) {
      const mounts = [ofHost(host, { readOnly: true, recursiveReadOnly }), ofHost(signs, { mountPath: '/signs' })];
      const script = 'cd /mnt; ./probe flock file /signs/held';
      const holder = await sandbox.createContainer(specOf(script, { mounts }), minute());
      await holder.start(minute());
      await until('it is locked', () => isThere(join(signs, 'held')));
      await run('flock', ['--nonblock', '--exclusive', join(host, 'file'), 'true']);
      const { output } = await runScript(sandbox, 'cd /mnt; ./probe flock file -', { mounts });
      assert.equal(output, 'flock: EAGAIN\n'); // among its own containers
      await rm(join(signs, 'held'));
      await holder.exited;
      await holder.remove(minute());
    }
  });

  test('may be a single file, a symbolic link, and one that another mount has with other access', async () => {
    const host = await place('single');
    await writeFile(join(host, 'one'), 'one\n');
    await writeFile(join(host, 'other'), 'hidden\n');
    await symlink('one', join(host, 'link'));
    const { output } = await runScript(
      sandbox,
      'exec 2>&1; cat /etc/one /etc/ro; echo two >> /etc/one; cat /etc/ro; echo no >> /etc/ro; ls /etc/.. | grep -c other',
      {
        mounts: [
          ofHost(join(host, 'link'), { mountPath: '/etc/one' }),
          ofHost(join(host, 'one'), { mountPath: '/etc/ro', readOnly: true }),
        ],
      },
    );
    assert.match(output, /^one\none\none\ntwo\n.*Read-only file system\n0\n$/);
    assert.equal(await readFile(join(host, 'one'), 'utf8'), 'one\ntwo\n');
  });

  test('keeps a sub-path inside, whatever links it has', async () => {
    const host = await place('sub-paths');
    await mkdir(join(host, 'in/side'), { recursive: true });
    await writeFile(join(host, 'in/side/file'), 'inside\n');
    await symlink('/', join(host, 'out'));
    await symlink('../../..', join(host, 'in/up'));
    const at = (mountPath: string, subPath: string) => ofHost(host, { mountPath, subPath });
    const { output } = await runScript(sandbox, 'cat /a/file; ls /b /c; echo made > /d/new', {
      mounts: [at('/a', 'in/side'), at('/b', 'out/in'), at('/c', 'in/up/in'), at('/d', 'not/yet')],
    });
    assert.equal(output, 'inside\n/b:\nside\nup\n\n/c:\nside\nup\n');
    assert.equal(await readFile(join(host, 'not/yet/new'), 'utf8'), 'made\n');
  });

  test('refuses a sub-path that cannot be made, and says why', async () => {
    const host = await place('unmade');
    await writeFile(join(host, 'file'), '');
    await symlink('/etc/nowhere', join(host, 'out'));
    await symlink('round', join(host, 'round'));
    const refused = {
      out: /out\/in: a link in it leads to a path/,
      file: /not a directory/,
      round: /lead in a circle/,
    };
    for (const [name, message] of Object.entries(refused)) {
      const mounts = [ofHost(host, { mountPath: '/a', subPath: `${name}/in` })];
      await assert.rejects(runScript(sandbox, 'true', { mounts }), { kind: 'invalid', message });
    }
  });

  test('shows mounts below it, read-only like the share unless they should stay writable', async () => {
    const host = await place('submounts');
    const below = join(host, 'below');
    await mkdir(below);
    await run('mount', ['-t', 'tmpfs', 'podvm-test', below]);
    try {
      await writeFile(join(below, 'file'), 'under\n');
      const script = '(cat /mnt/below/file; touch /mnt/new; touch /mnt/below/new && echo made; ls /mnt/below) 2>&1';
      const recursive = await runScript(sandbox, script, { mounts: [ofHost(host, { readOnly: true })] });
      assert.match(recursive.output, /^under\n.*new: Read-only.*\n.*below\/new: Read-only.*\nfile\n$/);
      const { output } = await runScript(sandbox, script, {
        mounts: [ofHost(host, { readOnly: true, recursiveReadOnly: false })],
      });
      assert.equal(output, 'under\ntouch: /mnt/new: Read-only file system\nmade\nfile\nnew\n');
    } finally {
      await run('umount', [below]);
    }
  });

  test('shows later mounts of the host below it, with propagation', async () => {
    const host = await place('propagating');
    await mkdir(join(host, 'here'));
    await run('mount', ['--bind', host, host]);
    await run('mount', ['--make-shared', host]);
    try {
      const script = 'until test -e /slave/here/file; do sleep 0.1; done; ls /slave/here /private/here';
      const slave = { kind: 'host', path: host, propagation: 'hostToContainer' } as const;
      const mounts = [ofHost(host, { source: slave, mountPath: '/slave' }), ofHost(host, { mountPath: '/private' })];
      const { output } = await runScript(sandbox, script, { mounts }, async () => {
        await run('mount', ['-t', 'tmpfs', 'podvm-test', join(host, 'here')]);
        await writeFile(join(host, 'here', 'file'), '');
      });
      assert.equal(output, '/private/here:\n\n/slave/here:\nfile\n');
    } finally {
      await run('umount', [join(host, 'here')]).catch(() => undefined); // not mounted if the mount failed
      await run('umount', [host]);
    }
  });

  test('lets the host unmount what it has mounted below it, after a container has used it and while none does', async () => {
    const host = await place('unmounted');
    const here = join(host, 'here');
    await mkdir(here);
    await run('mount', ['--bind', host, host]);
    await run('mount', ['--make-shared', host]);
    await run('mount', ['-t', 'tmpfs', 'podvm-test', here]);
    try {
      await mkdir(join(here, 'deep/er'), { recursive: true });
      await writeFile(join(here, 'deep/er/file'), 'text');
      const script = `
        cd /slave/here/deep; cat er/file; ls -lR /slave >/dev/null; echo more >>/slave/here/file; cd /
        touch /slave/used; until test -e /slave/unmounted; do sleep 0.1; done; ls /slave/here`;
      const source = { kind: 'host', path: host, propagation: 'hostToContainer' } as const;
      const mounts = [ofHost(host, { source, mountPath: '/slave' })];
      const { output } = await runScript(sandbox, script, { mounts }, async () => {
        await until('the container has used it', () => isThere(join(host, 'used')));
        const began = performance.now();
        await until('it is unmounted', () =>
          run('umount', [here]).then(
            () => true,
            () => false,
          ),
        );
        const ms = performance.now() - began;
        await writeFile(join(host, 'unmounted'), '');
        assert.ok(ms < 2000, `unmounting took ${ms} ms`);
      });
      assert.equal(output, 'text');
    } finally {
      await run('umount', [here]).catch(() => undefined); // it is not mounted if all is well
      await run('umount', [host]);
    }
  });

  test('keeps its identity from the container’s creation, and a replaced path is the next container’s', async () => {
    const host = await place('swapped');
    await mkdir(join(host, 'volume'));
    await writeFile(join(host, 'volume/file'), 'first\n');
    const mounts = [ofHost(join(host, 'volume'))];
    const { output } = await runScript(
      sandbox,
      'until test -e /mnt/go; do sleep 0.1; done; cat /mnt/file',
      { mounts },
      async () => {
        await rename(join(host, 'volume'), join(host, 'aside'));
        await mkdir(join(host, 'volume'));
        await writeFile(join(host, 'volume/file'), 'second\n');
        const next = await runScript(sandbox, 'cat /mnt/file', { mounts });
        assert.equal(next.output, 'second\n');
        await writeFile(join(host, 'aside/go'), '');
      },
    );
    assert.equal(output, 'first\n');
  });

  test('refuses what cannot be shared with a reason, and leaves nothing', async () => {
    const host = await place('refused');
    await run('mkfifo', [join(host, 'fifo')]);
    const refused = (path: string, kind: string, message: RegExp) =>
      assert.rejects(sandbox.createContainer(specOf('true', { mounts: [ofHost(host), ofHost(path)] }), minute()), {
        kind,
        message,
      });
    await refused(join(host, 'none'), 'notFound', /no such file or directory on the host/);
    await refused(join(host, 'fifo'), 'unsupported', /it is a FIFO/);
    await refused('/dev/null', 'unsupported', /it is a character device/);
    await refused('/proc/sys', 'unsupported', /belongs to the host's kernel/);
    await refused('/dev/shm', 'unsupported', /belongs to the host's kernel/);
    assert.deepEqual(await serversOf(sandbox.id), []);
  });

  test('is served by a process that sees only the volume, with few rights as root', async () => {
    const host = await place('jail');
    await runScript(
      sandbox,
      'until test -e /mnt/go; do sleep 0.1; done',
      { mounts: [ofHost(host)] },
      async ({ status }) => {
        assert.deepEqual(status.mounts, [{ mountPath: '/mnt', mode: 'share' }]);
        const [pid] = await serversOf(sandbox.id);
        const mounts = (await readFile(`/proc/${pid}/mountinfo`, 'utf8')).trimEnd().split('\n');
        const points = mounts.map((line) => line.split(' ')[4] ?? '').toSorted();
        const shared = points.pop() ?? '';
        assert.deepEqual(points, ['/', '/descriptors', '/files']);
        assert.match(shared, new RegExp(`^/shares/${sandbox.id}/`));
        assert.ok(mounts.every((line) => /nosuid,nodev/.test(line)));
        const status_ = await readFile(`/proc/${pid}/status`, 'utf8');
        assert.match(status_, /CapEff:\t00000000000000db\n/); // chown, dac_override, fowner, fsetid, setgid, setuid
        assert.match(status_, /CapPrm:\t00000000000000db\n/);
        assert.match(status_, /NoNewPrivs:\t1\n/);
        for (const namespace of ['net', 'mnt', 'pid', 'ipc', 'uts']) {
          const [its, ours] = await Promise.all([pid, 'self'].map((of) => readlink(`/proc/${of}/ns/${namespace}`)));
          assert.notEqual(its, ours, namespace);
        }
        const descriptors = await readdir(`/proc/${pid}/fd`);
        const targets = await Promise.all(descriptors.map((fd) => readlink(`/proc/${pid}/fd/${fd}`)));
        assert.ok(
          targets.every((target) =>
            /^(socket|pipe|anon_inode|\/shares\/|\/memfd:podvm-requests-|.*\/servers\/[^/]+\.log$)/.test(target),
          ), // figures and log are the server's own
          targets.join(' '),
        );
        await writeFile(join(host, 'go'), '');
      },
    );
  });

  test('has a server that a sweep finds by its sandbox if neither starter nor client ended it', async () => {
    const host = await place('swept');
    const listener = createServer((client) => void client.unref())
      .listen(join(root, 'socket'))
      .unref();
    await once(listener, 'listening');
    const channel = connect(join(root, 'socket')).unref();
    await once(channel, 'connect');
    const assets = (await readAssets()) ?? assert.fail();
    const files = createFileServers(assets);
    await using source = await openHostSource(host);
    const request = {
      channel,
      source,
      access: 'readWrite',
      propagation: 'private',
      mapsUsers: false,
      owner: 'sb-swept',
      confine: async () => ({ [Symbol.asyncDispose]: () => Promise.resolve() }),
      name: 'x',
      logPath: join(root, 'x.log'),
    } as const;
    await using server = await files.serve(request, minute());
    await until('it serves', async () => (await serversOf('sb-swept')).includes(server.record.pid));
    assert.deepEqual(await sweepFileServers('sb-other'), []);
    assert.deepEqual(await sweepFileServers('sb-swept'), [server.record.pid]);
    await server.ended;
    const unable = createFileServers({ ...assets, fileServer: join(root, 'none') });
    const again = connect(join(root, 'socket')).unref();
    await once(again, 'connect');
    // Its jail fails when it has a pid, or before; either way its own message is reported.
    const words = await unable.serve({ ...request, channel: again }, minute()).then(
      async ({ ended }) => (await ended).join(' '),
      (error: unknown) => String(error),
    );
    assert.match(words, /Can't find source path/);
    assert.deepEqual(await serversOf('sb-swept'), []);
  });

  test('returns errors when its server is killed, and the sandbox continues', async () => {
    const host = await place('killed');
    await writeFile(join(host, 'file'), 'x');
    const script =
      'exec 3< /mnt/file; touch /mnt/ready; until ! ls /mnt; do sleep 0.2; done; cat /mnt/file; cat <&3; echo lives';
    const { output } = await runScript(sandbox, `(${script}) 2>&1`, { mounts: [ofHost(host)] }, async () => {
      await until('it is ready', () => isThere(join(host, 'ready')));
      for (const pid of await serversOf(sandbox.id)) process.kill(pid, 'SIGKILL');
    });
    assert.match(
      output,
      /cat: .*mnt\/file.*: (Socket not connected|Transport endpoint|Software caused).*\n.*\nlives\n$/s,
    );
    assert.equal((await runScript(sandbox, 'cat /mnt/file', { mounts: [ofHost(host)] })).output, 'x');
  });

  test(`can be mounted ${maxPorts} times, and another is refused`, async () => {
    const host = await place('ports');
    const paths = Array.from({ length: maxPorts + 1 }, (_, at) => join(host, String(at)));
    for (const path of paths) await mkdir(path);
    const mounts = paths.map((path, at) => ofHost(path, { mountPath: `/mnt/${at}` }));
    await assert.rejects(sandbox.createContainer(specOf('true', { mounts }), minute()), {
      kind: 'exhausted',
      message: /it has 30 volumes of the host already/,
    });
    assert.deepEqual(await serversOf(sandbox.id), []);
    const { output } = await runScript(sandbox, 'for i in /mnt/*; do echo x > $i/file; done; ls -d /mnt/* | wc -l', {
      mounts: mounts.slice(0, maxPorts),
    });
    assert.equal(output, `${maxPorts}\n`);
    assert.equal(await readFile(join(host, '29', 'file'), 'utf8'), 'x\n');
  });

  test('ends with its sandbox, with all data that was mapped and not synced, and when the VMM is killed', async () => {
    const host = await place('ends');
    await run('cp', [join(root, 'probe'), host]);
    const spec = { ...sandboxSpec, name: 'ends', network: 'none' } as const;
    const mounts = [ofHost(host)];
    const start = async () => {
      const other = await node.sandboxes.run(spec, minute());
      await rm(join(host, 'up'), { force: true });
      const container = await other.createContainer(specOf('echo x > /mnt/up; sleep 60', { mounts }), minute());
      await container.start(minute());
      await until('it is up', () => isThere(join(host, 'up')));
      assert.equal((await serversOf(other.id)).length, 1);
      return other;
    };
    const stopped = await start();
    assert.equal((await stopped.stop(0)).state, 'stopped');
    assert.deepEqual(await serversOf(stopped.id), []);
    await stopped.remove();
    const killed = await start();
    process.kill(killed.status.vmmPid ?? assert.fail(), 'SIGKILL');
    assert.equal((await killed.ended).state, 'failed');
    assert.deepEqual(await serversOf(killed.id), []);
    await killed.remove();
  });
});
