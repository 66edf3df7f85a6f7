import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { mock, test } from 'node:test';
import type { Terminal } from './terminal.ts';
import { tellIfLate } from './progress-line.ts';

for (const isTTY of [true, false]) {
  test(`work that takes long is ${isTTY ? 'named on a terminal' : 'not mentioned elsewhere'} until it is done`, async () => {
    mock.timers.enable({ apis: ['setTimeout'] });
    using _ = { [Symbol.dispose]: () => mock.timers.reset() };
    let said = '';
    const stderr = Object.assign(new PassThrough(), { isTTY, columns: 40 });
    stderr.on('data', (text: Buffer) => (said += text.toString()));
    const { promise: work, resolve } = Promise.withResolvers<number>();
    const told = tellIfLate(work, 'stopping web', { stderr } as unknown as Terminal); // SAFE: all that it uses
    mock.timers.tick(1999);
    assert.equal(said, '');
    mock.timers.tick(1);
    await setImmediate();
    assert.equal(said, isTTY ? '\r\u001b[Kpodvm: stopping web' : '');
    resolve(7);
    assert.equal(await told, 7);
    await setImmediate();
    assert.equal(said.endsWith('\r\u001b[K'), isTTY);
  });
}
