import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSelector } from './label-selector.ts';

test('parseSelector() matches as kubectl does', () => {
  const labels = { app: 'web', 'example.com/tier': 'front', debug: '' };
  const cases: readonly (readonly [string, boolean])[] = [
    ['app=web', true],
    ['app == web', true],
    ['app=db', false],
    ['app!=db', true],
    ['none!=db', true],
    ['none=', false],
    ['debug=', true],
    ['debug', true],
    ['!debug', false],
    ['!none', true],
    ['app in (db, web)', true],
    ['app notin (db, web)', false],
    ['none notin (db)', true],
    ['example.com/tier=front,app in (web,db),!none', true],
    ['app=web,debug=yes', false],
  ];
  for (const [text, isSelected] of cases) assert.equal(parseSelector(text)(labels), isSelected, text);
  assert.equal(parseSelector('toString')({}), false);
});

test('parseSelector() refuses invalid selectors', () => {
  for (const text of ['', 'a=b=c', 'app>1', 'in (a)', 'app in a', 'a,,b', '=web']) {
    assert.throws(() => parseSelector(text), { kind: 'invalid' }, text);
  }
});
