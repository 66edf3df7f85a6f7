import assert from 'node:assert/strict';
import { test } from 'node:test';
import { takeTokens, tokenOf } from './client/token.ts';

test('a page takes its token from the address, and that of a later `podvm dashboard` on the same port', () => {
  const location = { hash: '', pathname: '/pods', search: '?q=shop' };
  const stored = new Map<string, string>();
  const storage = {
    getItem: (name: string) => stored.get(name) ?? null,
    setItem: (name: string, value: string) => void stored.set(name, value),
  };
  const shown: string[] = [];
  let onHash = () => {};
  const open = (hash: string) => {
    location.hash = hash;
    onHash();
  };
  const [first, second] = ['a'.repeat(64), 'b'.repeat(64)];
  open(`#token=${first}`);
  takeTokens({
    location,
    localStorage: storage,
    history: {
      replaceState(_, __, url) {
        location.hash = '';
        shown.push(url);
      },
    },
    addEventListener: (_, listener) => (onHash = listener),
  });
  assert.equal(tokenOf(storage), first);
  open(`#token=${second}`);
  assert.equal(tokenOf(storage), second);
  for (const other of ['#main', '', '#token=', `#token=${first}0`]) open(other);
  assert.equal(tokenOf(storage), second);
  assert.deepEqual(shown, ['/pods?q=shop', '/pods?q=shop']);
});
