import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { rawText } from '#base/guest-text.ts';
import { containerSpec, sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Container, ContainerMount, ContainerSpec, Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type Node } from './node.ts';

const minute = () => AbortSignal.timeout(60_000);

let attempts = 0;

/** Runs a script to its end; `beside` runs meanwhile. */
async function runScript(
  sandbox: Sandbox,
  script: string,
  more: Partial<ContainerSpec> = {},
  beside: (container: Container) => Promise<void> = async () => {},
) {
  const spec = {
    ...containerSpec,
    image: 'localhost/podvm/base:latest',
    name: `c${(attempts += 1)}`,
    command: ['sh', '-c', script],
    ...more,
  };
  const container = await sandbox.createContainer(spec, minute());
  const chunks: Buffer[] = [];
  const follower = container.follow(async ({ bytes }) => void chunks.push(Buffer.from(bytes)));
  await container.start(minute());
  await beside(container);
  const exit = await container.exited;
  await follower.ended;
  await container.remove(minute());
  return { exit, lines: Buffer.concat(chunks).toString().trim().split('\n'), status: container.status };
}

async function execText(container: Container, command: readonly string[]) {
  const exec = await container.exec({ command, tty: false, stdin: false }, minute());
  exec.stderr?.resume();
  const chunks = (await Array.fromAsync(exec.stdout)) as Buffer[]; // SAFE: the link's streams carry bytes
  return { ...(await exec.exited), output: Buffer.concat(chunks).toString() };
}

describe('containers of a real machine', { skip: await whyNoVm(), timeout: 300_000 }, () => {
  let node: Node;
  let sandbox: Sandbox;

  before(async () => {
    node = await openNode();
    const files = [{ path: 'shells', bytes: Buffer.from('/bin/sh\n'), mode: 0o644 }];
    const volumes = [{ name: 'etc', kind: 'scratch' } as const, { name: 'files', kind: 'push', files } as const];
    sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'real', hostname: 'real', volumes }, minute());
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  test('a process has as many arguments and variables as its kernel accepts, and more are refused with a message', async () => {
    const variables = Array.from({ length: 15 }, (_, at) => ({ name: `V${at}`, value: 'ü'.repeat(65_000) }));
    // Each takes a NUL and a pointer more than it has bytes; 8 KiB are kept for what the kernel puts beside them.
    const left = 2 * 1024 * 1024 - 8 * 1024 - variables.reduce((sum, { name }) => sum + name.length + 130_000 + 10, 0);
    variables.push({ name: 'REST', value: 'x'.repeat(100_000) }, { name: 'END', value: 'x'.repeat(left - 100_300) });
    const fewer = variables.slice(8);
    const bytes = variables.reduce((sum, { name, value }) => sum + Buffer.byteLength(`${name}=${value}`) + 1, 0);
    const digest = createHash('md5')
      .update(variables[14]?.value ?? '')
      .digest('hex');
    const { lines } = await runScript(sandbox, 'wc -c </proc/self/environ; printf %s "$V14" | md5sum', {
      env: variables,
    });
    assert.ok(Number(lines[0]) > bytes && Number(lines[0]) < bytes + 1000, `${lines[0]} bytes`);
    assert.equal(lines[1]?.split(' ')[0], digest);
    await runScript(sandbox, 'while [ ! -e /done ]; do sleep 0.1; done', { env: fewer }, async (container) => {
      const long = 'x'.repeat(130_000);
      const command = [
        'sh',
        '-c',
        'echo ${#1} $# $(printf %s "$V14" | wc -c); touch /done',
        'sh',
        ...Array<string>(8).fill(long),
      ];
      const { exitCode, output } = await execText(container, command);
      assert.deepEqual({ exitCode, output }, { exitCode: 0, output: '130000 8 130000\n' });
      const refused = { kind: 'invalid', message: /too long \(E2BIG\): the kernel takes/ };
      await assert.rejects(execText(container, [...command, ...Array<string>(8).fill(long)]), refused);
      await assert.rejects(execText(container, ['echo', `${long}${long}`]), refused);
      await assert.rejects(execText(container, ['']), { kind: 'invalid', message: /no command was given/ });
    });
    const more = { env: [...variables, ...variables.map(({ value }, at) => ({ name: `W${at}`, value }))] };
    await assert.rejects(runScript(sandbox, 'true', more), { kind: 'invalid', message: /too long \(E2BIG\)/ });
  });

  test('an image is read a megabyte at a time, since each request costs a guest more than its bytes', async () => {
    const { lines } = await runScript(sandbox, 'sort -n /sys/block/sd*/queue/read_ahead_kb | uniq');
    assert.deepEqual(lines, ['128', '1024'], 'the scratch disk, and images');
  });

  test('mounts are made parents first, including our own, in any requested order', async () => {
    const hosts = join(node.directory, 'hosts');
    await writeFile(hosts, '10.9.9.9 given\n');
    const mount = (name: string, mountPath: string): ContainerMount => ({
      source: { kind: 'volume', name },
      mountPath,
      readOnly: name === 'files',
    });
    const given: ContainerMount = {
      source: { kind: 'host', path: hosts, propagation: 'private' },
      mountPath: '//etc/hosts',
      readOnly: true,
    };
    const script =
      'cat /etc/hosts /etc/hostname /etc/ssh/shells; grep -c nameserver /etc/resolv.conf; echo bye >/etc/last/words';
    const upsideDown = {
      mounts: [mount('files', '/etc/ssh'), given, mount('etc', '/etc/')],
      terminationMessagePath: '/etc/last/words',
    };
    const { lines, exit } = await runScript(sandbox, script, upsideDown);
    assert.deepEqual(lines, ['10.9.9.9 given', 'real', '/bin/sh', '1']);
    assert.equal(exit.message && rawText(exit.message), 'bye\n');
    // A configMap at /etc, read-only, hides neither.
    const readOnly = { mounts: [mount('files', '/etc')], terminationMessagePath: '/etc/last' };
    const inFiles = await runScript(
      sandbox,
      'cat /etc/shells /etc/hostname; touch /etc/x 2>/dev/null || echo bye >/etc/last',
      readOnly,
    );
    assert.deepEqual(
      [inFiles.lines.slice(0, 2), inFiles.exit.message && rawText(inFiles.exit.message)],
      [['/bin/sh', 'real'], 'bye\n'],
    );
  });

  test('a container’s end is after its start, even if it sets the clock', async () => {
    const clock = { security: { ...security, addCapabilities: ['SYS_TIME'] } };
    const { lines, exit, status } = await runScript(
      sandbox,
      'date -s @1000000000 >&2; date +%Y; sleep 1; date -s @4000000000',
      clock,
    );
    assert.ok(lines.includes('2001'), lines.join());
    const ranForMs = exit.finishedAt.getTime() - (status.startedAt?.getTime() ?? Infinity);
    // Less than it slept if the guest's times are late: no time of it is before the container was made.
    assert.ok(ranForMs > 0 && ranForMs < 60_000, `${ranForMs} ms`);
    assert.ok(exit.finishedAt.getTime() <= Date.now());
    const after = await runScript(sandbox, 'true');
    assert.ok(after.exit.finishedAt >= (after.status.startedAt ?? Infinity));
  });
});
