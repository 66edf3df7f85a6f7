import assert from 'node:assert/strict';
import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { basename, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { messageOf } from '#base/errors.ts';
import { run } from '#host/process/run.ts';
import { poll } from '#host/wait.ts';
import { containerSpec, sandboxSpec } from '#sandbox/testing/examples.ts';
import { defaultLimits } from '#sandbox/limits.ts';
import type { Parts } from '#sandbox/parts.ts';
import type { Sandbox, SandboxSpec } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm, type NodeOptions } from './node.ts';

const skip = await whyNoVm();
const soon = () => AbortSignal.timeout(120_000);
const dayMs = 24 * 3600 * 1000;

/** Identity of a guest, as reported from inside. */
interface Identity {
  readonly bootId: string;
  readonly mac: string;
  readonly hostname: string;
  readonly random: string;
  readonly uuid: string;
  readonly seconds: number;
}

const questions = [
  'cat /proc/sys/kernel/random/boot_id',
  'cat /sys/class/net/eth0/address 2>/dev/null || echo no NIC',
  'hostname',
  'head -c 16 /dev/urandom | od -An -tx1 | tr -d " "',
  'cat /proc/sys/kernel/random/uuid',
  'date +%s',
];

async function output(sandbox: Sandbox, name: string, script: string): Promise<string> {
  const container = await sandbox.createContainer(
    { ...containerSpec, image: 'localhost/podvm/base:latest', name, command: ['sh', '-c', script] },
    soon(),
  );
  let said = '';
  const follower = container.follow(async ({ bytes }) => void (said += Buffer.from(bytes).toString()));
  await container.start(soon());
  await follower.ended;
  return said;
}

async function ask(sandbox: Sandbox): Promise<Identity> {
  const said = await output(sandbox, 'ask', questions.join('; '));
  const [bootId = '', mac = '', hostname = '', random = '', uuid = '', seconds = ''] = said.split('\n');
  return { bootId, mac, hostname, random, uuid, seconds: Number(seconds) };
}

/** Whether a guest's date is of that time, give or take 10 s: on a busy host, the call that sets it takes time. */
const isBetween = (fromMs: number, seconds: number, untilMs: number) =>
  seconds > fromMs / 1000 - 10 && seconds < untilMs / 1000 + 10;

/** Directory and process id of the VMM that makes a template. */
async function findMaker(directory: string): Promise<{ readonly machine: string; readonly pid: number } | undefined> {
  const sandboxes = join(directory, 'sandboxes');
  const id = (await readdir(sandboxes)).find((name) => name.startsWith('template-'));
  if (id === undefined) return undefined;
  for (const pid of await readdir('/proc')) {
    const program = await readlink(`/proc/${pid}/exe`).catch(() => '');
    if (!program.includes('qemu-system')) continue;
    const mounts = await readFile(`/proc/${pid}/mountinfo`, 'utf8').catch(() => '');
    if (mounts.includes(id)) return { machine: join(sandboxes, id, 'machine'), pid: Number(pid) };
  }
  return undefined;
}

