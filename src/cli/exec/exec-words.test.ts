import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Command } from 'commander';
import { execOptions, parseExecWords } from './exec-words.ts';

describe('exec', () => {
  const parseLine = (before: readonly string[], words: readonly string[]) => {
    const quiet = { writeOut: () => {}, writeErr: () => {} };
    const exec = new Command('exec').configureOutput(quiet).exitOverride();
    for (const option of execOptions) exec.addOption(option);
    return parseExecWords(exec.parse(before, { from: 'user' }), words);
  };
  const parse = (...words: readonly string[]) => parseLine([], words);

  it('passes options to the command, with and without --', () => {
    const none = { container: undefined, stdin: false, tty: false };
    assert.deepEqual(parse('ls', '-l'), { ...none, command: ['ls', '-l'] });
    assert.deepEqual(parse('--', 'ls', '-l'), { ...none, command: ['ls', '-l'] });
    assert.deepEqual(parse('sh', '-c', 'echo', '--', '-t'), { ...none, command: ['sh', '-c', 'echo', '--', '-t'] });
    assert.deepEqual(parse('--', '-t'), { ...none, command: ['-t'] });
  });

  it('accepts its own options between pod and command', () => {
    assert.deepEqual(parse('-c', 'app', '-it', '--', 'ls', '-c'), {
      container: 'app',
      stdin: true,
      tty: true,
      command: ['ls', '-c'],
    });
  });

  it('takes the last of the values that stand before and after the pod', () => {
    const command = ['ls'];
    assert.deepEqual(parseLine(['-i', '-t', '-c', 'app'], ['--stdin=false', '-t=false', '-c', 'web', 'ls']), {
      container: 'web',
      stdin: false,
      tty: false,
      command,
    });
    assert.deepEqual(parseLine(['-i', '-c', 'app'], ['ls']), { container: 'app', stdin: true, tty: false, command });
    assert.deepEqual(parse('-i', '--stdin=false', '-it', '--tty=false', 'ls'), {
      container: undefined,
      stdin: true,
      tty: false,
      command,
    });
    assert.throws(() => parseLine(['-u', 'root'], ['id']), { message: /^Cannot use --user: / });
  });

  it('refuses flags of docker and kubectl with what to do instead', () => {
    for (const [words, message, fix] of [
      [['-u', 'root', 'id'], /^Cannot use --user: a command has the user of its container/, /podvm debug POD/],
      [['-e', 'A=1', 'env'], /^Cannot use --env: /, /env NAME=VALUE/],
      [['-n', 'shop', 'ls'], /^Cannot use --namespace: /, /NAMESPACE\/NAME/],
    ] as const)
      assert.throws(() => parse(...words), { kind: 'unsupported', message, fix });
    assert.deepEqual(parse('id', '-u').command, ['id', '-u']);
  });

  it('refuses an unknown option, and a missing command', () => {
    assert.throws(() => parse('-l'), { code: 'commander.unknownOption' });
    assert.throws(() => parse('-t'), { code: 'commander.missingArgument' });
  });
});
