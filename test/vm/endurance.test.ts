import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { heldMemory } from '../held-memory.ts';
import { type Node, openNode, whyNoVm } from './node.ts';
import { openCliNode } from './cli-node.ts';

const skip = await whyNoVm();
const image = 'localhost/podvm/base:latest';
const execs = 1000;
/** Number of execs after which all caches and pools are full. */
const warmUpExecs = 200;
/** Number of pods, one after the other; `PODVM_ENDURANCE=200` runs 200, which takes minutes. */
const pods = Number(process.env['PODVM_ENDURANCE'] ?? 12);
const mebibyte = 1024 * 1024;
const minute = () => AbortSignal.timeout(60_000);

const descriptors = async () => (await readdir('/proc/self/fd')).length;
const children = async () => (await readFile(`/proc/self/task/${process.pid}/children`, 'latin1')).trim();
const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('podvm, after a long day', { skip, timeout: 900_000 }, () => {
  let node: Node;
  before(async () => {
    node = await openNode();
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  const sleeper = async (sandbox: Sandbox): Promise<Container> => {
    const container = await sandbox.createContainer(
      { ...containerSpec, name: 'sleeper', image, command: ['sleep', '100000'] },
      minute(),
    );
    await container.start(minute());
    return container;
  };

  test(`${execs} execs leave no process, no descriptor and no memory behind, in guest and host`, async () => {
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'busy' }, minute());
    const container = await sleeper(sandbox);
    const exec = async () => {
      const { stdout, stderr, exited } = await container.exec(
        { command: ['true'], tty: false, stdin: false },
        minute(),
      );
      stdout.resume();
      stderr?.resume();
      assert.deepEqual(await exited, { exitCode: 0 });
    };
    const measure = async () => {
      await settled();
      const { agentRssKiB, agentFds, containers } = await sandbox.stats(minute());
      const pids = containers.map((each) => each.pids);
      return { agentRssKiB, counts: { agentFds, pids, descriptors: await descriptors(), children: await children() } };
    };
    for (let count = 0; count < warmUpExecs; count += 1) await exec();
    const [atFirst, heldAtFirst] = [await measure(), heldMemory()];
    for (let count = warmUpExecs; count < execs; count += 1) await exec();
    const [atLast, heldAtLast] = [await measure(), heldMemory()];
    assert.deepEqual(atLast.counts, atFirst.counts);
    assert.ok(
      atLast.agentRssKiB - atFirst.agentRssKiB < 128,
      `the agent grew from ${atFirst.agentRssKiB} to ${atLast.agentRssKiB} KiB`,
    );
    assert.ok(
      heldAtLast - heldAtFirst < 4 * mebibyte,
      `the host's process holds ${heldAtLast} bytes, and held ${heldAtFirst}`,
    );
    await sandbox.remove();
  });

  test(`${pods} pods, one after the other, leave nothing`, async () => {
    const live = async (name: string) => {
      const sandbox = await node.sandboxes.run({ ...sandboxSpec, name }, minute());
      await sleeper(sandbox);
      await sandbox.remove();
    };
    const files = async () => {
      const names = await readdir(node.directory, { recursive: true });
      return names.filter((name) => !name.startsWith('images/')).sort();
    };
    await live('first');
    const [filesAtFirst, descriptorsAtFirst] = [await files(), await descriptors()];
    for (let count = 1; count < pods; count += 1) await live(`pod-${count}`);
    await settled();
    assert.deepEqual(await files(), filesAtFirst);
    assert.equal(await descriptors(), descriptorsAtFirst);
    assert.equal(await children(), '');
    assert.deepEqual(await node.leftovers(), []);
  });
});

describe('podvm run', { skip, timeout: 300_000 }, () => {
  test('passes a hundred megabytes unchanged, in bounded memory', async () => {
    const [line, totalBytes] = [
      'the quick brown fox jumps over the lazy dog, and that a million times and more',
      100 * mebibyte,
    ];
    const yaml = `
apiVersion: v1
kind: Pod
metadata: {name: flood}
spec:
  restartPolicy: Never
  containers: [{name: it, image: ${image}, command: [sh, -c, "yes '${line}' | head -c ${totalBytes}"]}]
`;
    await using cli = await openCliNode({ isSetUp: true });
    const env = { ...process.env, PODVM_ROOT: cli.root, PODVM_BACKGROUND: 'off' };
    const child = spawn(join(import.meta.dirname, '../../podvm'), ['run', '-'], {
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.stdin.end(yaml);
    const hash = createHash('sha256');
    let bytesSeen = 0;
    let [peakAtFirst, peak] = [0, 0];
    for await (const bytes of child.stdout as AsyncIterable<Buffer>) {
      hash.update(bytes);
      const mebibytesBefore = Math.floor(bytesSeen / mebibyte);
      bytesSeen += bytes.length;
      if (peak > 0 && Math.floor(bytesSeen / mebibyte) === mebibytesBefore) continue;
      peak = await peakBytes(child.pid ?? 0, peak);
      if (peakAtFirst === 0) peakAtFirst = peak;
    }
    if (child.exitCode === null) await once(child, 'exit');
    assert.equal(child.exitCode, 0);
    assert.equal(bytesSeen, totalBytes);
    assert.equal(hash.digest('hex'), sha256OfLines(line, totalBytes));
    assert.ok(peak - peakAtFirst < 96 * mebibyte, `its memory grew from ${peakAtFirst} to ${peak} bytes`);
  });
});

/** `VmHWM`, in bytes (proc(5)); the previous value, once the process has ended. */
async function peakBytes(pid: number, before: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'latin1').catch(() => '');
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? before / 1024) * 1024;
}

function sha256OfLines(line: string, totalBytes: number): string {
  const hash = createHash('sha256');
  const text = Buffer.from(`${line}\n`.repeat(1024));
  for (let left = totalBytes; left > 0; left -= text.length) hash.update(text.subarray(0, left));
  return hash.digest('hex');
}
