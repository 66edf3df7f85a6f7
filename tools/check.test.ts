import assert from 'node:assert/strict';
import { it } from 'node:test';
import { check, type Gate } from './check.ts';

const gate = (name: string, script: string): Gate => ({ name, command: ['node', '-e', script] });
const never = new AbortController().signal;

it('check() runs gates side by side, and shows the output of those that fail only', async () => {
  const lines: string[] = [];
  const failed = await check(
    [
      gate('sound', "console.log('of no interest')"),
      gate('broken', "console.log('first'); console.error('second'); process.exitCode = 3"),
      gate('silent', 'process.exitCode = 4'),
      { name: 'missing', command: ['no-such-program'] },
    ],
    (line) => lines.push(line),
    never,
  );
  assert.deepEqual(failed, ['broken', 'silent', 'missing']);
  const text = lines.join('\n');
  assert.match(text, /^ok {5}sound +\d+\.\d s$/m);
  assert.match(text, /^FAILED broken +\d+\.\d s\n {4}first\n {4}second$/m);
  assert.match(text, /^FAILED silent +\d+\.\d s\n {4}exit code 4$/m);
  assert.match(text, /^FAILED missing +\d+\.\d s\n {4}.*no-such-program/m);
  assert.match(text, /^4 gates in \d+\.\d s; failed: broken, silent, missing$/m);
  assert.doesNotMatch(text, /of no interest/);
});

it('check() starts a gate before another has ended', async () => {
  // Each waits until the other listens, so that one after the other would never end.
  const meet = (own: string, other: string) =>
    gate(
      own,
      `const { createServer, connect } = require('node:net');
       const path = (name) => '\\0podvm-check-${process.pid}-' + name;
       const server = createServer().listen(path('${own}'));
       server.once('connection', () => server.close());
       const call = () => connect(path('${other}')).on('error', () => setTimeout(call, 20)).on('connect', function () { this.end(); });
       call();`,
    );
  const gates = [meet('one', 'two'), meet('two', 'one')];
  assert.deepEqual(await check(gates, () => undefined, AbortSignal.timeout(30_000)), []);
});

it('check() ends the gates and names them as failed when it is interrupted', async () => {
  const interruption = new AbortController();
  interruption.abort();
  const failed = await check([gate('endless', 'setInterval(() => {}, 1000)')], () => undefined, interruption.signal);
  assert.deepEqual(failed, ['endless']);
});
