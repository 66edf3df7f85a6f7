import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { PodvmError } from '#base/errors.ts';
import { readFileIfThere } from '#host/file/files.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import { isRunning } from '#host/process/process-identity.ts';
import { readRecord } from '#sandbox/recovery/record.ts';
import { readLog } from '#sandbox/log/read-log.ts';
import type { Container, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { heldMemory } from '../held-memory.ts';
import { openNode, whyNoVm, type Node } from './node.ts';

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
async function runScript(sandbox: Sandbox, script: string, more: Partial<ContainerSpec> = {}) {
  const container = await sandbox.createContainer(specOf(script, more), minute());
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  await container.start(minute());
  const exit = await container.exited;
  await follower.ended;
  await container.remove(minute());
  return { exit, output: Buffer.concat(chunks).toString(), container };
}

async function execText(container: Container, command: readonly string[]) {
  const exec = await container.exec({ command, tty: false, stdin: false }, minute());
  const chunks: Buffer[] = [];
  exec.stderr?.resume();
  for await (const bytes of exec.stdout) chunks.push(bytes as Buffer);
  return { ...(await exec.exited), output: Buffer.concat(chunks).toString() };
}

/** The first answer of a server in the guest, which may need a moment to listen. */
async function untilAnswered(sandbox: Sandbox, port: number): Promise<string> {
  const deadline = minute();
  for (;;) {
    try {
      const stream = await sandbox.dial(port, undefined, deadline);
      stream.end('GET / HTTP/1.0\r\n\r\n');
      return Buffer.concat(await Array.fromAsync(stream as AsyncIterable<Buffer>)).toString();
    } catch (error) {
      if (!(error instanceof PodvmError) || error.kind !== 'unavailable') throw error;
      deadline.throwIfAborted();
    }
  }
}

const mebibyte = 1024 * 1024;

/** File of the limit of the VMM's memory; undefined on a host without a cgroup for us. */
async function hostCgroup(id: string): Promise<string | undefined> {
  const files = [`/sys/fs/cgroup/podvm/${id}/memory.max`, `/sys/fs/cgroup/memory/podvm/${id}/memory.limit_in_bytes`];
  for (const file of files) if ((await readFileIfThere(file)) !== undefined) return file;
  return undefined;
}

async function hostMemoryLimit(id: string): Promise<number | undefined> {
  const file = await hostCgroup(id);
  return file === undefined ? undefined : Number(await readFile(file, 'latin1'));
}

/** Thousandths of a core that the VMM may use; undefined on a host without a cgroup for us. */
async function hostCpuMillis(id: string): Promise<number | undefined> {
  const second = await readFileIfThere(`/sys/fs/cgroup/podvm/${id}/cpu.max`);
  const first = await readFileIfThere(`/sys/fs/cgroup/cpu/podvm/${id}/cpu.cfs_quota_us`);
  const quotaUs = (second ?? first)?.split(' ')[0];
  return quotaUs === undefined ? undefined : Number(quotaUs) / 100;
}

async function disposable(starting: Promise<Sandbox>): Promise<Sandbox & AsyncDisposable> {
  const sandbox = await starting;
  return Object.assign(sandbox, { [Symbol.asyncDispose]: () => sandbox.remove() });
}

describe('a sandbox in a real machine', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let sandbox: Sandbox;

  before(async () => {
    node = await openNode();
    sandbox = await node.sandboxes.run(
      {
        ...sandboxSpec,
        name: 'real',
        hostname: 'real',
        volumes: [
          { name: 'data', kind: 'scratch' },
          { name: 'fast', kind: 'tmpfs', sizeLimitBytes: 1024 * 1024 },
          { name: 'page', kind: 'push', files: [{ path: 'index.html', bytes: Buffer.from('hello\n'), mode: 0o644 }] },
        ],
      },
      minute(),
    );
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  test('a missing command is a StartError with the runtime’s message', async () => {
    const container = await sandbox.createContainer({ ...specOf(''), command: ['/no/such/program'] }, minute());
    const exit = await container.exited;
    assert.deepEqual([exit.reason, exit.exitCode], ['StartError', 127]);
    assert.match(exit.why ?? '', /no\/such\/program/);
  });

  test('output and exit code of a container arrive', async () => {
    const { exit, output } = await runScript(sandbox, 'echo hello; echo there >&2; exit 7');
    assert.deepEqual([exit.exitCode, exit.reason], [7, 'Error']);
    assert.deepEqual(output.trim().split('\n').sort(), ['hello', 'there']);
  });

  test('a container has its hostname, its files, its user and its limits', async () => {
    const script = 'hostname; id -u; cat /etc/hostname /page/index.html; cat /sys/fs/cgroup/memory.max; pwd';
    const { output } = await runScript(sandbox, script, {
      workingDir: '/tmp',
      security: { ...security, runAsUser: 1234 },
      resources: { memoryLimitBytes: 32 * 1024 * 1024 },
      mounts: [{ source: { kind: 'volume', name: 'page' }, mountPath: '/page', readOnly: true }],
    });
    assert.deepEqual(output.trim().split('\n'), ['real', '1234', 'real', 'hello', '33554432', '/tmp']);
  });

  test('ambient capabilities are kept by a user other than root, and by its children', async () => {
    const some = { ...security, runAsUser: 1000, ambientCapabilities: ['NET_ADMIN'] };
    const { output } = await runScript(sandbox, 'grep -E "Cap(Inh|Eff|Amb)" /proc/self/status', { security: some });
    const bit = '0000000000001000'; // 1 << CAP_NET_ADMIN
    assert.deepEqual(output.trim().split(/\s+/), ['CapInh:', bit, 'CapEff:', bit, 'CapAmb:', bit]);
  });

  test('a volume is also mounted by sub-path, a directory or file, which is made if missing', async () => {
    const mount = (name: string, mountPath: string, subPath: string) => ({
      source: { kind: 'volume' as const, name },
      mountPath,
      subPath,
      readOnly: name === 'page',
    });
    const mounts = [mount('data', '/part', 'made/here'), mount('page', '/one/file', 'index.html')];
    const { output } = await runScript(sandbox, 'echo x >/part/y; cat /one/file; ls /part', { mounts });
    assert.equal(output, 'hello\ny\n');
    const all = {
      mounts: [{ source: { kind: 'volume' as const, name: 'data' }, mountPath: '/data', readOnly: false }],
    };
    assert.equal((await runScript(sandbox, 'cat /data/made/here/y; rm -r /data/made', all)).output, 'x\n');
  });

  test('a container keeps its default capabilities and no more, and seccomp is on', async () => {
    const { output } = await runScript(
      sandbox,
      'grep -E "CapEff|Seccomp:" /proc/self/status; mount -t tmpfs x /mnt; echo $?',
    );
    assert.match(output, /CapEff:\s+00000000a80425fb/);
    assert.match(output, /Seccomp:\s+2/);
    assert.doesNotMatch(output, /^0$/m);
  });

  test('a scratch volume outlives its container, a writable layer does not', async () => {
    const mounts = [{ source: { kind: 'volume', name: 'data' } as const, mountPath: '/data', readOnly: false }];
    await runScript(sandbox, 'echo kept > /data/file; echo gone > /file', { mounts });
    const { output } = await runScript(sandbox, 'cat /data/file; cat /file 2>/dev/null; true', { mounts });
    assert.equal(output, 'kept\n');
  });

  test('an update of a push volume appears in one step', async () => {
    const mounts = [{ source: { kind: 'volume', name: 'page' } as const, mountPath: '/page', readOnly: true }];
    const container = await sandbox.createContainer(specOf('sleep 1000', { mounts }), minute());
    await container.start(minute());
    await sandbox.updateVolume('page', [{ path: 'index.html', bytes: Buffer.from('new\n'), mode: 0o644 }], minute());
    assert.equal((await execText(container, ['cat', '/page/index.html'])).output, 'new\n');
    await container.stop(0, minute());
  });

  test('a container over its memory limit is OOMKilled', async () => {
    const { exit } = await runScript(sandbox, 'tail /dev/zero', { resources: { memoryLimitBytes: 16 * 1024 * 1024 } });
    assert.deepEqual([exit.reason, exit.exitCode], ['OOMKilled', 137]);
  });

  test('exec returns output and exit code, reads standard input, and has a terminal on request', async () => {
    const container = await sandbox.createContainer(
      specOf('trap "exit 3" TERM; while :; do sleep 0.1; done'),
      minute(),
    );
    await container.start(minute());
    assert.deepEqual(await execText(container, ['sh', '-c', 'echo out; exit 5']), { output: 'out\n', exitCode: 5 });

    const cat = await container.exec({ command: ['cat'], tty: false, stdin: true }, minute());
    cat.stdin?.end('typed');
    assert.equal(Buffer.concat(await Array.fromAsync(cat.stdout as AsyncIterable<Buffer>)).toString(), 'typed');
    assert.equal((await cat.exited).exitCode, 0);

    const tty = await container.exec(
      { command: ['stty', 'size'], tty: true, stdin: false, columns: 91, rows: 33 },
      minute(),
    );
    assert.match(Buffer.concat(await Array.fromAsync(tty.stdout as AsyncIterable<Buffer>)).toString(), /33 91/);
    assert.equal((await container.stop(10_000, minute())).exitCode, 3);
  });

  test('a termination message is reported', async () => {
    const { exit } = await runScript(sandbox, 'echo -n because > /dev/termination-log; exit 1');
    assert.equal(String(exit.message), 'because');
  });

  test('the guest reaches the network, and a port in it can be dialled', async () => {
    const container = await sandbox.createContainer(
      specOf('echo page > /tmp/index.html; httpd -f -p 8080 -h /tmp'),
      minute(),
    );
    await container.start(minute());
    const gateway = await execText(container, [
      'sh',
      '-c',
      'ping -c1 -W5 $(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p")',
    ]);
    assert.equal(gateway.exitCode, 0, gateway.output);
    const answer = await untilAnswered(sandbox, 8080);
    assert.match(answer, /200 OK[\s\S]*page/);
    await assert.rejects(sandbox.dial(9, undefined, minute()), (error) => error instanceof PodvmError);
    await container.stop(0, minute());
  });

  test('a hundred megabytes of output arrive byte-exact, in bounded memory', async () => {
    const line = 'the quick brown fox jumps over the lazy dog and says how many bytes it was asked to jump over today';
    const totalBytes = 100 * 1024 * 1024;
    const lookEvery = 4 * 1024 * 1024;
    const container = await sandbox.createContainer(specOf(`yes '${line}' | head -c ${totalBytes}`), minute());
    const hash = createHash('sha256');
    let bytesSeen = 0;
    let mostHeld = 0;
    const atFirst = heldMemory();
    const follower = container.follow(async ({ bytes }) => {
      const isLook = Math.floor(bytesSeen / lookEvery) < Math.floor((bytesSeen + bytes.length) / lookEvery);
      hash.update(bytes);
      bytesSeen += bytes.length;
      if (isLook) mostHeld = Math.max(mostHeld, heldMemory() - atFirst);
    });
    await container.start(minute());
    await follower.ended;
    const expected = createHash('sha256');
    const text = Buffer.from(`${line}\n`.repeat(1024));
    for (let left = totalBytes; left > 0; left -= text.length) expected.update(text.subarray(0, left));
    assert.equal(bytesSeen, totalBytes);
    assert.equal(hash.digest('hex'), expected.digest('hex'));
    assert.ok(mostHeld < 16 * 1024 * 1024, `${mostHeld} bytes are held`);
  });

  test('output waits for a slow follower and loses nothing', async () => {
    const container = await sandbox.createContainer(
      specOf('yes 0123456789 | head -c 4000000; echo done > /tmp/x'),
      minute(),
    );
    const open = Promise.withResolvers<void>();
    let bytesSeen = 0;
    const follower = container.follow(async ({ bytes }) => {
      bytesSeen += bytes.length;
      await open.promise;
    });
    await container.start(minute());
    const stuck = await execText(container, ['sh', '-c', 'sleep 2; ls /tmp/x']); // longer than all of it takes
    assert.notEqual(stuck.exitCode, 0);
    open.resolve();
    await follower.ended;
    assert.equal(bytesSeen, 4_000_000);
    assert.equal((await container.exited).exitCode, 0);
  });

  test('the log can be read afterwards', async () => {
    const { container } = await runScript(sandbox, 'echo one; printf two');
    let text = '';
    for await (const { bytes } of readLog(container.status.logPath, {}, minute()))
      text += Buffer.from(bytes).toString();
    assert.equal(text, 'one\ntwo');
  });

  test('stats have figures of agent, machine and containers', async () => {
    const container = await sandbox.createContainer(specOf('sleep 1000'), minute());
    await container.start(minute());
    const stats = await sandbox.stats(minute());
    assert.ok(stats.agentRssKiB > 0 && stats.agentRssKiB <= 4096, `agent ${stats.agentRssKiB} KiB`);
    assert.ok((await sandbox.vmmPssKiB()) > 10_000);
    assert.ok(stats.containers.some(({ name, pids }) => name === container.status.name && pids === 1));
    await container.stop(0, minute());
  });

  test('a pod is resized while it runs, in the guest and on the host', async () => {
    await using pod = await disposable(
      node.sandboxes.run({ ...sandboxSpec, name: 'sized', resources: { memoryLimitBytes: 64 * mebibyte } }, minute()),
    );
    const limits = async () => ({
      guest: (await runScript(pod, 'cat /sys/fs/cgroup/memory.max')).output, // the container's own: no limit
      pod: (await pod.stats(minute())).memoryLimitBytes,
      host: await hostMemoryLimit(pod.id),
    });
    const before = await limits();
    assert.equal(before.pod, 64 * mebibyte);
    await pod.resize({ memoryLimitBytes: 96 * mebibyte }, minute());
    const after = await limits();
    assert.equal(after.pod, 96 * mebibyte);
    if (before.host !== undefined) {
      assert.equal((after.host ?? 0) - before.host, 32 * mebibyte);
      await pod.resize({ cpuLimitMillis: 500 }, minute());
      assert.equal(await hostCpuMillis(pod.id), 500 + 1000);
    }
    const warnings = await pod.resize({ memoryLimitBytes: 2 ** 50 }, minute());
    assert.match(warnings.join(), /memory limit of pod default\/sized, 1073741824 MiB, is more than there is/);
    assert.ok(((await pod.stats(minute())).memoryLimitBytes ?? 0) > 96 * mebibyte);
  });

  test('a VMM that uses more than pod and overhead is killed by the host, which is reported', async (t) => {
    const limit = await hostMemoryLimit(sandbox.id);
    if (limit === undefined) return t.skip('this host gives us no cgroup');
    await using pod = await disposable(node.sandboxes.run({ ...sandboxSpec, name: 'greedy' }, minute()));
    const container = await pod.createContainer(specOf('sleep 1; tail /dev/zero'), minute());
    await container.start(minute());
    await writeFile(`${await hostCgroup(pod.id)}`, String(24 * mebibyte)).catch(() => undefined); // below what it has: refused or reclaimed
    await writeFile(`${await hostCgroup(pod.id)}`, String(160 * mebibyte));
    const { state, failure } = await pod.ended;
    assert.equal(state, 'failed');
    assert.match(failure ?? '', /the host killed QEMU: it exceeded the memory limit/);
  });

  test('a machine is idle when its containers are, even after an OOM kill', async () => {
    await runScript(sandbox, 'tail /dev/zero', { resources: { memoryLimitBytes: 16 * 1024 * 1024 } });
    const container = await sandbox.createContainer(specOf('sleep 1000'), minute());
    await container.start(minute());
    const cpuSeconds = async () => {
      const fields = (await readFile(`/proc/${sandbox.status.vmmPid}/stat`, 'latin1')).split(' ');
      return (Number(fields[13]) + Number(fields[14])) / 100; // utime and stime, in ticks of 10 ms (proc(5))
    };
    const before = await cpuSeconds();
    await delay(3000); // the measured time, not a wait for an event
    const used = (await cpuSeconds()) - before;
    assert.ok(used < 1, `${used} s of processor time in 3 s`);
    await container.stop(0, minute());
  });

  test('a killed machine fails its sandbox and leaves nothing but its logs', async () => {
    const doomed = await node.sandboxes.run({ ...sandboxSpec, name: 'doomed', network: 'none' }, minute());
    const script = 'echo -n "no luck" > /dev/termination-log; touch /tmp/written; sleep 1000';
    const container = await doomed.createContainer(specOf(script), minute());
    await container.start(minute());
    // By its own clock the guest looks 0.2 s after a write at the latest, and it is answered after what it has looked at.
    const written = await execText(container, ['sh', '-c', 'until [ -e /tmp/written ]; do sleep 0.1; done; sleep 0.3']);
    assert.equal(written.exitCode, 0);
    process.kill(doomed.status.vmmPid ?? 0, 'SIGKILL');
    const status = await doomed.ended;
    assert.equal(status.state, 'failed');
    assert.match(status.failure ?? '', /SIGKILL|killed/);
    const { reason, why, message } = await container.exited;
    assert.deepEqual([reason, String(message)], ['SandboxFailed', 'no luck']);
    assert.match(why ?? '', /SIGKILL|killed/);
    await doomed.remove();
    assert.deepEqual((await readdir(join(node.directory, 'sandboxes'))).length, 1);
  });

  test('an abort while the machine boots leaves nothing', async () => {
    const stop = new AbortController();
    const starting = node.sandboxes.run({ ...sandboxSpec, name: 'aborted', template: 'off' }, stop.signal);
    setTimeout(() => stop.abort(), 1000); // somewhere in the boot, which takes more
    await assert.rejects(starting);
    assert.deepEqual((await readdir(join(node.directory, 'sandboxes'))).length, 1);
    assert.equal(node.sandboxes.get('default', 'aborted'), undefined);
  });
});

describe('a process that is killed', { skip, timeout: 300_000 }, () => {
  test('leaves only what the next one sweeps', async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'run-until-killed.ts')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let directory = '';
    for await (const bytes of child.stdout) {
      directory += String(bytes);
      if (directory.endsWith('\n')) break;
    }
    directory = directory.trim();
    const [id = ''] = await readdir(join(directory, 'sandboxes'));
    const record = await readRecord(join(directory, 'sandboxes', id));
    assert.ok(record?.machine);
    child.kill('SIGKILL');
    await once(child, 'exit');
    assert.equal(await isRunning(record.machine), true);

    await using node = await openNode({ earlier: directory });
    assert.equal(await isRunning(record.machine), false);
    assert.deepEqual(await node.leftovers(), []);
    assert.deepEqual(await readdir(join(directory, 'sandboxes')), []);
  });
});
