import assert from 'node:assert/strict';
import { chmod, chown, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Container, ContainerMount, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type Node } from './node.ts';

const image = 'localhost/podvm/base:latest';
const minute = () => AbortSignal.timeout(60_000);
const skip = await whyNoVm();
const ids = { containerId: 0, hostId: 65_536, size: 65_536 };
const mountOf = (source: ContainerMount['source'], mountPath: string, more: Partial<ContainerMount> = {}) => ({
  source,
  mountPath,
  readOnly: false,
  ...more,
});
const volume = (name: string, mountPath: string, more: Partial<ContainerMount> = {}) =>
  mountOf({ kind: 'volume', name }, mountPath, more);

let attempts = 0;
const specOf = (script: string, more: Partial<ContainerSpec> = {}): ContainerSpec => ({
  ...containerSpec,
  image,
  name: `c${(attempts += 1)}`,
  command: ['sh', '-c', script],
  ...more,
});

/** Runs lines of a script that must succeed. */
async function linesOf(sandbox: Sandbox, script: string, more: Partial<ContainerSpec> = {}): Promise<string[]> {
  const container = await sandbox.createContainer(specOf(`exec 2>&1; ${script}`, more), minute());
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  if (container.status.state === 'created') await container.start(minute());
  const exit = await container.exited;
  await follower.ended;
  await container.remove(minute());
  const output = Buffer.concat(chunks).toString();
  assert.equal(exit.exitCode, 0, `${exit.why} ${output}`);
  return output.trim().split(/\r?\n/);
}

async function execText(container: Container, command: readonly string[]): Promise<string> {
  const exec = await container.exec({ command, tty: false, stdin: false }, minute());
  const chunks: Buffer[] = [];
  exec.stderr?.resume();
  for await (const bytes of exec.stdout) chunks.push(bytes as Buffer);
  await exec.exited;
  return Buffer.concat(chunks).toString();
}

/** The first answer of a server in the guest, which may need a moment to listen. */
async function answerOf(sandbox: Sandbox, port: number, request = ''): Promise<string> {
  for (const deadline = minute(); ;) {
    try {
      const stream = await sandbox.dial(port, undefined, deadline);
      stream.end(request);
      return Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>)).toString();
    } catch (error) {
      if (!(error instanceof PodvmError) || error.kind !== 'unavailable') throw error;
      deadline.throwIfAborted();
    }
  }
}

