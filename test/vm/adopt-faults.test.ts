import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, statfs, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ContainerState, PodSandboxState } from '#cri/schema/api_pb.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { logLines } from '../log-lines.ts';
import { type CriNode, openCriNode, startPod } from './cri-node.ts';
import { whyNoVm } from './node.ts';

const mebibyte = 1024 * 1024;
const deadlineMs = 120_000;
/** Longer than a machine that does not answer has. */
const stopMs = 31_000;

/** Prints one number after the other. */
const script = 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done';

describe('a daemon that takes over pods', { skip: await whyNoVm(), timeout: 600_000 }, () => {
  let directory: string;
  let node: CriNode;
  let pods: readonly (Awaited<ReturnType<typeof startPod>> & { readonly boot: string })[];

  /** The state directory is on a small disk while there are pods. */
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'podvm-full-'));
    node = await openCriNode();
    await node.end('SIGTERM');
    const image = join(directory, 'disk.img');
    await writeFile(image, '');
    await truncate(image, 2048 * mebibyte);
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-m', '0', '-d', node.cli.root, image]);
    await run('mount', ['-o', 'loop', image, node.cli.root]);
    await run('chmod', ['711', node.cli.root]);
    await node.start();
    pods = await Promise.all(
      ['one', 'two', 'three'].map(async (name) => {
        const pod = await startPod(node, name, script);
        return { ...pod, boot: await bootOf(pod.containerId) };
      }),
    );
  });
  after(async () => {
    for (const podSandboxId of node.ids) await node.runtime.removePodSandbox({ podSandboxId });
    await node.end('SIGTERM');
    await run('umount', [node.cli.root]);
    await node.start();
    await node[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  });

  const bootOf = async (containerId: string) => {
    const cmd = ['cat', '/proc/sys/kernel/random/boot_id'];
    const { stdout } = await node.runtime.execSync({ containerId, cmd, timeout: 60n });
    return Buffer.from(stdout).toString();
  };
  const areTakenOver = async () => {
    for (const { podSandboxId, containerId, boot } of pods) {
      const { status } = await node.runtime.podSandboxStatus({ podSandboxId });
      assert.equal(status?.state, PodSandboxState.SANDBOX_READY, node.log());
      const container = await node.runtime.containerStatus({ containerId });
      assert.equal(container.status?.state, ContainerState.CONTAINER_RUNNING);
      assert.equal(await bootOf(containerId), boot);
    }
  };
  const goesOn = async (count: () => Promise<number>) => {
    const before = await count();
    const hasMore = async () => ((await count()) > before + 20 ? true : undefined);
    assert.ok(await poll(hasMore, { everyMs: 100, signal: AbortSignal.timeout(deadlineMs) }), 'its log does not go on');
  };

  const areLogsWhole = async () => {
    for (const { log } of pods) {
      await goesOn(async () => (await logLines(log)).length);
      const wrong = (await logLines(log)).findIndex((line, at) => line !== String(at + 1));
      assert.equal(wrong, -1, `a line is lost or repeated in ${log}`);
    }
  };

  it('and is killed meanwhile leaves them to the next one, which loses no line', async () => {
    await node.end('SIGKILL');
    for (const moment of [/ accelerator chosen /, / sandbox taken over /, / accelerator chosen /]) {
      const daemon = node.cli.start(['daemon']);
      await daemon.shows(moment);
      daemon.child.kill('SIGKILL');
      await daemon.ended;
    }
    await node.start();
    await areTakenOver();
    await areLogsWhole();
  });

  it('and is then stopped for half a minute fails none of them, and loses no line', async () => {
    process.kill(node.pid, 'SIGSTOP');
    await delay(stopMs);
    process.kill(node.pid, 'SIGCONT');
    await areLogsWhole();
    await areTakenOver();
  });

  it('on a full disk takes them over, and they can be stopped and removed; new ones are refused until there is room', async () => {
    const filler = join(node.cli.root, 'filler');
    const { bavail, bsize } = await statfs(node.cli.root);
    await run('fallocate', ['--length', String(bavail * bsize - mebibyte), filler]);
    const rest = ['if=/dev/zero', `of=${filler}`, 'bs=4K', 'oflag=append', 'conv=notrunc'];
    await run('dd', rest, { okCodes: [1] }); // it ends with ENOSPC
    await node.end('SIGKILL');
    await node.start();
    await areTakenOver();
    await assert.rejects(startPod(node, 'new', script), /free bytes|No space left|file system is full/);
    const [ended, ...others] = pods;
    await node.runtime.stopContainer({ containerId: ended?.containerId ?? '', timeout: 1n });
    await node.runtime.removePodSandbox({ podSandboxId: ended?.podSandboxId ?? '' });
    pods = others;

    await rm(filler);
    for (const { log } of pods) {
      await goesOn(async () => Number(/.* (\d+)\n/s.exec(await readFile(log, 'utf8'))?.[1]));
    }
    await startPod(node, 'new', script);
    await node.end('SIGKILL');
    await node.start();
    await areTakenOver();
  });
});
