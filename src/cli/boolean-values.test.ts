import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Command, CommanderError, Option } from 'commander';
import { acceptBooleanValues } from './boolean-values.ts';
import { flag } from './command-row.ts';

/** Parses the words as those of a command that passes on what follows its operand. */
function parsed(...words: readonly string[]) {
  const command = new Command('run').argument('[image]').argument('[command...]').passThroughOptions().exitOverride();
  command.configureOutput({ writeErr: () => undefined });
  const detach = flag('-d, --detach', '').conflicts('rm');
  for (const option of [flag('--rm', ''), detach, new Option('--no-stream'), new Option('--name <name>')]) {
    command.addOption(option);
  }
  acceptBooleanValues(command, words);
  command.parse(words, { from: 'user' });
  const { rm, detach: isDetached, stream, name } = command.opts();
  return { rm, detach: isDetached, stream, name, args: command.args };
}

const defaults = { rm: false, detach: false, stream: true, name: undefined, args: [] };

test('a flag takes true and false as its value, and the last word counts', () => {
  assert.deepEqual(parsed('--rm=true'), { ...defaults, rm: true });
  assert.deepEqual(parsed('--rm=false'), defaults);
  assert.deepEqual(parsed('--rm', '--rm=false'), defaults);
  assert.deepEqual(parsed('--rm=false', '--rm'), { ...defaults, rm: true });
  assert.deepEqual(parsed('-d', '--detach=false'), defaults);
  assert.deepEqual(parsed('--detach', '-d=false'), defaults);
  assert.deepEqual(parsed('-d=false', '-d=true'), { ...defaults, detach: true });
  assert.deepEqual(parsed('--no-stream=true'), { ...defaults, stream: false });
  assert.deepEqual(parsed('--no-stream', '--no-stream=false'), defaults);
});

test('a flag that is false conflicts with no other', () => {
  assert.deepEqual(parsed('--rm=false', '-d'), { ...defaults, detach: true });
  assert.throws(() => parsed('--rm=true', '-d'), CommanderError);
});

test('other values, options and words are what they were', () => {
  assert.deepEqual(parsed('--name=true'), { ...defaults, name: 'true' });
  assert.deepEqual(parsed('nginx', '--rm=true'), { ...defaults, args: ['nginx', '--rm=true'] });
  assert.deepEqual(parsed('--', '--rm=true'), { ...defaults, args: ['--rm=true'] });
  for (const word of ['--rm=yes', '--rm=', '--other=true', '-d=1', '-x=true'])
    assert.throws(() => parsed(word), CommanderError, word);
});
