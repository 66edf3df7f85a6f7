import assert from 'node:assert/strict';
import { test } from 'node:test';
import { limits } from '#wire/limits.ts';
import { interfaceCounters, parseInterfaces } from './interface-counters.ts';

const head = 'Inter-|   Receive                |  Transmit\n face |bytes    packets errs drop |bytes    packets\n';
const line = (name: string) => `${name.padStart(6)}: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n`;
const counters = {
  rxBytes: 1,
  rxPackets: 2,
  rxErrors: 3,
  rxDropped: 4,
  txBytes: 5,
  txPackets: 6,
  txErrors: 7,
  txDropped: 8,
};

test('parseInterfaces() returns all interfaces except loopback and those with unusual names', () => {
  const text = head + ['lo', 'eth0', 'net1.7', 'a b', 'x€', 'eth0'].map(line).join('');
  assert.deepEqual(
    parseInterfaces(text).map(({ name }) => name),
    ['eth0', 'net1.7'],
  );
  assert.deepEqual(parseInterfaces(head + line('eth0')), [{ name: 'eth0', ...counters }]);
});

test('parseInterfaces() ignores a truncated line', () => {
  assert.deepEqual(parseInterfaces(head + line('eth0').slice(0, 20)), []);
});

test('interfaceCounters() reads no more of a long table than it returns', () => {
  const names = Array.from({ length: 5000 }, (_, at) => `veth${at}`);
  const table = Buffer.from(head + [...['lo', 'eth0'], ...names].map(line).join(''));
  let at = 0;
  const closed: number[] = [];
  const found = interfaceCounters({
    open: () => 7,
    close: (fd) => void closed.push(fd),
    decodeUtf8: (bytes, offset = 0, length = bytes.length) =>
      Buffer.from(bytes).toString('utf8', offset, offset + length),
    read(_fd, buffer, offset = 0) {
      const bytes = table.copy(buffer, offset, at, at + 1000);
      at += bytes;
      return bytes;
    },
  });
  assert.equal(found.length, limits.maxInterfaces);
  assert.equal(found[0]?.name, 'eth0');
  assert.ok(at < 10_000, `${at} bytes`);
  assert.deepEqual(closed, [7]);
});
