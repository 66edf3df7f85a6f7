import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { isThere } from '#host/file/files.ts';
import { sandboxSpec, security } from '#sandbox/testing/examples.ts';
import type { Container, Sandbox } from '#sandbox/sandbox.ts';
import { openNode, whyNoVm } from './node.ts';
import { execute, startScript } from './scripts.ts';

/**
 * Delay of a pod beside neighbours that flood everything. Other work on this host must not decide the result, so short
 * spans with and without the floods alternate; in the latter, the VMMs of the floods are stopped.
 */
const skip = await whyNoVm();
const mebibyte = 1024 ** 2;
const minute = () => AbortSignal.timeout(60_000);
/** Limit of the time of an exec, as a multiple of its time in a quiet span. */
const times = 2;
/** Number of rounds, each a quiet span and a flooded one. */
const rounds = 12;
/**
 * Flooded execs in a round, and the time between execs in `ms`: long enough that the floods save nothing by being
 * stopped, and that the neighbour's execs, of some 35 ms of a core each, are less than its part of a host with other work.
 */
const [floodedExecs, everyMs] = [3, 800];
/**
 * Time for the traffic of stopped floods to be processed, in `ms`. It is short so that the quiet exec, too, finds little
 * of its code in the processor's caches: an exec right after another takes two thirds of the time of one after a pause.
 */
const settleMs = 100;

const gateway = "$(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p')";
const floods = [
  'yes out', // floods its log and the log's followers
  'yes err >&2',
  'while :; do dd if=/dev/zero of=/f bs=1M count=64 2>/dev/null; sync; done',
  `ping -f ${gateway} >/dev/null; while :; do ping -c 1000 -A ${gateway} >/dev/null; done`,
  'while :; do :; done',
];
const privileged = { ...security, privileged: true, seccomp: { kind: 'unconfined' } } as const;

for (const count of [1, 3]) {
  test(
    `the exec of a pod takes at most ${times} times its quiet time beside ${count} that flood every channel`,
    { skip, timeout: 300_000 },
    async (t) => {
      await using undo = new AsyncDisposableStack();
      const node = undo.use(await openNode());
      const quietPod = await node.sandboxes.run({ ...sandboxSpec, name: 'neighbour' }, minute());
      const neighbour = await startScript(quietPod, 'sleep 100000');
      const flooding: number[] = [];
      const signal = (name: 'SIGSTOP' | 'SIGCONT') => {
        for (const pid of flooding) process.kill(pid, name);
      };
      for (let number = 1; number <= count; number += 1) {
        const resources = { cpuLimitMillis: 1000, memoryLimitBytes: 256 * mebibyte };
        const pod = await node.sandboxes.run({ ...sandboxSpec, name: `floods-${number}`, resources }, minute());
        for (const flood of floods) {
          const container = await startScript(pod, flood, { security: privileged });
          const follower = container.follow(() => Promise.resolve());
          undo.defer(() => follower.stop());
        }
        flooding.push(vmmOf(pod));
      }
      undo.defer(() => signal('SIGCONT'));
      const weights = async () => await Promise.all([vmmOf(quietPod), ...flooding].map(weightOf));
      // The floods first use the savings that they had when they began.
      if (count > 1) {
        await until(async () => {
          const [rested = 0, ...others] = await weights();
          return others.every((weight) => weight < rested);
        });
      }
      const [quiet, flooded]: [number[], number[]] = [[], []];
      for (let round = 0; round < rounds; round += 1) {
        await delay(everyMs);
        signal('SIGSTOP');
        await delay(settleMs);
        quiet.push(await execMs(neighbour));
        signal('SIGCONT');
        for (let exec = 0; exec < floodedExecs; exec += 1) {
          await delay(everyMs); // the floods run
          flooded.push(await execMs(neighbour));
        }
      }
      const [with_, without] = [median(flooded), median(quiet)];
      const words = `${with_.toFixed(0)} ms beside the floods, ${without.toFixed(0)} ms without, weights ${(await weights()).join(' ')}`;
      t.diagnostic(`exec of the neighbour: ${words}`);
      assert.ok(with_ <= times * without, words);
      await undo.disposeAsync();
      assert.deepEqual(await node.leftovers(), []);
    },
  );
}

const vmmOf = ({ status }: Sandbox) => status.vmmPid ?? assert.fail('no VMM');

async function execMs(container: Container): Promise<number> {
  const beganMs = performance.now();
  assert.equal((await execute(container)).exitCode, 0);
  return performance.now() - beganMs;
}

/** Returns the VMM's `cpu.weight` or, with cgroups v1, its `cpu.shares`. */
async function weightOf(pid: number): Promise<number> {
  const [, path = assert.fail('no cgroup')] =
    /^\d+:(?:cpu|cpu,cpuacct)?:(\/podvm.*)$/m.exec(await readFile(`/proc/${pid}/cgroup`, 'utf8')) ?? [];
  const two = join('/sys/fs/cgroup', path, 'cpu.weight');
  const file = (await isThere(two)) ? two : join('/sys/fs/cgroup/cpu', path, 'cpu.shares');
  return Number(await readFile(file, 'utf8'));
}

const median = (values: readonly number[]) =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? assert.fail('nothing was measured');

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = minute();
  while (!(await holds())) await delay(20, undefined, { signal: deadline });
}
