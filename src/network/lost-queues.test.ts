import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hasQueues, QueueWatch } from './lost-queues.ts';
import { partsById } from './netns.ts';

/** A `net/dev` file with these frames, of proc_pid_net(5). */
function devices(tap: readonly [received: number, sent: number], pair: readonly [received: number, sent: number]) {
  const line = (name: string, [received, sent]: readonly [number, number]) =>
    `${name.padStart(6)}: ${received * 90} ${received} 0 0 0 0 0 0 ${sent * 90} ${sent} 0 0 0 0 0 0`;
  return ['Inter-|   Receive', ' face |bytes', line('lo', [9, 9]), line('tap0', tap), line('eth0', pair), ''].join(
    '\n',
  );
}

test('QueueWatch raises an alarm when frames arrive at one end and none leaves at the other', () => {
  const watch = new QueueWatch();
  assert.equal(watch.isAlarmed(devices([5, 5], [5, 5])), false);
  assert.equal(watch.isAlarmed(devices([5, 5], [5, 5])), false, 'no traffic');
  assert.equal(watch.isAlarmed(devices([7, 6], [6, 6])), false, 'one of two frames was dropped');
  assert.equal(watch.isAlarmed(devices([8, 6], [6, 6])), true);
  assert.equal(watch.isAlarmed(devices([8, 6], [7, 6])), true);
  assert.equal(watch.isAlarmed(''), false, 'its process has ended');
});

test('QueueWatch raises alarms less often after false ones, until one is justified', () => {
  const watch = new QueueWatch();
  let frames = 0;
  const stuck = () => watch.isAlarmed(devices([(frames += 1), 0], [0, 0]));
  const untilAlarm = () => {
    let looks = 1;
    while (!stuck()) looks += 1;
    return looks;
  };
  stuck();
  const looks = Array.from({ length: 7 }, () => {
    const needed = untilAlarm();
    watch.looked(true);
    return needed;
  });
  assert.deepEqual(looks, [1, 2, 4, 8, 16, 17, 17]);
  untilAlarm();
  watch.looked(false);
  assert.equal(untilAlarm(), 1);
});

test('partsById() separates tc’s lists of several netns, and skips unreadable ones', () => {
  const redirect = (name: string) => `\taction order 1: mirred (Egress Redirect to device ${name}) stolen\n`;
  const filter = 'filter protocol all pref 1 bpf chain 0 handle 0x1 bytecode direct-action not_in_hw\n';
  const whole = filter + redirect('tap0') + filter + redirect('eth0');
  const listed = `netns sb-1\n${whole}netns sb-2\nnetns sb-3\n${redirect('tap0')}unknown\nnetns sb-4\n${redirect('tap0')}`;
  const texts = partsById(listed);
  assert.deepEqual([...texts.keys()], ['sb-1', 'sb-2', 'sb-4']);
  const areThere = [...texts.values()].map((text) => hasQueues({ isFiltered: true }, text));
  assert.deepEqual(areThere, [true, false, false]);
  assert.equal(hasQueues({ isFiltered: true }, redirect('tap0') + redirect('eth0')), false, 'a filter is missing');
  assert.equal(hasQueues({ isFiltered: false }, redirect('tap0') + redirect('eth0')), true);
});
