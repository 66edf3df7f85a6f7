import assert from 'node:assert/strict';
import { readdir, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { untilAborted } from '#host/until-aborted.ts';
import { containerSpec, sandboxSpec } from '../testing/examples.ts';
import { readLog } from '../log/read-log.ts';
import type { Container } from '../sandbox.ts';
import { openFakeFifos } from '../testing/fake-parts.ts';
import { is, never, openFakeSandboxes, startedContainer } from '../testing/fake-sandboxes.ts';

test('a container runs, and reports its exit code and termination message', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container, exit } = await startedContainer(sandbox, place.parts);
  assert.equal(container.status.state, 'running');
  place.parts.guest.answers.set('readFile', () => ({
    data: Buffer.from('out of luck').toString('base64'),
    truncated: false,
  }));
  exit(7);
  const { exitCode, reason, message } = await container.exited;
  assert.deepEqual(
    { exitCode, reason, message: String(message) },
    { exitCode: 7, reason: 'Error', message: 'out of luck' },
  );
  assert.equal(container.status.state, 'exited');
});

const told = (container: Container, text: string) =>
  ({
    kind: 'terminationMessage',
    containerId: container.status.id,
    data: Buffer.from(text).toString('base64'),
  }) as const;

test('a container whose machine dies has the last message reported by the guest, and the reason of the death', async () => {
  await using place = await openFakeSandboxes();
  const { parts } = place;
  const { container } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), parts);
  for (const text of ['first', 'last']) parts.guest.tell(told(container, text));
  parts.killMachine('QEMU was killed by SIGKILL');
  const { reason, why, message } = await container.exited;
  assert.deepEqual([reason, why, String(message)], ['SandboxFailed', 'QEMU was killed by SIGKILL', 'last']);
});

test('a container whose message cannot be read at its end has the last one reported by the guest', async () => {
  await using place = await openFakeSandboxes();
  const { parts } = place;
  const { container, exit } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), parts);
  parts.guest.tell(told(container, 'told'));
  parts.guest.answers.set('readFile', () => {
    throw new PodvmError('unavailable', 'the link is lost');
  });
  exit(7);
  const { exitCode, why, message } = await container.exited;
  assert.deepEqual([exitCode, why, String(message)], [7, undefined, 'told']);
});

test('a container killed for lack of memory is reported as such', async () => {
  await using place = await openFakeSandboxes();
  const { container, exit } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), place.parts);
  exit(137, { oomKilled: true, signal: 9 });
  assert.equal((await container.exited).reason, 'OOMKilled');
});

test('a command that cannot run makes a container that has exited with StartError', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  place.parts.guest.answers.set('createContainer', () => {
    throw new PodvmError('failedPrecondition', 'crun: executable file `nope` not found in $PATH');
  });
  const container = await sandbox.createContainer(containerSpec, never);
  const exit = await container.exited;
  assert.deepEqual([exit.exitCode, exit.reason], [127, 'StartError']);
  assert.match(exit.why ?? '', /executable file `nope` not found/);
  await assert.rejects(container.start(never), {
    message: /Cannot start container main: .*not found/,
    fix: /^Name a program of the image/,
  });
});

test('createContainer() leaves nothing behind when the image is missing', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  await assert.rejects(sandbox.createContainer({ ...containerSpec, image: 'missing' }, never), is('notFound'));
  assert.deepEqual(sandbox.status.containers, []);
  await sandbox.createContainer(containerSpec, never);
});

const sharing = (path: string, name = 'main') => ({
  ...containerSpec,
  name,
  mounts: [
    { source: { kind: 'host', path, propagation: 'private' } as const, mountPath: '/mnt', readOnly: false } as const,
  ],
});

