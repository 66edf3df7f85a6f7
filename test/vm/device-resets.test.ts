import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Container } from '#sandbox/sandbox.ts';
import { execute, runScript, startScript } from './scripts.ts';
import { type Node, openNode, whyNoVm } from './node.ts';

/**
 * A guest controls its devices' drivers: it may unbind and bind them, and power off or reset its machine with them in
 * any state. QEMU must survive that, or end as requested: a crash of QEMU is a fault that a guest can trigger, whether
 * its machine booted or was restored from a template.
 */
const skip = await whyNoVm();
const minute = () => AbortSignal.timeout(60_000);
const privileged = { ...security, privileged: true, seccomp: { kind: 'unconfined' } } as const;

/**
 * Unbinds a driver from each of its devices and binds it again, a given number of times: `cycle virtio virtio_net 20`.
 * `again` needs no program, since those on a disk may be gone meanwhile.
 */
const cycle = `
cycle() {
  for device in $(ls /sys/bus/$1/drivers/$2 | grep -E '^(virtio[0-9]|LNRO)'); do
    for round in $(seq $3); do
      echo $device > /sys/bus/$1/drivers/$2/unbind
      echo $device > /sys/bus/$1/drivers/$2/bind
    done
    echo "$1 $2 survived"
  done
}
take() {
  for device in $(ls /sys/bus/$1/drivers/$2 | grep -E '^(virtio[0-9]|LNRO)'); do
    echo $device > /sys/bus/$1/drivers/$2/unbind
  done
}
again() {
  cd /sys/bus/virtio/drivers/$1
  for device in virtio*; do
    for round in 1 2 3; do
      echo $device > unbind
      echo $device > bind
    done
  done
}
`;

/** Ends of a machine that its guest causes, with the reported reasons. */
const ends = {
  'is powered off by its kernel': [`${cycle} cycle virtio virtio_net 3; echo o > /proc/sysrq-trigger`, /powered off/],
  'resets itself at once': ['echo b > /proc/sysrq-trigger', /the guest reset itself/],
  panics: ['echo c > /proc/sysrq-trigger', /the guest reset itself|panicked/],
  'loses its disks, then its channel': [`${cycle} take virtio virtio_scsi; take virtio virtio_console`, /link|channel/],
  'resets its disks and its channel, and takes both up again': [
    `${cycle} again virtio_rng; again virtio_scsi; again virtio_console`,
    /link|channel/,
  ],
  'has its drivers taken from the bus below': [`${cycle} take platform virtio-mmio`, /link|channel/],
} as const satisfies Record<string, readonly [string, RegExp]>;

describe('a guest that resets its devices', { skip, timeout: 600_000 }, () => {
  let node: Node;
  let neighbour: Container;

  before(async () => {
    node = await openNode();
    const sandbox = await node.sandboxes.run({ ...sandboxSpec, name: 'neighbour' }, minute());
    neighbour = await startScript(sandbox, 'sleep 100000', { security: privileged });
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    assert.deepEqual(await node.leftovers(), []);
  });

  for (const template of ['on', 'off'] as const) {
    const how = template === 'on' ? 'restored' : 'booted';
    const start = async (name: string) => {
      const sandbox = await node.sandboxes.run({ ...sandboxSpec, name, template }, minute());
      return Object.assign(sandbox, { [Symbol.asyncDispose]: () => sandbox.remove() });
    };

    test(`goes on when it was ${how}, as do its neighbour and its own network`, async () => {
      await using pod = await start(`${how}-lives`);
      const { output } = await runScript(
        pod,
        `${cycle} cycle virtio virtio_net 20; cycle virtio virtio_rng 20; echo lives; cat /proc/uptime`,
        { security: privileged },
      );
      assert.match(output, /^virtio virtio_net survived$/m);
      assert.match(output, /^virtio virtio_rng survived$/m);
      assert.match(output, /^lives$/m);
      assert.equal(pod.status.state, 'ready', pod.status.failure ?? 'no failure');
      assert.match(
        (await runScript(pod, 'cat /sys/class/net/*/address', { security: privileged })).output,
        /^[0-9a-f:]{17}$/m,
      );
      assert.equal((await execute(neighbour)).exitCode, 0);
    });

    test(`that was ${how} ends as it asks to, and QEMU with it; what is told is true`, async () => {
      const tell = async ([what, [script, told]]: readonly [string, readonly [string, RegExp]]) => {
        await using pod = await start(`${how}-${what.replaceAll(/[^a-z]+/g, '-')}`);
        await startScript(pod, script, { security: privileged });
        const deadline = minute();
        while (pod.status.state === 'ready') await delay(20, undefined, { signal: deadline });
        const { failure = '' } = pod.status;
        assert.match(failure, told, `${how}, ${what}`);
        assert.doesNotMatch(failure, /killed by|ended with code/, `${how}, ${what}`);
      };
      await Promise.all(Object.entries(ends).map(tell));
      assert.equal((await execute(neighbour)).exitCode, 0);
    });
  }
});
