import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dnsQuestion } from './dns-question.ts';

/** An answer with a header only, as far as it is read. */
const answer = (id: number, flags: number) =>
  Buffer.from([id >> 8, id & 0xff, flags >> 8, flags & 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);

test('a question has one name, and asks for recursion', () => {
  const { bytes, name } = dnsQuestion('kubernetes.default.svc.x', 0x1234);
  assert.equal(name, 'kubernetes.default.svc.x');
  assert.equal(bytes.toString('hex', 0, 12), '123401000001000000000000');
  assert.equal(bytes.toString('latin1', 12), '\nkubernetes\x07default\x03svc\x01x\0\0\x01\0\x01');
  assert.equal(dnsQuestion('', 1).bytes.toString('hex', 12), '0000020001'); // the root, NS
});

test('only an answer to the question counts', () => {
  const question = dnsQuestion('a', 7);
  assert.equal(question.outcomeOf(answer(7, 0x8180)), 'NOERROR');
  assert.equal(question.outcomeOf(answer(7, 0x8183)), 'NXDOMAIN');
  assert.equal(question.outcomeOf(answer(7, 0x818f)), 'code 15');
  for (const bytes of [answer(8, 0x8180), question.bytes, Buffer.alloc(0), answer(7, 0x8180).subarray(0, 11)])
    assert.equal(question.outcomeOf(bytes), undefined);
});
