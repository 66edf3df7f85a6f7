import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Command } from 'commander';
import { foreignFlags, ownAdvice } from './foreign-flags.ts';
import { helpProgram } from './help-pages.ts';

test('a flag of another program is refused with what to use instead, and is no part of the help', async () => {
  for (const [words, message, fix] of [
    [['stop', '-s', 'INT', 'web'], /^Cannot use --signal: the image's own/, /podvm kill -s/],
    [['describe', '-n', 'shop', 'web'], /^Cannot use --namespace: /, /NAMESPACE\/NAME/],
    [['ps', '--format', 'json'], /^Cannot use --format: /, /-o json/],
    [['login', '-p', 'secret', 'r.example'], /^Cannot use --password: other users/, /--password-stdin/],
    [['start', '-a', 'web'], /^Cannot use --attach: /, /podvm attach/],
    [['get', 'deploy', '--no-headers'], /^Cannot use --no-headers: /, /-o name/],
    [['image', 'rm', '-f', 'nginx'], /^Cannot use --force: /, /podvm rm -f POD/],
    [['apply', '--dry-run=client', '-f', '-'], /^Cannot use --dry-run: /, /podvm diff/],
  ] as const) {
    const program = helpProgram();
    await assert.rejects(program.parseAsync(words, { from: 'user' }), { kind: 'unsupported', message, fix });
    const help = program.commands.find((command) => command.name() === words[0])?.helpInformation() ?? '';
    assert.doesNotMatch(help, /--signal|--namespace \[|--format|--dry-run/);
  }
});

test('the tables of foreign flags and of advice name commands that podvm has', () => {
  const namesOf = (command: Command, before: string): string[] =>
    command.commands.flatMap((below) => [`${before}${below.name()}`, ...namesOf(below, `${before}${below.name()} `)]);
  const names = namesOf(helpProgram(), '');
  for (const name of [...foreignFlags.keys(), ...ownAdvice.keys()]) assert.ok(names.includes(name), name);
});
