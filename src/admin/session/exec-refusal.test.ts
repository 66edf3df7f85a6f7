import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PodvmError } from '#base/errors.ts';
import { refusalOf } from './exec-refusal.ts';

const crunSays = (text: string) => new PodvmError('internal', `Cannot exec container: ${text}: in call startExec`);
const exitCodeOf = (error: unknown) => {
  const status = refusalOf(error);
  assert.ok('error' in status);
  return status.exitCode;
};

describe('refusalOf()', () => {
  it('returns no exit code for failures that the command did not cause', () => {
    assert.equal(exitCodeOf(crunSays('cannot join the cgroup: No such file or directory')), undefined);
    assert.equal(exitCodeOf(new PodvmError('notFound', 'Cannot find pod nopod')), undefined);
    assert.equal(exitCodeOf(new Error('not executable')), undefined);
  });

  it('reports 127 for a missing program, with its own message', () => {
    const status = refusalOf(crunSays('executable file `nosuch` not found in $PATH: No such file or directory'));
    assert.ok('error' in status);
    assert.equal(status.exitCode, 127);
    assert.equal(status.error.message, 'Cannot run nosuch: no such program');
  });

  it('reports 126 for a file that cannot be executed', () => {
    const because = 'Operation not permitted';
    assert.equal(exitCodeOf(crunSays(`the path \`/etc/passwd\` exists but it is not executable: ${because}`)), 126);
    assert.equal(exitCodeOf(crunSays(`the path \`/etc\` is not a regular file: ${because}`)), 126);
  });

  it('reports the codes of a shell for a file that the kernel refuses', () => {
    const told = (text: string) => {
      const status = refusalOf(crunSays(text));
      assert.ok('error' in status);
      return [status.exitCode, status.error.message];
    };
    const [noInterpreter, message] = told('exec `/bin/tool`: No such file or directory');
    assert.equal(noInterpreter, 127);
    assert.match(String(message), /^Cannot run \/bin\/tool: the interpreter/);
    assert.equal(told('exec `/arm`: Exec format error')[0], 126);
    assert.deepEqual(told('exec `/x`: Text file busy'), [126, 'Cannot run /x: Text file busy']);
    assert.deepEqual(told('cannot open `/a/b`: Not a directory'), [126, 'Cannot run /a/b: Not a directory']);
  });
});
