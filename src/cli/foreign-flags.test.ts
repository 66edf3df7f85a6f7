import assert from 'node:assert/strict';
import { test } from 'node:test';
import { foreignFlags, ownAdvice } from './foreign-flags.ts';
import { helpProgram } from './help-pages.ts';

test('a flag of another program is refused with what to use instead, and is no part of the help', async () => {
  for (const [words, message, fix] of [
    [['stop', '-s', 'INT', 'web'], /^Cannot use --signal: the image's own/, /podvm kill -s/],
    [['describe', '-n', 'shop', 'web'], /^Cannot use --namespace: /, /NAMESPACE\/NAME/],
    [['ps', '--format', 'json'], /^Cannot use --format: /, /-o json/],
    [['apply', '--dry-run=client', '-f', '-'], /^Cannot use --dry-run: /, /podvm diff/],
  ] as const) {
    const program = helpProgram();
    await assert.rejects(program.parseAsync(words, { from: 'user' }), { kind: 'unsupported', message, fix });
    const help = program.commands.find((command) => command.name() === words[0])?.helpInformation() ?? '';
    assert.doesNotMatch(help, /--signal|--namespace \[|--format|--dry-run/);
  }
});

test('the tables of foreign flags and of advice name commands that podvm has', () => {
  const names = helpProgram().commands.map((command) => command.name());
  for (const name of [...foreignFlags.keys(), ...ownAdvice.keys()]) assert.ok(names.includes(name), name);
});
