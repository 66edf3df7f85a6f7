import assert from 'node:assert/strict';
import { test } from 'node:test';
import { manualPage } from './command-pages.ts';

test('the manual page has every command, and groff knows its requests', async () => {
  const page = manualPage('1.2.3', '2026-01-02');
  assert.match(page, /^\.TH PODVM 1 "2026-01-02" "podvm 1\.2\.3"/);
  assert.match(page, /^\.SS image pull \[options\] <reference>$/m);
  assert.match(page, /^\.B \\-n, \\-\\-tail <lines>\nprint only the last lines$/m);
  const unknown = page.split('\n').filter((line) => /^\.(?!TH|SH|SS|TP|B |I )/.test(line));
  assert.deepEqual(unknown, []);
});