describe('a pod with a user namespace in a real machine', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let sandbox: Sandbox;

  before(async () => {
    node = await openNode({ poolSize: 1 });
    sandbox = await node.sandboxes.run(
      {
        ...sandboxSpec,
        name: 'users',
        hostname: 'users',
        userNamespace: { uids: [ids], gids: [ids] },
        fsGroup: 2000,
        sysctls: { 'kernel.shm_rmid_forced': '1', 'net.ipv4.ip_unprivileged_port_start': '1023' },
        volumes: [
          { name: 'data', kind: 'scratch' },
          { name: 'fast', kind: 'tmpfs' },
          { name: 'page', kind: 'push', files: [{ path: 'index.html', bytes: Buffer.from('hello\n'), mode: 0o640 }] },
        ],
      },
      minute(),
    );
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  test('its containers have its users, and are root of their own files', async () => {
    const script =
      'cat /proc/self/uid_map /proc/self/gid_map; touch /new && stat -c "%u:%g" / /bin/sh /new /etc/hosts;' +
      'chown 65535 /new && stat -c %u /new; chown 65536 /new; echo $?';
    const lines = (await linesOf(sandbox, script)).map((line) => line.trim().replaceAll(/\s+/g, ' '));
    assert.deepEqual(lines.slice(0, 7), ['0 65536 65536', '0 65536 65536', '0:0', '0:0', '0:0', '0:0', '65535']);
    assert.equal(lines.at(-1), '1');
  });

  test('volumes belong to their root and to fsGroup, also by a sub-path', async () => {
    const mounts = [
      volume('data', '/data'),
      volume('data', '/part', { subPath: 'made' }),
      volume('fast', '/fast'),
      volume('page', '/page'),
    ];
    const script =
      'stat -c "%u:%g" /data /part /fast /page; touch /data/a /part/b /fast/c && stat -c "%u:%g" /data/a /fast/c;' +
      'ls /data/made; cat /page/index.html';
    const root = await linesOf(sandbox, script, { mounts });
    assert.deepEqual(root, ['0:2000', '0:2000', '0:2000', '0:2000', '0:2000', '0:2000', 'b', 'hello'], root.join('\n'));
    const user = { security: { ...security, runAsUser: 1000 }, mounts };
    assert.deepEqual(
      await linesOf(sandbox, 'id -u; cat /page/index.html; touch /data/d; stat -c %u:%g /data/d', user),
      ['1000', 'hello', '1000:2000'],
    );
  });

  test('a directory of the node has the same owners on both sides, also by a sub-path', async () => {
    const host = await mkdtemp('/var/tmp/podvm-users-');
    const source = { kind: 'host', path: host, propagation: 'private' } as const;
    const ownerOf = async (name: string) => {
      const { uid, gid } = await stat(join(host, name));
      return `${uid}:${gid}`;
    };
    try {
      await chmod(host, 0o777);
      await mkdir(join(host, 'home'));
      await writeFile(join(host, 'home/letter'), 'dear\n', { mode: 0o600 });
      for (const name of ['home', 'home/letter']) await chown(join(host, name), 1000, 3000);
      await writeFile(join(host, 'secret'), 'of the node\n', { mode: 0o600 });
      await chown(join(host, 'secret'), 70_000, 70_000);
      const mounts = [
        mountOf(source, '/mnt'),
        mountOf(source, '/home', { subPath: 'home' }),
        mountOf(source, '/made', { subPath: 'made' }),
      ];

      const rootScript =
        'stat -c "%u:%g" /mnt/home/letter /made; cat /home/letter; echo x >/mnt/new; mkdir /mnt/dir; mkfifo /mnt/pipe;' +
        'echo x >/mnt/given; chown 1000:3000 /mnt/given; ln -s new /mnt/link; stat -c "%u:%g" /mnt/new /mnt/given;' +
        'chown 65536 /mnt/new; echo $?; stat -c %u /mnt/secret; cat /mnt/secret; echo $?';
      const lines = await linesOf(sandbox, rootScript, { mounts });
      assert.deepEqual(lines.slice(0, 5), ['1000:3000', '0:0', 'dear', '0:0', '1000:3000'], lines.join('\n'));
      assert.match(lines.slice(5).join('\n'), /Invalid argument\n1\n65534\n[^]*Permission denied\n1$/);
      const root = { new: '0:0', dir: '0:0', pipe: '0:0', given: '1000:3000', made: '0:0' };
      for (const [name, owner] of Object.entries(root)) assert.equal(await ownerOf(name), owner, name);

      const userScript =
        'cat /home/letter; echo y >>/home/letter; echo y >/home/reply; mv /home/reply /home/sent; chmod 640 /home/sent;' +
        'ln /home/sent /home/again; truncate -s 1 /home/sent; touch -d 2001-02-03 /home/sent; cat /mnt/secret; echo $?';
      const user = { security: { ...security, runAsUser: 1000, runAsGroup: 3000 }, mounts };
      assert.match((await linesOf(sandbox, userScript, user)).join('\n'), /^dear\n[^]*Permission denied\n1$/);
      for (const name of ['home/sent', 'home/again', 'home/letter']) assert.equal(await ownerOf(name), '1000:3000');
      const { mode, size, nlink, mtime } = await stat(join(host, 'home/sent'));
      assert.deepEqual([mode & 0o777, size, nlink, mtime.getFullYear()], [0o640, 1, 2, 2001]);
      assert.equal(await ownerOf('secret'), '70000:70000');
    } finally {
      await rm(host, { recursive: true });
    }
  });

  test('its root has its own network, IPC and host name: port 80, ping, sysctls', async () => {
    const script =
      'hostname; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_unprivileged_port_start;' +
      'ls /sys/class/net; ping -c 1 -W 5 127.0.0.1 >/dev/null && echo pong;' +
      'ip -o -4 addr show eth0 | grep -c "inet 10."; touch /dev/shm/x && stat -c %u /dev/shm/x';
    assert.deepEqual(await linesOf(sandbox, script), ['users', '1', '1023', 'eth0', 'lo', 'pong', '1', '0']);
    const server = await sandbox.createContainer(specOf('echo served | nc -l -p 80'), minute());
    await server.start(minute());
    assert.equal(await answerOf(sandbox, 80), 'served\n');
    await server.stop(0, minute());
    const other = await sandbox.createContainer(specOf("exec httpd -f -p '[::1]:8080'"), minute());
    await other.start(minute());
    assert.match(await answerOf(sandbox, 8080, 'GET / HTTP/1.0\r\n\r\n'), /^HTTP/); // port-forward's way
    await other.stop(0, minute());
  });

  test('a command and a terminal in it have its users too', async () => {
    const container = await sandbox.createContainer(specOf('sleep 600', { tty: true }), minute());
    await container.start(minute());
    assert.match(
      await execText(container, ['sh', '-c', 'id -u; cat /proc/self/uid_map']),
      /^0\n\s+0\s+65536\s+65536\n$/,
    );
    await container.stop(0, minute());
    assert.deepEqual(await linesOf(sandbox, 'tty; stat -c %u $(tty)', { tty: true }), ['/dev/pts/0', '0']);
  });

  test('a privileged one is privileged in it, and not in the guest', async () => {
    const privileged = { security: { ...security, privileged: true, seccomp: { kind: 'unconfined' as const } } };
    const script =
      'mount -t tmpfs x /tmp && echo mounted; ls /dev/sda /dev/fuse /dev/vport* 2>/dev/null; head -c 1 /dev/kmsg';
    const lines = await linesOf(sandbox, `${script} || echo denied`, privileged);
    assert.deepEqual([lines[0], lines.at(-1)], ['mounted', 'denied']);
    assert.doesNotMatch(lines.join('\n'), /\/dev\/(sda|vport)/);
  });

  test('a user outside of the pod’s ids is refused, and the message has the ids', async () => {
    const spec = specOf('true', { security: { ...security, runAsUser: 65_536 } });
    const container = await sandbox.createContainer(spec, minute());
    const exit = await container.exited;
    assert.equal(exit.reason, 'StartError');
    assert.match(exit.why ?? '', /user 65536 is not in the pod's user namespace, which maps 0 to 65535/);
  });

  test('its containers see each other’s processes when these are shared, in a machine that had another identity', async () => {
    for (const deadline = minute(); node.sandboxes.waitingMachines === 0; await delay(20)) deadline.throwIfAborted();
    const shared = await node.sandboxes.run(
      { ...sandboxSpec, name: 'shared', sharePidNamespace: true, userNamespace: { uids: [ids], gids: [ids] } },
      minute(),
    );
    const first = await shared.createContainer(specOf('sleep 4321'), minute());
    await first.start(minute());
    const lines = await linesOf(shared, 'ip -o -4 addr show eth0; cat /proc/self/uid_map; ps -o user,args');
    const [address = 'none'] = shared.status.addresses;
    assert.ok(lines[0]?.includes(` ${address}/`), lines.join('\n'));
    assert.match(lines.join('\n'), /0\s+65536\s+65536[^]*root\s+\{init\} podvm-pause[^]*root\s+sleep 4321/);
    await shared.remove();
  });
});
