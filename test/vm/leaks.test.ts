import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { kindOf, type ErrorKind } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { connectLink } from '#link/connect-link.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { defaultLimits } from '#sandbox/limits.ts';
import type { Parts } from '#sandbox/parts.ts';
import type { SandboxSpec } from '#sandbox/sandbox.ts';
import { adoptBlockClaim, claimBlock } from '#storage/block-claim.ts';
import { makeScratchDisk, makeVolumeDisk } from '#storage/scratch-disk.ts';
import { assertNothingLeaked, tracesOf } from '../leaks.ts';
import { openNode, whyNoVm, type Node, type NodeOptions } from './node.ts';
import { stepping, type AtStep } from './stepping.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(120_000);
const kind = (expected: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), expected, String(error));
  return true;
};
const volumes = [{ name: 'small', kind: 'scratch', sizeLimitBytes: 1024 * 1024 }] as const;
const spec = (more: Partial<SandboxSpec> = {}): SandboxSpec => ({ ...sandboxSpec, name: 'leaky', volumes, ...more });
const port = { hostPort: 19_881, containerPort: 80, protocol: 'TCP' } as const;

/** Fails unless all is as it was before `attempt`, which must fail. */
async function failing(node: Node, expected: ErrorKind, attempt: () => Promise<unknown>): Promise<void> {
  const traces = await tracesOf(node);
  await assert.rejects(attempt(), kind(expected));
  await assertNothingLeaked(node, [...traces, ...firstUse]);
}

/** Directories that the first sandbox makes for all later ones. */
const firstUse = ['file network', 'file network/attachments'];

