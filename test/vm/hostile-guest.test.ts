import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { rawText } from '#base/guest-text.ts';
import { run } from '#host/process/run.ts';
import { limits } from '#wire/limits.ts';
import { maxConsoleBytes } from '#vm/qemu/console/console-log.ts';
import { sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { execute, runScript, startScript } from './scripts.ts';
import { type Node, openNode, whyNoVm } from './node.ts';

/**
 * Attacks from inside: actions of a pod in its machine, privileged or not, and their effect on its neighbour. Each
 * attacker has a machine of its own; there is one neighbour for all.
 */
const skip = await whyNoVm();
const mebibyte = 1024 * 1024;
const minute = () => AbortSignal.timeout(60_000);
const privileged = { ...security, privileged: true, seccomp: { kind: 'unconfined' } } as const;

describe('a hostile guest', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let neighbour: Container;

  before(async () => {
    node = await openNode();
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'neighbour' }, minute());
    neighbour = await startScript(sandbox, 'sleep 100000');
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  const attacker = async (name: string, resources: Sandbox['spec']['resources'] = {}) => {
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, name, resources }, minute());
    return Object.assign(sandbox, { [Symbol.asyncDispose]: () => sandbox.remove() });
  };
  /** Asserts that the neighbour works: an exec in it answers. */
  const assertNeighbourLives = async () => assert.equal((await execute(neighbour, ['true'])).exitCode, 0);

  test('that forks endlessly stops only itself', async () => {
    await using pod = await attacker('forks', { memoryLimitBytes: 128 * mebibyte, pidsLimit: 200 });
    const bomb = await startScript(pod, 'f() { f | f & }; f; while :; do f; done');
    await until(async () => (await pod.stats(minute())).pids > 100);
    await assertNeighbourLives();
    assert.ok((await pod.stats(minute())).pids <= 202); // with the machine's own
    await bomb.stop(0, minute());
  });

  test('that fills its disk fills neither the node’s nor its neighbour’s', async () => {
    await using pod = await attacker('fills', { ephemeralStorageBytes: 64 * mebibyte });
    const { output } = await runScript(pod, 'dd if=/dev/zero of=/file bs=1M count=300 2>&1; df -m / | tail -1');
    assert.match(output, /No space left/);
    const { stdout } = await run('du', ['-sk', join(node.directory, 'sandboxes', pod.id)]);
    const takenKiB = Number.parseInt(stdout, 10);
    assert.ok(takenKiB > 32 * 1024 && takenKiB < 80 * 1024, `${takenKiB} KiB of the node, image and logs included`);
    assert.equal((await execute(neighbour, ['sh', '-c', 'echo x > /y'])).exitCode, 0);
  });

  test('that writes to its console endlessly fills one mebibyte', async () => {
    await using pod = await attacker('talks');
    const script = 'mknod /tmp/tty c 4 64; yes this is what a console is for > /tmp/tty';
    await startScript(pod, script, { security: privileged });
    await until(async () => (await stat(pod.consolePath)).size > maxConsoleBytes / 4);
    await delay(1000); // the span that is looked at
    assert.ok((await stat(pod.consolePath)).size <= maxConsoleBytes);
    await assertNeighbourLives();
  });

  test('that holds every stream open is refused another, unlike its neighbour', async () => {
    await using pod = await attacker('holds', { memoryLimitBytes: 512 * mebibyte });
    const container = await startScript(pod, 'sleep 100000');
    const held = [];
    for (let count = 0; count < limits.maxExecs; count += 1) {
      held.push(await container.exec({ command: ['sleep', '100000'], tty: false, stdin: true }, minute()));
    }
    const one = container.exec({ command: ['true'], tty: false, stdin: false }, minute());
    await assert.rejects(one, { kind: 'exhausted' });
    await assertNeighbourLives();
    for (const { stdout, stderr } of held) {
      stdout.resume();
      stderr?.resume();
    }
  });

  test('with all capabilities and privileges has its own kernel, devices and names, never the host’s', async () => {
    await using pod = await attacker('privileged');
    const { output } = await runScript(pod, whoAmI, { security: privileged });
    const seen = Object.fromEntries(
      output.split('\n').flatMap((line) => {
        const [name = '', ...rest] = line.split('=');
        return rest.length === 0 ? [] : [[name, rest.join('=').trim()]];
      }),
    );
    const ofHost = async (path: string) => (await readFile(path, 'utf8')).trim();
    assert.notEqual(seen['boot'], await ofHost('/proc/sys/kernel/random/boot_id'));
    assert.notEqual(seen['version'], await ofHost('/proc/version'));
    assert.equal(seen['caps'], '000001fffffeffff'); // all but CAP_SYS_MODULE
    assert.equal(seen['port'], 'refused', output); // the channel to the host
    assert.equal(seen['module'], 'refused', output);
    assert.equal(seen['agent'], 'hidden', 'PID 1 of the guest is seen by a container');
    assert.match(seen['devices'] ?? '', /sda|sdb/); // its machine's
    assert.doesNotMatch(seen['devices'] ?? '', /vport|nvme|vda|kvm/);
    assert.match(seen['links'] ?? '', /^(lo|eth0)( (lo|eth0))*$/);
  });

  test('cannot make us read another file as its termination message, or more than the limit', async () => {
    await using pod = await attacker('last-words');
    const ends = async (script: string) => {
      const { message } = await runScript(pod, script, { security: privileged });
      return message && rawText(message);
    };
    assert.equal((await ends('yes long | head -c 100000 > /dev/termination-log'))?.length, 4096);
    const link = 'umount /dev/termination-log; rm -f /dev/termination-log; ln -s /proc/1/environ /dev/termination-log';
    assert.equal(await ends(link), undefined);
    assert.equal(
      await ends('umount /dev/termination-log; rm -f /dev/termination-log; mkfifo /dev/termination-log'),
      undefined,
    );
    await assertNeighbourLives();
  });

  test('whose VMM hangs delays no other, and can be removed', async () => {
    const pod = await node.sandboxes.run({ ...sandboxSpec, name: 'stands-still' }, minute());
    await startScript(pod, 'sleep 100000');
    process.kill(pod.status.vmmPid ?? 0, 'SIGSTOP');
    const asked = assert.rejects(pod.stats(AbortSignal.timeout(500)), { kind: 'timeout' });
    await assertNeighbourLives();
    await asked;
    const beganMs = performance.now();
    await pod.remove();
    assert.ok(performance.now() - beganMs < 40_000);
  });
});

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = minute();
  while (!(await holds())) await delay(50, undefined, { signal: deadline });
}

/** Tries attacks of a container, and prints the results. It can make a node for every device of the machine. */
const whoAmI = `
echo boot=$(cat /proc/sys/kernel/random/boot_id)
echo version=$(cat /proc/version)
echo caps=$(sed -n 's/CapEff:.//p' /proc/self/status)
echo devices=$(ls /dev)
echo links=$(ls /sys/class/net)
grep -q podvm /proc/1/comm 2>/dev/null || grep -q init /proc/1/comm && echo agent=seen || echo agent=hidden
major=$(sed -n 's/ *\\([0-9]*\\) virtio-portsdev/\\1/p' /proc/devices)
mknod /tmp/port c $major 1
mkdir -p /tmp/devtmpfs && mount -t devtmpfs x /tmp/devtmpfs
ls -l /tmp/port /tmp/devtmpfs/vport*
port=refused
for each in /tmp/port /tmp/devtmpfs/vport*; do (exec 3<$each) && port=opened; done
echo port=$port
head -c 100 /dev/zero > /tmp/evil.ko
insmod /tmp/evil.ko 2>&1 | grep -q 'Operation not permitted' && echo module=refused || echo "module=tried: $(insmod /tmp/evil.ko 2>&1)"
`;
