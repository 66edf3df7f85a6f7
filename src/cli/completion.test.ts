import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { run } from '#host/process/run.ts';
import { completion, type Shell } from './completion.ts';
import { helpProgram } from './help-pages.ts';

const script = (shell: Shell) => completion(helpProgram(), shell);
const home = mkdtempSync(join(tmpdir(), 'podvm-home-'));
after(() => rmSync(home, { recursive: true }));
/** Shells are found as a user's are. Fish makes files in its user's home directory. */
const options = { env: { PATH: process.env['PATH'] ?? '', HOME: home } };
/** Stands in for the program: it lists two pods. */
const pods = "podvm() { printf 'default/web\\nshop/db\\n'; }";

/** Completions that bash offers for the last of these words. */
async function bash(...words: readonly string[]): Promise<string[]> {
  const text = `${pods}\n${script('bash')}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _podvm; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await run('bash', ['-ec', text, 'bash', 'podvm', ...words], options);
  return stdout.split('\n').filter((word) => word !== '');
}

/** Completions that zsh offers. The test sets the variables of bash's completion itself. */
async function zsh(...words: readonly string[]): Promise<string[]> {
  const begin = 'emulate -L sh; setopt ksharrays; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))';
  const text = `autoload -U compinit; compinit -D -u; ${pods}\n${script('zsh')}\nask() { ${begin}; _podvm; print -l -- "\${COMPREPLY[@]}"; }; ask "$@"`;
  const { stdout } = await run('zsh', ['-fc', text, 'zsh', 'podvm', ...words], options);
  return stdout.split('\n').filter((word) => word !== '' && word.startsWith(words.at(-1) ?? '')); // as zsh itself does
}

async function fish(...words: readonly string[]): Promise<string[]> {
  const stub = "function podvm; printf 'default/web\\nshop/db\\n'; end";
  const line = ['podvm', ...words].join(' ');
  const { stdout } = await run(
    'fish',
    ['--no-config', '-c', `${stub}\n${script('fish')}\ncomplete -C '${line}'`],
    options,
  );
  return stdout.split('\n').flatMap((found) => (found === '' ? [] : [found.split('\t')[0] ?? '']));
}

const missing = async (shell: string) =>
  await run(shell, ['-c', 'exit 0'], options).then(
    () => false,
    () => `${shell} is not installed`,
  );

for (const [shell, offered] of Object.entries({ bash, zsh, fish })) {
  test(
    `${shell} completes commands, options and pods by the words before`,
    { skip: await missing(shell) },
    async () => {
      assert.deepEqual(await offered('im'), ['image', 'images']);
      assert.deepEqual(await offered('image', 'pu'), ['pull']);
      assert.deepEqual(await offered('setup', '--f'), ['--from']);
      assert.deepEqual(await offered('logs', 'w'), ['web']);
      assert.deepEqual(await offered('rm', '-f', 'web', 'sh'), ['shop/db']);
      assert.deepEqual(
        (await offered('run', 'pod')).filter((word) => ['web', 'shop/db'].includes(word)),
        [],
        'run takes images and files',
      );
    },
  );
}
