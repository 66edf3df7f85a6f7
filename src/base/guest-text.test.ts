import assert from 'node:assert/strict';
import { test } from 'node:test';
import { inspect } from 'node:util';
import type { ErrorBody } from '#api/pods.ts';
import { silentLog } from '#host/log/log.ts';
import { type GuestText, guestText, printable, rawText } from './guest-text.ts';

const raw = 'a\u001b[2Jb\u202e\nc';
const shown = 'a\\u001b[2Jb\\u202e\\u000ac';
const text = guestText(raw);

test('printable() and rawText() are the only ways to the text', () => {
  assert.equal(printable(text), shown);
  assert.equal(rawText(text), raw);
  assert.equal(printable(guestText('x'.repeat(500)), 3), 'xxx...');
});

test('guest text is escaped by every conversion to a string that the compiler does not see', () => {
  const unseen = text as unknown as string; // SAFE: the misuse under test
  assert.equal(`it said ${unseen}`, `it said ${shown}`);
  assert.equal('it said ' + unseen, `it said ${shown}`);
  assert.equal(String(text), shown);
  assert.equal([text].join(), shown);
  assert.equal(JSON.stringify({ text }), JSON.stringify({ text: shown }));
  assert.equal(inspect({ text }), `{ text: ${shown} }`);
  assert.deepEqual(Object.values({ ...(text as unknown as object) }), [], 'a copy has nothing of it');
});

test('the compiler refuses guest text where text is expected', () => {
  const maybe = text as GuestText | undefined;
  /* oxlint-disable typescript/restrict-template-expressions -- the linter refuses it as well */
  // @ts-expect-error in a template literal
  assert.ok(`${text}`);
  // @ts-expect-error in a template literal with a default
  assert.ok(`${maybe ?? ''}`);
  /* oxlint-enable typescript/restrict-template-expressions */
  // @ts-expect-error beside a string
  assert.ok('it said ' + text);
  // @ts-expect-error as a string
  const asString: string = text;
  // @ts-expect-error as a field of a log
  silentLog.info('said', { text });
  // @ts-expect-error as an error's message
  assert.ok(new Error(text));
  // @ts-expect-error as JSON for a client of the admin socket
  const body: ErrorBody = { kind: 'internal', message: text };
  // @ts-expect-error among other lines
  const lines = ['it said'].concat(text);
  assert.ok([asString, body, lines].every((value) => value !== undefined));
});
