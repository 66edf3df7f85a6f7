import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmod,
  chown,
  mkdir,
  mkdtemp,
  open,
  readFile,
  readdir,
  readlink,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectLink } from '#link/connect-link.ts';
import { describeMachineDriver } from '#vm/testing/driver.conformance.ts';
import type { DriverHarness } from '#vm/testing/driver-harness.ts';
import type { Machine, MachineRecord, MachineSpec } from '#vm/driver.ts';
import type { QemuDriverOptions } from '#vm/qemu/driver-options.ts';
import { createQemuDriver } from '#vm/qemu/qemu-driver.ts';
import { tracesOf } from '../leaks.ts';
import { readAssets, whyNoVm } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(60_000);
/** A user that no sandbox of ours has. */
const uid = 64_999;

async function openHarness(more: Partial<QemuDriverOptions> = {}): Promise<DriverHarness> {
  const assets = await readAssets();
  assert.ok(assets);
  const root = await mkdtemp('/var/tmp/podvm-machine-');
  await chmod(root, 0o711);
  const options = { assets, accelerator: 'tcg', templates: join(root, 'templates'), ...more } as const;
  const driver = createQemuDriver(options);
  const mark = root.slice(-6).toLowerCase();
  let made = 0;
  return {
    driver,
    makeSpec: async () => {
      const id = `m-${mark}-${(made += 1)}`;
      const directory = join(root, id);
      await mkdir(directory);
      return { id, directory, memoryMiB: 256, vcpus: 1, uid, from: 'boot' };
    },
    async makeDiskFile({ directory }, file) {
      await using disk = await open(join(directory, file), 'wx', 0o600);
      await disk.truncate(1024 * 1024);
      await chown(join(directory, file), uid, uid);
    },
    growDiskFile: ({ directory }, file, sizeBytes) => truncate(join(directory, file), sizeBytes),
    async leftovers({ directory }) {
      const traces = await tracesOf({ directory, ids: [] });
      return traces.filter((trace) => !/^file .*(\.img|\.log)$/.test(trace));
    },
    killFromOutside: async ({ record }) => void process.kill(record.pid, 'SIGKILL'),
    powerOffGuest,
    startElsewhere: (spec) => startElsewhere({ ...options, spec }),
    [Symbol.asyncDispose]: () => rm(root, { recursive: true }),
  };
}

/** Powers off by a call to the agent, as a stopping sandbox does. */
async function powerOffGuest(machine: Machine): Promise<void> {
  const open = (signal: AbortSignal) => machine.connect(signal);
  await using link = await connectLink({ open, handshakeTimeoutMs: 60_000, callTimeoutMs: 10_000 }, soon());
  await link.call('shutdown', { graceMs: 0 }, soon()).catch(() => undefined); // its end may be faster than its answer
  await machine.exited;
}