test('createContainer() leaves nothing of a shared volume when one of its steps fails or is aborted', async () => {
  await using place = await openFakeSandboxes();
  const { parts, directory } = place;
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const shared = () => [...parts.alive].filter((name) => /^(port|server)/.test(name));
  for (const step of ['machine.attachPort', 'serveFiles', 'call createVolume', 'call createContainer']) {
    for (const how of ['fails', 'is aborted'] as const) {
      const stop = new AbortController();
      parts.before = async (name, signal) => {
        if (name === step && how === 'fails') throw new PodvmError('internal', `no ${step}`);
        if (name === step) stop.abort();
        signal.throwIfAborted();
      };
      await assert.rejects(sandbox.createContainer(sharing(directory), stop.signal), `${step} ${how}`);
      parts.before = async (_name, signal) => signal.throwIfAborted();
      assert.deepEqual(shared(), [], `${step} ${how}`);
    }
  }
});

test("createContainer() prepares a container's image, volumes and output at the same time", async () => {
  await using place = await openFakeSandboxes();
  const { parts, directory } = place;
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const deadline = AbortSignal.timeout(60_000);
  const begun = new Map(['machine.attachDisk', 'serveFiles', 'fifos'].map((step) => [step, Promise.withResolvers()]));
  const meet = async (step: string) => {
    begun.get(step)?.resolve(undefined);
    if (begun.has(step)) await untilAborted(Promise.all([...begun.values()].map(({ promise }) => promise)), deadline);
  };
  parts.before = meet;
  parts.openFifos = async (fifos) => {
    await meet('fifos');
    return await openFakeFifos(fifos);
  };
  await sandbox.createContainer({ ...sharing(directory), outputFifos: { stdout: '/run/fifo' } }, never);
});

test('removing the last container of a shared volume removes the mount in the guest, the server and the port', async () => {
  await using place = await openFakeSandboxes();
  const { parts, directory } = place;
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const [one, other] = [
    await sandbox.createContainer(sharing(directory, 'one'), never),
    await sandbox.createContainer(sharing(directory, 'other'), never),
  ];
  const isShared = () => [...parts.alive].some((name) => name.startsWith('server'));
  const seen: string[] = [];
  parts.before = async (name) => {
    if (/removeVolume|detachPort/.test(name)) seen.push(`${name} ${isShared() ? 'before' : 'after'} the server's end`);
  };
  await one.stop(0, never);
  await one.remove(never);
  assert.ok(isShared());
  await other.stop(0, never);
  await other.remove(never);
  assert.deepEqual(seen, ["call removeVolume before the server's end", "machine.detachPort after the server's end"]);
});

test('a shared volume ends with its sandbox, even if the guest does not release it', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  await sandbox.createContainer(sharing(place.directory), never);
  place.parts.guest.answers.set('removeVolume', () => {
    throw new PodvmError('busy', 'something uses it');
  });
  assert.equal((await sandbox.stop(0)).state, 'stopped');
  await sandbox.remove();
});

test('createContainer() attaches an image once, and refuses the same attempt twice', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  await Promise.all(['a', 'b', 'c'].map((name) => sandbox.createContainer({ ...containerSpec, name }, never)));
  const attached = place.parts.guest.calls.filter(({ params }) => params['fileSystem'] === 'erofs');
  assert.equal(attached.length, 1);
  await assert.rejects(sandbox.createContainer({ ...containerSpec, name: 'a' }, never), is('alreadyExists'));
});

test('createContainer() attaches the modules once, for containers with CAP_NET_ADMIN, and gives none CAP_SYS_MODULE', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const given = async (name: string, security: Partial<typeof containerSpec.security>) => {
    await sandbox.createContainer(
      { ...containerSpec, name, security: { ...containerSpec.security, ...security } },
      never,
    );
    const { params } = place.parts.guest.calls.findLast(({ method }) => method === 'createContainer') ?? assert.fail();
    const { capabilities } = params['process'] as { capabilities: string[] }; // SAFE: the wire's schema
    return [params['modulesDisk'], capabilities.includes('CAP_NET_ADMIN'), capabilities.includes('CAP_SYS_MODULE')];
  };
  assert.deepEqual(await given('plain', { addCapabilities: ['SYS_MODULE'] }), [undefined, false, false]);
  assert.deepEqual(await given('mesh', { addCapabilities: ['NET_ADMIN'] }), ['modules', true, false]);
  assert.deepEqual(await given('all', { privileged: true }), ['modules', true, false]);
  const attached = place.parts.guest.calls.filter(({ params }) => params['serial'] === 'modules');
  assert.equal(attached.length, 1);
});

