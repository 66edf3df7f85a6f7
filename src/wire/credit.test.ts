import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ReceiveCredit, SendCredit } from './credit.ts';
import { limits } from './limits.ts';

describe('ReceiveCredit', () => {
  it('refuses the first byte above the credit', () => {
    const credit = new ReceiveCredit(100);
    assert.equal(credit.receive(100), true);
    assert.equal(credit.receive(1), false);
  });

  it('never stalls or refuses a sender that stays within its credit', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 5000 }), { maxLength: 200 }), (wishes) => {
        const [sender, receiver] = [new SendCredit(1000), new ReceiveCredit(1000)];
        for (const wish of wishes) {
          assert.ok(sender.available > 0, 'a sender whose bytes were all used up can send');
          const bytes = Math.min(wish, sender.available);
          sender.spend(bytes);
          assert.ok(receiver.receive(bytes));
          sender.grant(receiver.consume(bytes));
        }
      }),
    );
  });
});

describe('SendCredit', () => {
  it('grows to the largest window and no further, however much is granted', () => {
    const credit = new SendCredit(10);
    for (let i = 0; i < 100; i += 1) credit.grant(0xffff_ffff);
    assert.equal(credit.available, limits.streamWindowBytes);
  });
});