async function startElsewhere(
  input: Parameters<typeof createQemuDriver>[0] & { readonly spec: MachineSpec },
  /** Descriptor that a shell opens for it, with a number above those that Node closes itself. */
  inherited?: string,
): Promise<MachineRecord> {
  const command = [process.execPath, join(import.meta.dirname, 'start-and-leave.ts'), JSON.stringify(input)];
  const before = inherited === undefined ? '' : 'exec 200<"$0"; ';
  const child = spawn('bash', ['-c', `${before}exec "$@"`, inherited ?? '', ...command], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const output = await Array.fromAsync(child.stdout as AsyncIterable<Buffer>);
  if (child.exitCode === null) await once(child, 'exit');
  assert.equal(child.exitCode, 0);
  return JSON.parse(Buffer.concat(output).toString()) as MachineRecord; // SAFE: our own program printed it
}

describeMachineDriver('QEMU', () => openHarness(), { skip, abortsAtMs: [0, 5, 20, 40, 60, 90, 130, 180, 250] });

test(
  'a machine runs as an unprivileged user, in separate namespaces, without capabilities',
  { skip, timeout: 60_000 },
  async () => {
    await using harness = await openHarness();
    await using machine = await harness.driver.start(await harness.makeSpec(), soon());
    const { pid } = machine.record;
    const status = await readFile(`/proc/${pid}/status`, 'utf8');
    assert.match(status, new RegExp(`^Uid:\\t${uid}\\t${uid}\\t${uid}\\t${uid}$`, 'm'));
    assert.match(status, /^Groups:\t ?(64999)? ?$/m);
    assert.match(status, /^NoNewPrivs:\t1$/m);
    assert.match(status, /^Seccomp:\t2$/m);
    for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb']) assert.match(status, new RegExp(`^Cap${set}:\\t0+$`, 'm'));
    const namespaceOf = async (of: string | number, name: string) => (await stat(`/proc/${of}/ns/${name}`)).ino;
    for (const name of ['mnt', 'pid', 'ipc', 'uts', 'net', 'user', 'cgroup']) {
      assert.notEqual(await namespaceOf(pid, name), await namespaceOf('self', name), name);
    }
  },
);

test('a machine has no descriptor that its starter inherited', { skip, timeout: 60_000 }, async () => {
  await using harness = await openHarness();
  const spec = await harness.makeSpec();
  const path = join(spec.directory, '..', 'secret');
  await writeFile(path, 'x', { mode: 0o600 });
  const assets = (await readAssets()) ?? assert.fail('no assets');
  const record = await startElsewhere({ assets, accelerator: 'tcg', spec }, path);
  await using machine = (await harness.driver.adopt(record, soon())) ?? assert.fail('not taken over');
  const { pid } = machine.record;
  const links = await Promise.all((await readdir(`/proc/${pid}/fd`)).map((fd) => readlink(`/proc/${pid}/fd/${fd}`)));
  assert.deepEqual(
    links.filter((link) => link.endsWith('/secret')),
    [],
  );
});

test('a machine gets a negative OOM score, or one warning says that the host forbids it', { skip }, async () => {
  const said: string[] = [];
  await using harness = await openHarness({ onUnprotected: (why) => said.push(why) });
  const hostLimits = { memoryBytes: 1024 ** 3, cpuMillis: undefined, cpuShares: 1024, oomScoreAdj: -997 };
  for (const spec of [await harness.makeSpec(), await harness.makeSpec()]) {
    await using machine = await harness.driver.start({ ...spec, hostLimits }, soon());
    const score = Number(await readFile(`/proc/${machine.record.pid}/oom_score_adj`, 'latin1'));
    if (score !== -997) assert.deepEqual([score, said.length], [0, 1]);
    await machine.limitHost({ ...hostLimits, oomScoreAdj: 500 });
    assert.equal(Number(await readFile(`/proc/${machine.record.pid}/oom_score_adj`, 'latin1')), 500);
  }
});

test(
  'a machine without a console keeps none, still answers, and can be taken over',
  { skip, timeout: 60_000 },
  async () => {
    await using harness = await openHarness({ console: 'off' });
    const spec = await harness.makeSpec();
    const record = await harness.startElsewhere(spec);
    await using machine = (await harness.driver.adopt(record, soon())) ?? assert.fail('not taken over');
    assert.deepEqual((await readdir(join(spec.directory, 'sockets'))).sort(), ['agent', 'qmp']);
    await powerOffGuest(machine);
    assert.equal((await machine.exited).state, 'stopped');
    await assert.rejects(stat(machine.consolePath), { code: 'ENOENT' });
  },
);

test(
  'a machine that the host does not bound runs with a word, or not at all where it must',
  { skip, timeout: 60_000 },
  async () => {
    const hostLimits = { memoryBytes: Number.NaN, cpuMillis: undefined, cpuShares: 1024 }; // the kernel refuses it
    const said: string[] = [];
    await using lax = await openHarness({ onUnconfined: (why) => said.push(why) });
    for (const spec of [await lax.makeSpec(), await lax.makeSpec()]) {
      await using machine = await lax.driver.start({ ...spec, hostLimits }, soon());
      assert.equal(machine.state, 'running');
    }
    assert.equal(said.length, 1);

    await using strict = await openHarness({ requiresCgroup: true });
    const spec = await strict.makeSpec();
    await assert.rejects(strict.driver.start({ ...spec, hostLimits }, soon()), { kind: 'failedPrecondition' });
    assert.deepEqual(await strict.leftovers(spec), []);
  },
);