describe('templates', { skip, timeout: 600_000 }, () => {
  const limits = { size: { ...defaultLimits.size, nominalMemoryMiB: 512 } };
  let templates: string;

  before(async () => {
    templates = await mkdtemp('/var/tmp/podvm-templates-');
    await chmod(templates, 0o711); // the VMMs' users pass through
  });
  after(() => rm(templates, { recursive: true, force: true }));

  const open = (options: NodeOptions = {}) => openNode({ limits, templates: join(templates, 't'), ...options });
  const spec = (name: string, more: Partial<SandboxSpec> = {}): SandboxSpec => ({
    ...sandboxSpec,
    name,
    hostname: name,
    ...more,
  });
  const mountsOf = ({ status }: Sandbox) => readFile(`/proc/${status.vmmPid}/mountinfo`, 'utf8');

  test('are made when first needed; two clones differ in everything that must be unique, and have the right time', async () => {
    await using node = await open();
    const [one, other] = await Promise.all([
      node.sandboxes.run(spec('one'), soon()),
      node.sandboxes.run(spec('other'), soon()),
    ]);
    assert.equal((await readdir(join(templates, 't'))).length, 1, 'made once, for both');
    const beforeMs = Date.now();
    const [first, second] = await Promise.all([ask(one), ask(other)]);
    for (const key of ['bootId', 'mac', 'hostname', 'random', 'uuid'] as const) {
      assert.notEqual(first[key], '', key);
      assert.notEqual(first[key], second[key], key);
    }
    for (const { seconds } of [first, second]) assert.ok(isBetween(beforeMs, seconds, Date.now()), `${seconds}`);

    await one.remove();
    const again = await node.sandboxes.run(spec('one'), soon());
    assert.notEqual((await ask(again)).bootId, first.bootId);
  });

  test('names that a pod looks up change few pages of a large machine', async () => {
    const large = { size: { ...defaultLimits.size, nominalMemoryMiB: 4096 } };
    await using node = await open({ limits: large, templates: join(templates, 'large') });
    const sandbox = await node.sandboxes.run(spec('large'), soon());
    const changedKiB = async (): Promise<number> => {
      const mappings = (await readFile(`/proc/${sandbox.status.vmmPid}/smaps`, 'utf8')).split(
        /^(?=[0-9a-f]+-[0-9a-f]+ )/m,
      );
      const sizes = mappings
        .filter((text) => text.includes('/template/memory'))
        .map((text) => /^Anonymous: +(\d+) kB$/m.exec(text)?.[1]);
      assert.ok(sizes.length > 0, 'a restored machine');
      return sizes.reduce((sum, size) => sum + Number(size), 0);
    };
    const changedBy = async (names: number) => {
      const before = await changedKiB();
      await output(sandbox, `names-${names}`, `for i in $(seq ${names}); do test -e /absent-$i; done`);
      return (await changedKiB()) - before;
    };
    await changedBy(1);
    const ofContainer = await changedBy(2);
    const ofNames = (await changedBy(3000)) - ofContainer;
    assert.ok(ofNames < 2000, `3000 names changed ${ofNames} KiB, and a container ${ofContainer} KiB`);
  });

  test('exercised machines wait in a pool; two pods from it differ in everything that must be unique', async () => {
    await using node = await open({ poolSize: 2 });
    await node.sandboxes.warmUp('pool', soon());
    const spares = (await readdir(join(node.directory, 'sandboxes'))).filter((name) => name.startsWith('sb-'));
    assert.equal(spares.length, 2);
    const pods = await Promise.all(['one', 'other'].map((name) => node.sandboxes.run(spec(name), soon())));
    assert.deepEqual(new Set(pods.map(({ id }) => id)), new Set(spares));
    const [first, second] = await Promise.all(pods.map(ask));
    assert.equal(first?.hostname, 'one');
    assert.equal(second?.hostname, 'other');
    for (const key of ['bootId', 'mac', 'random', 'uuid'] as const) assert.notEqual(first?.[key], second?.[key], key);
    for (const pod of pods) {
      const addresses = await output(
        pod,
        'ip',
        "ip -o addr show dev eth0 scope global | awk '{print $4}' | cut -d/ -f1",
      );
      assert.deepEqual(addresses.trim().split('\n'), pod.status.addresses, 'nothing is left of the exercise');
    }
  });

  test('a VMM sees only its template, and cannot write to it', async () => {
    await using node = await open();
    const sandbox = await node.sandboxes.run(spec('one'), soon());
    const mount = (await mountsOf(sandbox)).split('\n').find((line) => line.includes(' /template '));
    assert.match(mount ?? '', / \/template ro,/);
    const [key = ''] = await readdir(join(templates, 't'));
    assert.equal((await stat(join(templates, 't', key, 'memory'))).mode & 0o777, 0o444);
  });

  test('a clone of a day-old one has the right time', async () => {
    await using node = await open({ aheadMs: dayMs });
    const beforeMs = Date.now() + dayMs;
    const { seconds } = await ask(await node.sandboxes.run(spec('one'), soon()));
    assert.ok(isBetween(beforeMs, seconds, Date.now() + dayMs), `${seconds}`);
  });

  test('a truncated one ends the machines that run from it, with the reason; it is never used, and made again', async () => {
    const [key = ''] = await readdir(join(templates, 't'));
    const recordOf = () => readFile(join(templates, 't', key, 'template.json'), 'utf8');
    const record = await recordOf();
    await using node = await open();
    const cut = await node.sandboxes.run(spec('cut'), soon());
    await truncate(join(templates, 't', key, 'memory'), 0);
    await appendFile(join(templates, 't', key, 'state'), 'x');
    output(cut, 'touch', 'ls -lR /').catch(() => undefined); // reads pages that it has not read before
    const { state, failure } = await cut.ended;
    assert.equal(state, 'failed');
    assert.match(failure ?? '', /QEMU was killed by SIGBUS: .*the template's file is truncated/);
    await node.sandboxes.run(spec('one'), soon());
    assert.notEqual(await recordOf(), record); // not the inode: the new file may be given the old one's number
  });

  for (const how of ['SIGKILL', 'SIGSTOP'] as const) {
    test(`one whose machine gets ${how} during its boot fails by its deadline, and pods boot without it`, async () => {
      const own = join(templates, how);
      await using node = await open({ templates: own, limits: { ...limits, templateTimeoutMs: 30_000 } });
      const starting = node.sandboxes.run(spec('one'), soon());
      starting.catch(() => {}); // awaited below
      const maker = await poll(() => findMaker(node.directory), { everyMs: 20, signal: soon() });
      assert.ok(maker);
      const console = join(maker.machine, 'console.log');
      const hasBegun = () =>
        stat(console).then(
          ({ size }) => size > 0 || undefined,
          () => undefined,
        );
      assert.ok(await poll(hasBegun, { everyMs: 1, signal: soon() }));
      process.kill(maker.pid, how);
      const sandbox = await starting;
      assert.doesNotMatch(await mountsOf(sandbox), / \/template /);
      assert.notEqual((await ask(sandbox)).bootId, '');
      assert.deepEqual(await readdir(own).catch(() => []), []);
      assert.deepEqual(
        (await readdir(join(node.directory, 'sandboxes'))).filter((id) => id.startsWith('template-')),
        [],
      );
      await sandbox.remove();
      assert.deepEqual(await node.leftovers(), []);
    });
  }

  test('one that does not fit on the disk names the disk, and its pod boots without it', async () => {
    const disk = join(templates, 'disk');
    await writeFile(`${disk}.img`, '');
    await truncate(`${disk}.img`, 48 * 1024 * 1024);
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-m', '0', `${disk}.img`]);
    await mkdir(disk);
    await run('mount', ['-o', 'loop', `${disk}.img`, disk]);
    try {
      const failures: unknown[] = [];
      const around = (parts: Parts): Parts => {
        const makeTemplate: Parts['driver']['makeTemplate'] = async (...order) => {
          await parts.driver.makeTemplate(...order).catch((error: unknown) => {
            failures.push(error);
            throw error;
          });
        };
        return { ...parts, driver: { ...parts.driver, makeTemplate } };
      };
      const earlier = join(disk, 'node');
      await mkdir(earlier);
      const less = { ...limits, minFreeBytes: 8 * 1024 * 1024 };
      await using node = await open({ earlier, around, limits: less, templates: join(disk, 't') });
      const sandbox = await node.sandboxes.run(spec('one'), soon());
      assert.match(messageOf(failures[0]), /^Cannot make a template: the file system of \S+ is full/);
      assert.doesNotMatch(await mountsOf(sandbox), / \/template /);
      assert.notEqual((await ask(sandbox)).bootId, '');
      await sandbox.remove();
      assert.deepEqual(await readdir(join(earlier, 'sandboxes')), []);
      assert.deepEqual(await node.leftovers(), []);
    } finally {
      await run('umount', [disk]);
    }
  });

  test('a pod may boot without one, as one does that needs more memory than templates have', async () => {
    await using node = await open();
    const [off, large] = await Promise.all([
      node.sandboxes.run(spec('off', { template: 'off' }), soon()),
      node.sandboxes.run(spec('large', { resources: { memoryLimitBytes: 600 * 1024 * 1024 } }), soon()),
    ]);
    for (const sandbox of [off, large]) assert.doesNotMatch(await mountsOf(sandbox), / \/template /);
  });

  test('pods of a namespace share one only among themselves', async () => {
    await using node = await open();
    const of = (namespace: string, name: string) =>
      node.sandboxes.run(spec(name, { namespace, template: 'namespace' }), soon());
    await node.sandboxes.warmUp('template', soon()); // there already, unless this test runs alone
    const before = await readdir(join(templates, 't'));
    const keys = async () => (await readdir(join(templates, 't'))).filter((key) => !before.includes(key)).sort();
    const templateOf = async (sandbox: Sandbox) => / (\S*) \/template /.exec(await mountsOf(sandbox))?.[1];

    const shop = await of('shop', 'one');
    assert.equal((await keys()).length, 1, 'the node’s was not taken');
    const bank = await of('bank', 'one');
    const made = await keys();
    assert.equal(made.length, 2);
    const second = await of('shop', 'two');
    assert.deepEqual(await keys(), made, 'the third pod found one');

    const [inShop, inBank, inSecond] = await Promise.all([shop, bank, second].map(templateOf));
    assert.equal(inShop, inSecond);
    assert.notEqual(inShop, inBank);
    assert.deepEqual(new Set([inShop, inBank].map((path) => basename(path ?? ''))), new Set(made));
    for (const pod of [shop, bank, second]) assert.equal((await ask(pod)).hostname, pod === second ? 'two' : 'one');
    for (const key of made) await rm(join(templates, 't', key), { recursive: true });
  });

  test('a pod without a network is restored from one without a NIC', async () => {
    await using node = await open();
    const sandbox = await node.sandboxes.run(spec('alone', { network: 'none' }), soon());
    assert.match(await mountsOf(sandbox), / \/template /);
    assert.equal((await ask(sandbox)).mac, 'no NIC');
    assert.equal((await readdir(join(templates, 't'))).length, 2);
  });
});