test('createContainer() leaves a container CAP_SYS_MODULE if its pod has open kernel modules', async () => {
  await using place = await openFakeSandboxes();
  const annotations = { 'podvm.dev/kernel-modules': 'open' };
  const sandbox = await place.sandboxes.run({ ...sandboxSpec, annotations }, never);
  const security = { ...containerSpec.security, privileged: true };
  await sandbox.createContainer({ ...containerSpec, security }, never);
  const params = place.parts.guest.calls.findLast(({ method }) => method === 'createContainer')?.params ?? {};
  assert.match(JSON.stringify(params['process']), /CAP_SYS_MODULE/);
});

test('run() allows every pod low ports and ping, unless its own sysctls differ', async () => {
  await using place = await openFakeSandboxes();
  const sysctls = { 'net.ipv4.ip_unprivileged_port_start': '1024', 'net.core.somaxconn': '1' };
  await place.sandboxes.run({ ...sandboxSpec, sysctls }, never);
  const connect = place.parts.guest.calls.find(({ method }) => method === 'connect');
  assert.deepEqual(connect?.params['sysctls'], { ...sysctls, 'net.ipv4.ping_group_range': '0 2147483647' });
});

test('output is byte-exact in log and follower', async () => {
  await using place = await openFakeSandboxes();
  const { container, exit, output } = await startedContainer(
    await place.sandboxes.run(sandboxSpec, never),
    place.parts,
  );
  let followed = '';
  const follower = container.follow(async ({ bytes }) => {
    followed += Buffer.from(bytes).toString('latin1');
  });
  output.stdout.end('one\ntwo');
  output.stderr.end();
  exit(0);
  await Promise.all([container.exited, follower.ended]);
  assert.equal(followed, 'one\ntwo');
  let logged = '';
  for await (const { bytes } of readLog(container.status.logPath, {}, never)) logged += Buffer.from(bytes).toString();
  assert.equal(logged, 'one\ntwo');
});

test('a container logs where its spec says, and only a running one can reopen its log', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const logPath = join(place.directory, 'elsewhere/main/0.log');
  const container = await sandbox.createContainer({ ...containerSpec, logPath }, never);
  assert.equal(container.status.logPath, logPath);
  await rename(logPath, `${logPath}.1`);
  await container.reopenLog();
  assert.deepEqual((await readdir(join(place.directory, 'elsewhere/main'))).sort(), ['0.log', '0.log.1']);
  await container.stop(0, never);
  await assert.rejects(container.reopenLog(), is('failedPrecondition'));
});

test('update() checks limits before it calls the guest', async () => {
  await using place = await openFakeSandboxes();
  const { container } = await startedContainer(await place.sandboxes.run(sandboxSpec, never), place.parts);
  await assert.rejects(container.update({ memoryLimitBytes: 5 }, never), is('invalid'));
  await container.update({ memoryLimitBytes: 2 ** 24, cpuLimitMillis: 500 }, never);
  const asked = place.parts.guest.calls.filter(({ method }) => method === 'updateContainer');
  assert.deepEqual(
    asked.map(({ params }) => params['resources']),
    [{ memoryLimitBytes: 2 ** 24, cpuQuotaUs: 50_000, cpuPeriodUs: 100_000 }],
  );
});

test('exec() returns the exit code, and refuses a container that does not run', async () => {
  await using place = await openFakeSandboxes();
  const sandbox = await place.sandboxes.run(sandboxSpec, never);
  const { container, exit } = await startedContainer(sandbox, place.parts);
  const ls = { command: ['ls'], tty: false, stdin: false };
  const exec = await container.exec(ls, never);
  exit(3, { execId: 'exec-0' });
  assert.deepEqual(await exec.exited, { exitCode: 3 });
  assert.equal(container.status.state, 'running');
  exit(0);
  await container.exited;
  await assert.rejects(container.exec(ls, never), is('failedPrecondition'));
});
