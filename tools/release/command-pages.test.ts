import assert from 'node:assert/strict';
import { test } from 'node:test';
import { run } from '#host/run.ts';
import { bashCompletion, manualPage } from './command-pages.ts';

/** Completions that bash offers for the last of these words. */
async function offered(...words: readonly string[]): Promise<string[]> {
  const script = `${bashCompletion()}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _podvm; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await run('bash', ['-ec', script, 'bash', 'podvm', ...words]);
  return stdout.split('\n').filter((word) => word !== '');
}

test('bash completes commands and options by the words before', async () => {
  assert.deepEqual(await offered('im'), ['image', 'images']);
  assert.deepEqual(await offered('image', 'pu'), ['pull']);
  assert.deepEqual(await offered('--root', '/var', 'image', 'ta'), ['tag']);
  assert.deepEqual(await offered('setup', '--f'), ['--from']);
  assert.deepEqual(await offered('run', 'pod'), []); // a file
});

test('the manual page has every command, and groff knows its requests', async () => {
  const page = manualPage('1.2.3', '2026-01-02');
  assert.match(page, /^\.TH PODVM 1 "2026-01-02" "podvm 1\.2\.3"/);
  assert.match(page, /^\.SS image pull \[options\] <reference>$/m);
  assert.match(page, /^\.B \\-\\-tail <lines>\nprint only the last lines$/m);
  const unknown = page.split('\n').filter((line) => /^\.(?!TH|SH|SS|TP|B |I )/.test(line));
  assert.deepEqual(unknown, []);
});
