import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import type { PullInProgress } from '#api/images.ts';
import type { Client } from '../client.ts';
import type { Terminal } from '../terminal/terminal.ts';
import { PullProgress } from './pull-progress.ts';

const own = (doing?: string): PullInProgress => ({ reference: 'docker.io/library/nginx:latest', doing });
const other: PullInProgress = { reference: 'r.example/other:1', doing: 'pulling r.example/other:1: 1 of 2 MB' };

/** A run of an image, with what its node pulls at each look. */
function open(t: TestContext, looks: readonly (readonly PullInProgress[])[], isTTY: boolean, isStarting = false) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let said = '';
  let asked = 0;
  const client = {
    get: async () => {
      asked += 1;
      const now = looks[asked - 1];
      if (now === undefined) throw new Error('there is no such call');
      return now;
    },
  };
  const stderr = Object.assign(new PassThrough(), { isTTY, columns: 40 });
  stderr.on('data', (text: Buffer) => (said += text.toString()));
  // SAFE: all that it uses
  const terminal = { stderr } as unknown as Terminal;
  // SAFE: all that it uses
  const progress = new PullProgress(client as unknown as Client, async () => ['nginx'], terminal, isStarting);
  return {
    [Symbol.dispose]: () => t.mock.timers.reset(),
    progress,
    asked: () => asked,
    /** Returns what is printed at the next look. */
    look: async (): Promise<string> => {
      said = '';
      t.mock.timers.tick(2000);
      for (let turn = 0; turn < 20; turn += 1) await setImmediate();
      return said;
    },
  };
}

test('on a terminal, the pull of an image of its own is one line, which disappears', async (t) => {
  const far = 'pulling docker.io/library/nginx:latest: 12.0 of 70.0 MB';
  using run = open(t, [[], [other], [other, own()], [own(far)], [], []], true);
  const { progress, look } = run;
  assert.equal(await look(), '');
  assert.equal(await look(), '');
  const cut = '\r\u001b[Kpodvm: pulling docker.io/library/nginx:';
  assert.equal(await look(), cut);
  assert.equal(await look(), `\r\u001b[Kpodvm: pulling docker.io/library/ (2 s)${cut}`);
  assert.ok((await look()).endsWith('\r\u001b[K'));
  await progress[Symbol.asyncDispose]();
  assert.equal(await look(), '');
});

test('a line that stays the same says how old it is', async (t) => {
  using run = open(t, [[own()], [own()], [own()]], true);
  const { progress, look } = run;
  await look();
  assert.match(await look(), /\(2 s\)$/);
  assert.match(await look(), /\(3 s\)$/);
  await progress[Symbol.asyncDispose]();
});

test('on a terminal, a start says so until a container runs or an image is pulled', async (t) => {
  using run = open(t, [[], [own('pulling it')], [other], []], true, true);
  const { progress, look } = run;
  assert.equal(await look(), '\r\u001b[Kpodvm: starting');
  assert.match(await look(), /starting \(2 s\).*pulling it$/s);
  assert.match(await look(), /starting$/);
  progress.started();
  assert.ok((await look()).endsWith('\r\u001b[K'));
  await progress[Symbol.asyncDispose]();
});

test('in a pipe it is a plain line, and other lines only after a while', async (t) => {
  using run = open(t, [[own()], [own('pulling it: 1 of 2 MB')]], false);
  const { progress, look } = run;
  assert.equal(await look(), 'podvm: pulling docker.io/library/nginx:latest\n');
  assert.equal(await look(), '');
  await progress[Symbol.asyncDispose]();
});

for (const what of ['node', 'names of images'] as const) {
  test(`the end waits for no answer: ${what}`, async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    using _ = { [Symbol.dispose]: () => t.mock.timers.reset() };
    const asked = Promise.withResolvers<void>();
    const never = new Promise<never>(() => undefined);
    const get: Client['get'] = async (_path, _schema, signal) => {
      if (what !== 'node') return [own()] as never;
      asked.resolve();
      return await new Promise<never>((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
    };
    const names = async () => {
      asked.resolve();
      return await never;
    };
    // SAFE: all that it uses
    const terminal = { stderr: Object.assign(new PassThrough(), { isTTY: true, columns: 40 }) } as unknown as Terminal;
    // SAFE: all that it uses
    const progress = new PullProgress({ get } as unknown as Client, names, terminal);
    t.mock.timers.tick(2000);
    await asked.promise;
    let hasEnded = false;
    void progress[Symbol.asyncDispose]().then(() => (hasEnded = true));
    for (let turn = 0; turn < 20; turn += 1) await setImmediate();
    assert.ok(hasEnded);
  });
}

test('a node of an earlier version is asked once', async (t) => {
  using run = open(t, [], true);
  const { look, asked } = run;
  assert.equal(await look(), '');
  assert.equal(await look(), '');
  assert.equal(asked(), 1);
});
