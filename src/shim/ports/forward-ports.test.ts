import assert from 'node:assert/strict';
import { test } from 'node:test';
import { portIn } from './forward-ports.ts';

/** Sockets of a client that has connected from port 52,854 to 8080, which was redirected to the listener at 1. */
const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0001 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 9819398 1 00000000cea0f277
   1: 0100007F:0001 0100007F:CE76 04 00000001:00000000 01:00000014 00000000     0        0 9819401 2 0000000078f2eeb6
   2: 0100007F:CE76 0100007F:1F90 08 00000000:00000004 00:00000000 00000000     0        0 9819400 3 00000000f9e36934
`;

test('portIn() finds the original port of a redirected client', () => {
  assert.equal(portIn(table, 52_854), 8080);
  assert.equal(portIn(table, 1234), undefined);
  assert.equal(portIn(table, 1), 52_854); // the listener's own socket, which no client has
  assert.equal(portIn('', 1), undefined);
});