describe('a start that fails', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let at: AtStep = () => {};
  const around = (parts: Parts): Parts => {
    const tell: AtStep = (step) => at(step);
    const scratch = stepping({ make: makeScratchDisk }, 'scratch', tell);
    const volumeDisk = stepping({ make: makeVolumeDisk }, 'volume disk', tell);
    const link = stepping({ connect: connectLink }, 'link', tell, { connect: 'link' });
    return {
      driver: stepping(parts.driver, 'driver', tell, { start: 'machine' }),
      network: stepping(parts.network, 'network', tell, { prepare: 'attachment' }),
      images: parts.images,
      snapshots: parts.snapshots,
      makeScratchDisk: scratch.make,
      makeVolumeDisk: volumeDisk.make,
      files: parts.files,
      claimBlock,
      adoptBlockClaim,
      modulesDisk: parts.modulesDisk,
      versions: parts.versions,
      connectLink: link.connect,
      openFifos: (fifos) => parts.openFifos(fifos),
    };
  };
  const steps: string[] = [];

  before(async () => {
    node = await openNode({ around });
    at = (step) => void steps.push(step);
    await (await node.sandboxes.run(spec({ hostPorts: [port] }), soon())).remove(); // makes template and bridge too
    at = () => {};
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  test('because it is aborted, at any of its steps, leaves nothing', async () => {
    const aborted = [...new Set(steps)].filter(
      (step) => !/^(network\.(adopt|collect)|machine\.(stop|kill))/.test(step),
    );
    assert.ok(aborted.length > 12, aborted.join(', '));
    const traces = await tracesOf(node);
    for (const chosen of aborted) {
      const stop = new AbortController();
      at = (step) => step === chosen && stop.abort();
      try {
        await (await node.sandboxes.run(spec({ hostPorts: [port] }), stop.signal)).remove(); // it was the last step
      } catch (error) {
        assert.equal(kindOf(error), 'cancelled', `${chosen}: ${String(error)}`);
      } finally {
        at = () => {};
      }
      await assertNothingLeaked(node, traces);
    }
  });

  test('because it is aborted while a machine boots leaves nothing', async () => {
    for (const ms of [400, 1500]) {
      await failing(node, 'cancelled', () => {
        const stop = new AbortController();
        setTimeout(() => stop.abort(), ms);
        return node.sandboxes.run(spec({ template: 'off' }), stop.signal);
      });
    }
  });

  test('because a part fails at any of its calls leaves nothing', async () => {
    const calls = ['scratch.make', 'driver.start', 'link.connect', 'machine.attachDisk', 'link.call configure'];
    for (const chosen of [...calls, 'attachment.connect'].map((call) => `${call} begins`)) {
      assert.ok(steps.includes(chosen), chosen);
      at = (step) => {
        if (step === chosen) throw new Error(`no ${chosen} today`);
      };
      await failing(node, 'internal', () => node.sandboxes.run(spec(), soon()));
      at = () => {};
    }
  });

  test('because its VMM is killed before, while and after its guest starts leaves nothing', async () => {
    for (const chosen of ['driver.start begins', 'driver.start ended', 'link.connect begins', 'link.connect ended']) {
      let killing: Promise<void> | undefined;
      at = (step) => {
        if (step === chosen) killing ??= killVmm(node);
      };
      const traces = await tracesOf(node);
      try {
        const sandbox = await node.sandboxes.run(spec({ template: 'off' }), soon());
        assert.equal(chosen, 'link.connect ended', 'the others come too early for it to be ready');
        assert.equal((await sandbox.ended).state, 'failed');
        await sandbox.remove();
      } catch (error) {
        assert.ok(['unavailable', 'internal'].includes(kindOf(error)), `${chosen}: ${String(error)}`);
      }
      at = () => {};
      await killing;
      await assertNothingLeaked(node, traces);
    }
  });

  test('because its agent is late leaves nothing, and reports the guest’s last lines', async () => {
    await using slow = await openNode({ limits: { bootTimeoutMs: 600 } });
    await failing(slow, 'timeout', () => slow.sandboxes.run(spec({ template: 'off', network: 'none' }), soon()));
  });

  test('because its guest dies while it boots leaves nothing, and does not wait for it', async () => {
    const directory = await mkdtemp('/var/tmp/podvm-initramfs-');
    await run('chmod', ['0711', directory]);
    const initramfs = join(directory, 'initramfs');
    await writeFile(initramfs, Buffer.alloc(4096, 'no archive'));
    await using broken = await openNode({ assets: { initramfs } });
    await failing(broken, 'unavailable', () =>
      broken.sandboxes.run(spec({ template: 'off', network: 'none' }), soon()),
    );
    await rm(directory, { recursive: true });
  });

  test('a base image that is damaged on disk is built again for the next container, and nothing else is left', async () => {
    const traces = await tracesOf(node);
    const sandbox = await node.sandboxes.run(spec({ network: 'none' }), soon());
    const container = { ...containerSpec, image: 'localhost/podvm/base:latest', command: ['true'] };
    await sandbox.createContainer({ ...container, name: 'good' }, soon());
    await sandbox.remove();
    await assertNothingLeaked(node, [...traces, ...(await imageFiles(node))]);

    const rootfs = (await imageFiles(node)).find((file) => file.endsWith('.erofs'));
    assert.ok(rootfs, 'the store has a file of the image');
    const path = join(node.directory, rootfs.replace('file ', ''));
    await run('dd', ['if=/dev/zero', `of=${path}`, 'bs=4096', 'count=4', 'conv=notrunc']); // the super block
    const other = await node.sandboxes.run(spec({ network: 'none' }), soon());
    await other.createContainer({ ...container, name: 'again' }, soon());
    assert.equal(other.status.state, 'ready');
    await other.remove();
    await assertNothingLeaked(node, [...traces, ...(await imageFiles(node))]);
  });
});

describe('a full disk', { skip, timeout: 120_000 }, () => {
  let mountPoint: string;
  before(async () => {
    mountPoint = await mkdtemp('/var/tmp/podvm-full-');
    await run('mount', ['-t', 'tmpfs', '-o', 'size=3m,mode=0711', 'podvm-test', mountPoint]);
  });
  after(async () => {
    await run('umount', [mountPoint]);
    await rm(mountPoint, { recursive: true });
  });

  const open = async (options: NodeOptions) => {
    const earlier = join(mountPoint, 'root');
    await mkdir(earlier);
    return await openNode({ ...options, earlier });
  };

  test('is reported before anything is made', async () => {
    await using node = await open({});
    await failing(node, 'exhausted', () => node.sandboxes.run(spec(), soon()));
  });

  test('is reported when making the scratch disk detects it, and leaves nothing', async () => {
    const size = { ...defaultLimits.size, defaultScratchBytes: 900 * 1024 ** 3 }; // its tables alone do not fit
    await using node = await open({ limits: { minFreeBytes: 0, size } });
    const { bavail, bsize } = await statfs(mountPoint);
    await writeFile(join(mountPoint, 'ballast'), Buffer.alloc(bavail * bsize - 256 * 1024));
    await failing(node, 'exhausted', () => node.sandboxes.run(spec({ network: 'none', template: 'off' }), soon()));
    await rm(join(mountPoint, 'ballast'));
  });
});

async function imageFiles(node: Node): Promise<readonly string[]> {
  const entries = await readdir(join(node.directory, 'images'), { recursive: true });
  return entries.map((entry) => `file images/${entry}`);
}

/** Kills the newest VMM of the node as soon as there is one. */
async function killVmm(node: Node): Promise<void> {
  for (const deadline = soon(); ; deadline.throwIfAborted()) {
    for (const trace of await tracesOf({ ids: node.ids })) {
      const [, pid = ''] = /^process (\d+)/.exec(trace) ?? [];
      const command = pid === '' ? '' : await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
      if (!command.startsWith('/usr/bin/qemu')) continue;
      process.kill(Number(pid), 'SIGKILL');
      return;
    }
    await turn();
  }
}
